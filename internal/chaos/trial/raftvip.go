package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
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
	// Ranked gives the nodes a file each with an instance: the first has the highest
	// priority and gets the addresses back. Without it the cluster has no file but
	// for the raft block, and all nodes are equal.
	Ranked bool
	// Variant names how the daemon is started, if not as usual: by RunArgs and Env.
	Variant string
	RunArgs []string
	Env     []string
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
	if p.Voters > 0 {
		parts = append(parts, fmt.Sprintf("%d voters", p.Voters))
	}
	if p.Variant != "" {
		parts = append(parts, p.Variant)
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
func (p Raftvip) config(r *Rig, h *testnet.Host, priority int) string {
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
	if r.Setup.Separate {
		b.WriteString("    ownership separate\n")
	}
	if r.Setup.PeerNetwork {
		fmt.Fprintf(&b, "    listen %v:7355\n    advertise %[1]v:7355\n", h.Addr4(testnet.Peer))
	}
	b.WriteString("}\n")
	if r.Setup.Check {
		b.WriteString("global_defs {\n    script_user root\n}\n")
	}
	if p.Ranked {
		r.instances(&b, h, priority, r.index(h) == 0, "")
	}
	return b.String()
}

// priority is that of a node when it is not demoted; there are at most five.
func (p Raftvip) priority(i int) int { return vrrpBase - 10*i }

func (p Raftvip) deploy(ctx context.Context, r *Rig) (System, error) {
	s := &raftvip{product: p, rig: r, cluster: e2e.New(r.Lab, p.Binary), removed: map[*e2e.Node]bool{}}
	for i, n := range s.cluster.Nodes {
		n.RunArgs, n.Env = p.RunArgs, p.Env
		if err := errors.Join(s.Mend(n.Host), s.write(n.Host, p.priority(i))); err != nil {
			return nil, err
		}
	}
	var args []string
	for _, v := range r.Addresses {
		if !p.Ranked {
			args = append(args, "--vip", fmt.Sprintf("%v/%d@%v", v, r.bits(v), testnet.Front))
		}
	}
	args = append(args, "--token-uses", strconv.Itoa(p.Nodes()))
	if len(r.Addresses) != len(r.VIPs) {
		// The network would be asked for each, one after the other.
		args = append(args, "--force")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	found := s.cluster.Found
	if r.Setup.Separate {
		found = s.cluster.Begin // and Settled looks at all groups
	}
	if err := found(ctx, args...); err != nil {
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
	removed   map[*e2e.Node]bool
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
	if s.product.Ranked {
		owner = s.cluster.Nodes[0].Name
	}
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
		case s.rig.Setup.Separate:
			if err := s.separate(st); err != nil {
				return nil, fmt.Errorf("%s: %w", n.Name, err)
			}
		case len(st.Groups) != 1 || st.Groups[0].Owner == "":
			return nil, fmt.Errorf("%s: no owner", n.Name)
		case owner != "" && st.Groups[0].Owner != owner:
			return nil, fmt.Errorf("%s: owner is %s, elsewhere %s", n.Name, st.Groups[0].Owner, owner)
		case st.Cluster.Leader != st.Groups[0].Owner:
			return nil, fmt.Errorf("%s: leader is %s, owner is %s", n.Name, st.Cluster.Leader, st.Groups[0].Owner)
		}
		if !s.rig.Setup.Separate {
			owner = st.Groups[0].Owner
		}
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

// separate tells whether each group has all voters and the owner that is to have it.
func (s *raftvip) separate(st api.Status) error {
	if len(st.Groups) != len(s.rig.Addresses) {
		return fmt.Errorf("%d groups, not %d", len(st.Groups), len(s.rig.Addresses))
	}
	for _, g := range st.Groups {
		best := s.cluster.Nodes[0].Name
		if s.rig.Setup.Spread {
			i, err := strconv.Atoi(strings.TrimPrefix(g.Name, "V"))
			if err != nil {
				return fmt.Errorf("group %q", g.Name)
			}
			best = s.node(s.rig.bestFor(i - 1)).Name
		}
		if g.Owner != best || g.Voters != st.Cluster.Voters {
			return fmt.Errorf("group %s: owner %q, not %s, %d voters: %s", g.Name, g.Owner, best, g.Voters, g.Why)
		}
	}
	return nil
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

// write writes the node's file.
func (s *raftvip) write(h *testnet.Host, priority int) error {
	n := s.node(h)
	var err error
	n.Config, err = n.WriteFile("raftvip.conf", s.product.config(s.rig, h, priority))
	return err
}

func (s *raftvip) Break(h *testnet.Host) error { return s.rig.breakCheck(h) }
func (s *raftvip) Mend(h *testnet.Host) error  { return s.rig.mendCheck(h) }

// Demote is `raftvip reload` with another priority in the file, as is Promote.
func (s *raftvip) Demote(ctx context.Context, h *testnet.Host) error {
	return s.reload(ctx, h, demoted)
}

func (s *raftvip) Promote(ctx context.Context, h *testnet.Host) error {
	return s.reload(ctx, h, s.product.priority(s.rig.index(h)))
}

func (s *raftvip) reload(ctx context.Context, h *testnet.Host, priority int) error {
	if !s.product.Ranked {
		return errors.New("its file has no priority")
	}
	if err := s.write(h, priority); err != nil {
		return err
	}
	var out api.ReloadResult
	return api.NewClient(s.node(h).Socket).Call(ctx, api.PathReload, api.ReloadRequest{}, &out)
}

// Retime is what `raftvip reload` proposes for a file with another heartbeat_timeout. It
// returns when all nodes have it, or the longer one that a guard needs.
func (s *raftvip) Retime(ctx context.Context, h *testnet.Host, d time.Duration) error {
	if s.product.Ranked {
		return errors.New("its file says more than the heartbeat timeout")
	}
	st, err := s.status(ctx, s.node(h))
	if err != nil {
		return err
	}
	leader := s.cluster.Node(st.Cluster.Leader)
	if leader == nil {
		return fmt.Errorf("no leader to propose it to")
	}
	var out api.Configured
	in := api.ConfigureRequest{Configuration: state.Configuration{Heartbeat: d}}
	if err := api.NewClient(leader.Socket).Call(ctx, api.PathConfig, in, &out); err != nil {
		return err
	}
	want := d
	if s.product.Guard == "lifetime" {
		want = max(d, s.detection)
	}
	return waitFor(ctx, time.Minute, "the heartbeat timeout to be settled", func() error {
		for _, n := range s.cluster.Nodes {
			st, err := s.status(ctx, n)
			if err != nil {
				return err
			}
			if got := seconds(st.Cluster.HeartbeatTimeout); (got - want).Abs() > time.Millisecond {
				return fmt.Errorf("%s: heartbeat timeout %v, want %v", n.Name, got, want)
			}
		}
		return nil
	})
}

// Drain is `raftvip drain`, Undrain `raftvip undrain`.
func (s *raftvip) Drain(ctx context.Context, h *testnet.Host) error { return s.drain(ctx, h, true) }

func (s *raftvip) Undrain(ctx context.Context, h *testnet.Host) error { return s.drain(ctx, h, false) }

func (s *raftvip) drain(ctx context.Context, h *testnet.Host, on bool) error {
	var out api.Done
	return api.NewClient(s.node(h).Socket).Call(ctx, api.PathDrain, api.DrainRequest{Node: s.node(h).Name, Drained: on}, &out)
}

// Clone starts a copy of a node's data directory on a machine that is none of the
// nodes. The node comes back when the copy is gone and the operator has said that it is
// the one.
func (s *raftvip) Clone(ctx context.Context, h *testnet.Host) (undo, error) {
	n := s.node(h)
	c := s.cluster.NewNode(s.rig.Lab.Client(0), n.Name)
	c.Config, c.RunArgs, c.Env = n.Config, n.RunArgs, n.Env
	err := errors.Join(os.RemoveAll(c.Dir), os.MkdirAll(c.Dir, 0o700))
	if err == nil {
		err = exec.CommandContext(ctx, "cp", "-a", n.DataDir, c.DataDir).Run()
	}
	if err == nil {
		err = os.Remove(filepath.Join(c.DataDir, "machine.json")) // else it would not start
	}
	if err != nil {
		return nil, fmt.Errorf("copy the data dir of %s: %w", n.Name, err)
	}
	return func(ctx context.Context) error {
		if err := c.Kill(); err != nil {
			return err
		}
		if _, err := n.Stop(); err != nil {
			return err
		}
		if _, err := n.Must(ctx, "node", "move-here"); err != nil {
			return err
		}
		return n.Start()
	}, c.Start()
}

// Join is `raftvip join` with a new token on a machine without data, and the daemon.
func (s *raftvip) Join(ctx context.Context, h *testnet.Host) error { return s.join(ctx, h) }

// Replace is `raftvip join --replace` after kill -9 and the loss of the disk.
func (s *raftvip) Replace(ctx context.Context, h *testnet.Host) error {
	return s.join(ctx, h, "--replace")
}

func (s *raftvip) join(ctx context.Context, h *testnet.Host, args ...string) error {
	n := s.node(h)
	if n == nil {
		n = s.cluster.NewNode(h, h.Name())
		n.RunArgs, n.Env = s.product.RunArgs, s.product.Env
		s.cluster.Nodes = append(s.cluster.Nodes, n)
		if err := s.write(h, demoted); err != nil {
			return err
		}
	} else if n.Running() {
		if err := n.Kill(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(n.DataDir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	err := testnet.WaitFor(ctx, "join of "+n.Name, func() error {
		var token api.Token
		if err := s.ask(ctx, n, api.PathToken, api.TokenRequest{TTL: time.Hour, Uses: 1}, &token); err != nil {
			return err
		}
		ticket, err := e2e.TicketFrom(token.Join)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err = n.Join(short, ticket, args...); err != nil {
			// A leader that falls in that moment may have admitted it, and spent the token.
			args = []string{"--replace"}
		}
		return err
	})
	if err == nil {
		err = n.Start()
	}
	if err != nil {
		return err
	}
	delete(s.removed, n)
	return s.counted(ctx, n, true)
}

// members are the nodes other than one that have not been removed.
func (s *raftvip) members(but *e2e.Node) []*e2e.Node {
	return slices.DeleteFunc(s.cluster.Others(but), func(n *e2e.Node) bool { return s.removed[n] })
}

// joinWithin bounds how long a change of the members may take, on a busy machine.
const joinWithin = time.Minute

// Leave is `raftvip leave` on the node.
func (s *raftvip) Leave(ctx context.Context, h *testnet.Host) error {
	n := s.node(h)
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	if err := api.NewClient(n.Socket).Call(ctx, api.PathLeave, api.LeaveRequest{}, &api.Done{}); err != nil {
		return err
	}
	return s.counted(ctx, n, false)
}

// Remove is `raftvip node remove`, asked of the other nodes until they have a leader.
// Before a leader that can be asked, `raftvip transfer`: it is not removed.
func (s *raftvip) Remove(ctx context.Context, h *testnet.Host) error {
	n := s.node(h)
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	if st, err := s.status(ctx, n); err == nil && st.Cluster.Leader == n.Name {
		if err := s.transfer(ctx, h, ""); err != nil {
			return err
		}
	}
	if err := s.ask(ctx, n, api.PathRemove, api.NodeRequest{Node: n.Name}, &api.Done{}); err != nil {
		return err
	}
	if err := s.counted(ctx, n, false); err != nil {
		return err
	}
	s.removed[n] = true
	if s.rig.index(h) < 0 { // a machine again that is no node
		s.cluster.Nodes = s.cluster.Others(n)
		return n.Kill()
	}
	return nil
}

// ask asks the members other than one until one of them does it.
func (s *raftvip) ask(ctx context.Context, not *e2e.Node, path string, in, out any) error {
	return testnet.WaitFor(ctx, "an answer to "+path, func() error {
		var errs []error
		for _, n := range s.members(not) {
			// Who has not noticed yet that the leader is gone would wait for it for long.
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			err := api.NewClient(n.Socket).Call(short, path, in, out)
			cancel()
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		_ = sleep(ctx, 25*time.Millisecond)
		return errors.Join(errs...)
	})
}

// counted waits until the other members say of a node that it is one, and votes, or that
// it is none.
func (s *raftvip) counted(ctx context.Context, of *e2e.Node, member bool) error {
	return testnet.WaitFor(ctx, fmt.Sprintf("%s to be a member: %v", of.Name, member), func() error {
		_ = sleep(ctx, 25*time.Millisecond)
		for _, n := range s.members(of) {
			st, err := s.status(ctx, n)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(st.Nodes, func(o api.Node) bool { return o.Name == of.Name })
			switch {
			case i >= 0 != member:
				return fmt.Errorf("%s: member is %v", n.Name, !member)
			case member && (st.Nodes[i].Role != "voter" || !st.Nodes[i].Eligible):
				return fmt.Errorf("%s: it is a %s, %s", n.Name, st.Nodes[i].Role, st.Nodes[i].Why)
			}
		}
		return nil
	})
}

// Election is Raft's term: each election, and nothing else, makes a new one.
func (s *raftvip) Election(ctx context.Context, h *testnet.Host) (uint64, error) {
	st, err := s.status(ctx, s.node(h))
	return st.Cluster.Term, err
}

// Best is the one with the highest priority; they fall from the first node on.
func (s *raftvip) Best(without *testnet.Host) *testnet.Host {
	if others := s.rig.Others(without); s.product.Ranked && len(others) > 0 {
		return others[0]
	}
	return nil
}

// Move is `raftvip transfer`. That it is refused, as by voters that do not answer
// in time, is a possible outcome and no failure: the owner stays.
func (s *raftvip) Move(ctx context.Context, owner *testnet.Host) (func(context.Context) error, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err := s.transfer(ctx, owner, "")
	if err != nil && ctx.Err() == nil && !errors.Is(err, api.ErrNoDaemon) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !s.product.Ranked {
		return nil, err
	}
	// An operator's move stays until the operator moves again.
	return func(ctx context.Context) error { return s.transfer(ctx, owner, s.node(owner).Name) }, err
}

// transfer moves what a host has, with separate owners each of its groups.
func (s *raftvip) transfer(ctx context.Context, at *testnet.Host, to string) error {
	groups := []string{""}
	if s.rig.Setup.Separate {
		st, err := s.status(ctx, s.node(at))
		if err != nil {
			return err
		}
		groups = nil
		for _, g := range st.Groups {
			if g.Owner != to {
				groups = append(groups, g.Name)
			}
		}
		if st.Cluster.Leader == s.node(at).Name && to == "" {
			groups = append(groups, "default") // which has no address, and leads the cluster
		}
	}
	for _, g := range groups {
		var out api.TransferResult
		if err := api.NewClient(s.node(at).Socket).Call(ctx, api.PathTransfer, api.TransferRequest{Group: g, Node: to}, &out); err != nil {
			return err
		}
	}
	return nil
}

// ErrRefused: the product declined a planned move.
var ErrRefused = errors.New("planned move refused")
