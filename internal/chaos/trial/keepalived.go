package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// Keepalived is the one that is installed, on two nodes as it is commonly run:
// the first has the higher priority and gets the addresses back.
type Keepalived struct {
	Version int // of VRRP: 2 or 3
	Advert  time.Duration
}

// Name implements Product.
func (p Keepalived) Name() string { return fmt.Sprintf("keepalived v%d %v", p.Version, p.Advert) }

// Nodes implements Product.
func (p Keepalived) Nodes() int { return 2 }

// Detection is the backup's Master_Down_Interval: three adverts and its skew
// (RFC 9568 section 6.1; RFC 3768 counts the skew in parts of a second).
func (p Keepalived) Detection() time.Duration {
	unit := p.Advert
	if p.Version == 2 {
		unit = time.Second
	}
	return 3*p.Advert + unit*(256-(vrrpBase-vrrpStep))/256
}

const (
	vrrpBase = 150 // priority of the first node
	vrrpStep = 50
	demoted  = 10
)

// Installed returns an error if there is no keepalived, and its version.
func Installed(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "keepalived", "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("keepalived: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// config is for unicast, which both products then use.
func (p Keepalived) config(r *Rig, i, priority int) string {
	h := r.Lab.Node(i)
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n    router_id %s\n", h)
	if r.Setup.Check {
		b.WriteString("    script_user root\n")
	}
	b.WriteString("}\n")
	var about strings.Builder
	fmt.Fprintf(&about, "    version %d\n    advert_int %g\n    unicast_src_ip %v\n    unicast_peer {\n", p.Version, p.Advert.Seconds(), h.Addr4(r.Peers()))
	for _, o := range r.Others(h) {
		fmt.Fprintf(&about, "        %v\n", o.Addr4(r.Peers()))
	}
	about.WriteString("    }\n")
	r.instances(&b, h, priority, i == 0, about.String())
	return b.String()
}

func (p Keepalived) deploy(ctx context.Context, r *Rig) (System, error) {
	if _, err := Installed(ctx); err != nil {
		return nil, err
	}
	s := &keepalived{product: p, rig: r, procs: map[*testnet.Host]*testnet.Proc{}, priority: map[*testnet.Host]int{}}
	for i, h := range r.Lab.Nodes() {
		s.priority[h] = vrrpBase - vrrpStep*i
		if err := errors.Join(s.Mend(h), s.Start(h)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// keepalived is a running pair.
type keepalived struct {
	product Keepalived
	rig     *Rig
	procs   map[*testnet.Host]*testnet.Proc
	// priority is that of each node's file.
	priority map[*testnet.Host]int
}

// Strict is false: what keepalived does not promise is found here, not failed.
func (s *keepalived) Strict() bool { return false }

// Detection implements System.
func (s *keepalived) Detection() time.Duration { return s.product.Detection() }

// Settled returns the first node, as the addresses go back there.
func (s *keepalived) Settled(context.Context) (*testnet.Host, error) {
	for h, p := range s.procs {
		select {
		case <-p.Done():
			return nil, fmt.Errorf("keepalived of %s has ended: %s", h, p.Tail(500))
		default:
		}
	}
	return s.rig.Lab.Node(0), nil
}

// Start removes the pid files of a killed run first. keepalived does so itself,
// unless a killed child is still a zombie because process 1 is slow to wait for
// it, as in some containers: then it would not start.
func (s *keepalived) Start(h *testnet.Host) error {
	stale, _ := filepath.Glob(filepath.Join(s.rig.Lab.Dir(), h.Name()+"-keepalived*.pid"))
	for _, f := range stale {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	for i, o := range s.rig.Lab.Nodes() {
		if o == h {
			p, err := s.rig.Lab.StartKeepalived(h, s.product.config(s.rig, i, s.priority[h]))
			if err != nil {
				return err
			}
			s.procs[h] = p
		}
	}
	return nil
}

func (s *keepalived) Kill(h *testnet.Host) error {
	p := s.procs[h]
	if err := p.SignalTree(syscall.SIGKILL); err != nil {
		return err
	}
	return ended(p)
}

func (s *keepalived) Term(h *testnet.Host) error {
	p := s.procs[h]
	if err := p.Term(); err != nil {
		return err
	}
	return ended(p)
}

func ended(p *testnet.Proc) error {
	// It may take its time over 1000 addresses.
	if _, err := p.Wait(time.Minute); errors.Is(err, testnet.ErrStillRunning) {
		return err
	}
	return nil
}

func (s *keepalived) Freeze(h *testnet.Host) error { return s.procs[h].SignalTree(syscall.SIGSTOP) }
func (s *keepalived) Thaw(h *testnet.Host) error   { return s.procs[h].SignalTree(syscall.SIGCONT) }
func (s *keepalived) Pids(h *testnet.Host) []int   { return s.procs[h].Tree() }

func (s *keepalived) Break(h *testnet.Host) error { return s.rig.breakCheck(h) }
func (s *keepalived) Mend(h *testnet.Host) error  { return s.rig.mendCheck(h) }

// Demote changes the file and has it read again, as Promote does.
func (s *keepalived) Demote(_ context.Context, h *testnet.Host) error {
	return s.reload(h, demoted)
}

func (s *keepalived) Promote(_ context.Context, h *testnet.Host) error {
	return s.reload(h, vrrpBase-vrrpStep*s.rig.index(h))
}

func (s *keepalived) reload(h *testnet.Host, priority int) error {
	s.priority[h] = priority
	if err := s.rig.Lab.WriteKeepalived(h, s.product.config(s.rig, s.rig.index(h), priority)); err != nil {
		return err
	}
	return s.procs[h].Signal(syscall.SIGHUP)
}

// Move is a stop, as keepalived has no other planned move.
func (s *keepalived) Move(_ context.Context, owner *testnet.Host) (func(context.Context) error, error) {
	return func(context.Context) error { return s.Start(owner) }, s.Term(owner)
}
