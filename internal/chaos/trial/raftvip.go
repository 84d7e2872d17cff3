package trial

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/internal/testnet"
)

// Raftvip is the real program.
type Raftvip struct {
	Binary    string
	Guard     string        // keyword of the configuration; "" is its default
	PinDir    string        // a directory in a bpffs, or ""
	Heartbeat time.Duration // 0 is the default
	Voters    int           // default 3
}

// Name implements Product.
func (p Raftvip) Name() string {
	parts := []string{"raftvip"}
	if p.Guard != "" {
		parts = append(parts, p.Guard)
	}
	if p.Heartbeat > 0 {
		parts = append(parts, "H="+p.Heartbeat.String())
	}
	return strings.Join(parts, " ")
}

// Nodes implements Product.
func (p Raftvip) Nodes() int {
	if p.Voters == 0 {
		return 3
	}
	return p.Voters
}

// config is the node's own file: only what the trial is about.
func (p Raftvip) config(r *Rig, h *testnet.Host) string {
	var b strings.Builder
	b.WriteString("raft {\n")
	if p.Guard != "" {
		fmt.Fprintf(&b, "    guard %s\n", p.Guard)
	}
	if p.PinDir != "" {
		fmt.Fprintf(&b, "    guard_pin_dir %s\n", p.PinDir)
	}
	if p.Heartbeat > 0 {
		fmt.Fprintf(&b, "    heartbeat_timeout %v\n", p.Heartbeat)
	}
	if r.Setup.PeerNetwork {
		fmt.Fprintf(&b, "    listen %v:7355\n    advertise %[1]v:7355\n", h.Addr4(testnet.Peer))
	}
	b.WriteString("}\n")
	return b.String()
}

func (p Raftvip) deploy(ctx context.Context, r *Rig) (System, error) {
	s := &raftvip{product: p, rig: r, cluster: e2e.New(r.Lab, p.Binary)}
	for _, n := range s.cluster.Nodes {
		var err error
		if n.Config, err = n.WriteFile("raftvip.conf", p.config(r, n.Host)); err != nil {
			return nil, err
		}
	}
	var args []string
	for _, v := range r.VIPs {
		bits := 24
		if v.Is6() {
			bits = 64
		}
		args = append(args, "--vip", fmt.Sprintf("%v/%d@%v", v, bits, testnet.Front))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.cluster.Found(ctx, args...); err != nil {
		return nil, fmt.Errorf("found the cluster: %w\n%s", err, r.Logs(2000))
	}
	// A slow guard lengthens the heartbeat timeout, which takes a few commits.
	err := waitFor(ctx, time.Minute, "the heartbeat timeout to be settled", func() error {
		st, err := s.status(ctx, s.cluster.Nodes[0])
		if err != nil {
			return err
		}
		if p.Guard != "" && p.Guard != "bpf" && p.Guard != "auto" && st.Guard.Kind != p.Guard {
			return fmt.Errorf("the guard is %s, not %s: %s", st.Guard.Kind, p.Guard, strings.Join(st.Guard.Refused, "; "))
		}
		s.detection = seconds(st.Cluster.HeartbeatTimeout)
		if p.Guard == "lifetime" && s.detection < 2*seconds(st.Guard.Lateness) {
			return fmt.Errorf("heartbeat timeout %v, while the guard is late by up to %v", s.detection, seconds(st.Guard.Lateness))
		}
		return nil
	})
	return s, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// raftvip is a running cluster.
type raftvip struct {
	product   Raftvip
	rig       *Rig
	cluster   *e2e.Cluster
	detection time.Duration
}

func (s *raftvip) Strict() bool             { return true }
func (s *raftvip) Detection() time.Duration { return s.detection }

func (s *raftvip) node(h *testnet.Host) *e2e.Node { return s.cluster.Node(h.Name()) }

// status asks the daemon itself. To start the command each time would cost more
// processor time than the daemons use.
func (s *raftvip) status(ctx context.Context, n *e2e.Node) (api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var st api.Status
	err := api.NewClient(n.Socket).Call(ctx, api.PathStatus, struct{}{}, &st)
	return st, err
}

func (s *raftvip) Settled(ctx context.Context) (*testnet.Host, error) {
	owner := ""
	for _, n := range s.cluster.Nodes {
		if !n.Running() {
			return nil, fmt.Errorf("the daemon of %s has ended: %s", n.Name, n.Daemon().Tail(500))
		}
		st, err := s.status(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		switch {
		case st.Cluster.Voters != len(s.cluster.Nodes):
			return nil, fmt.Errorf("%s: %d of %d nodes vote", n.Name, st.Cluster.Voters, len(s.cluster.Nodes))
		case len(st.Groups) != 1 || st.Groups[0].Owner == "":
			return nil, fmt.Errorf("%s: no owner", n.Name)
		case owner != "" && st.Groups[0].Owner != owner:
			return nil, fmt.Errorf("%s: owner is %s, elsewhere %s", n.Name, st.Groups[0].Owner, owner)
		case st.Cluster.Leader != st.Groups[0].Owner:
			return nil, fmt.Errorf("%s: leader is %s, owner is %s", n.Name, st.Cluster.Leader, st.Groups[0].Owner)
		}
		owner = st.Groups[0].Owner
		if seconds(st.Cluster.HeartbeatTimeout) < s.detection {
			return nil, fmt.Errorf("%s: heartbeat timeout %v, it was %v", n.Name, seconds(st.Cluster.HeartbeatTimeout), s.detection)
		}
		for _, o := range st.Nodes {
			if !o.Alive || !o.Eligible {
				return nil, fmt.Errorf("%s: %s is alive: %v, eligible: %v %s", n.Name, o.Name, o.Alive, o.Eligible, o.Why)
			}
		}
	}
	return s.cluster.Node(owner).Host, nil
}

func (s *raftvip) Kill(h *testnet.Host) error   { return s.node(h).Kill() }
func (s *raftvip) Start(h *testnet.Host) error  { return s.node(h).Start() }
func (s *raftvip) Freeze(h *testnet.Host) error { return s.node(h).Daemon().Stop() }
func (s *raftvip) Thaw(h *testnet.Host) error   { return s.node(h).Daemon().Cont() }
func (s *raftvip) Pids(h *testnet.Host) []int   { return s.node(h).Daemon().Tree() }

func (s *raftvip) Term(h *testnet.Host) error {
	_, err := s.node(h).Stop()
	return err
}

// Move is `raftvip transfer`. That it is refused, as by voters that do not answer
// in time, is a possible outcome and no failure: the owner stays.
func (s *raftvip) Move(ctx context.Context, owner *testnet.Host) (func(context.Context) error, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var out api.TransferResult
	err := api.NewClient(s.node(owner).Socket).Call(ctx, api.PathTransfer, api.TransferRequest{}, &out)
	if err != nil && ctx.Err() == nil && !errors.Is(err, api.ErrNoDaemon) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil, err
}

// ErrRefused: the product declined a planned move.
var ErrRefused = errors.New("planned move refused")
