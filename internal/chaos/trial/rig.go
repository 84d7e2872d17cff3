package trial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A Product is what can be tested: what to run on each node, and how.
type Product interface {
	// Name is unique among the products of one run.
	Name() string
	// Nodes is how many nodes it runs on.
	Nodes() int
	deploy(ctx context.Context, r *Rig) (System, error)
}

// A System is a product that runs.
type System interface {
	// Detection is how long its nodes wait before they take one for dead.
	Detection() time.Duration
	// Settled returns the node that owns if everything is as it should be: all
	// nodes run, agree, and could take over.
	Settled(ctx context.Context) (*testnet.Host, error)
	// Kill is kill -9 of all processes of the node.
	Kill(h *testnet.Host) error
	Start(h *testnet.Host) error
	Freeze(h *testnet.Host) error
	Thaw(h *testnet.Host) error
	// Term asks the node to stop, and waits until it has.
	Term(h *testnet.Host) error
	// Pids are the processes of the node.
	Pids(h *testnet.Host) []int
	// Move is a planned move away from the owner, and what undoes it if anything
	// has to be.
	Move(ctx context.Context, owner *testnet.Host) (undo func(context.Context) error, err error)
	// Strict says that the product promises what is tested here, so that a node
	// which does not take over is a failure and not a finding.
	Strict() bool
}

// What only some products, or some set-ups, can do. A fault that needs one of
// these fails where it is missing.
type (
	// A Breaker has check scripts. Break makes that of the node fail, and Mend
	// undoes it.
	Breaker interface {
		Break(h *testnet.Host) error
		Mend(h *testnet.Host) error
	}
	// A Demoter has priorities in a file. Demote gives the node a lower one than
	// all others have, by a reload, and Promote gives it its own again.
	Demoter interface {
		Demote(ctx context.Context, h *testnet.Host) error
		Promote(ctx context.Context, h *testnet.Host) error
	}
	// A Retimer can change its heartbeat timeout while it runs. Retime asks the node, and
	// returns when all nodes have it.
	Retimer interface {
		Retime(ctx context.Context, h *testnet.Host, heartbeat time.Duration) error
	}
	// A Drainer can tell a node to own nothing, and Undrain undoes it.
	Drainer interface {
		Drain(ctx context.Context, h *testnet.Host) error
		Undrain(ctx context.Context, h *testnet.Host) error
	}
	// A Cloner can run a copy of a node beside it.
	Cloner interface {
		Clone(ctx context.Context, h *testnet.Host) (undo, error)
	}
	// An Enlister can get and lose nodes while it runs. Join makes a node of the host, with
	// an empty disk, and returns when it counts; Replace does it under the identity that
	// the host had, after it was killed. Remove returns when the node does not count any
	// more; its daemon is left as it is. With Leave the node itself asks for it, and ends.
	Enlister interface {
		Join(ctx context.Context, h *testnet.Host) error
		Replace(ctx context.Context, h *testnet.Host) error
		Remove(ctx context.Context, h *testnet.Host) error
		Leave(ctx context.Context, h *testnet.Host) error
	}
	// An Elector has elections. Election is the number of the latest one that the
	// node knows of; Best is the node that should win one if this node cannot, nil
	// if any may.
	Elector interface {
		Election(ctx context.Context, h *testnet.Host) (uint64, error)
		Best(without *testnet.Host) *testnet.Host
	}
)

// A Rig is a product in a lab with all observers running.
type Rig struct {
	Lab     *testnet.Lab
	System  System
	Product Product
	Setup   Setup
	// Addresses are all virtual ones; VIPs are those that are probed. IPv4 first.
	Addresses, VIPs []netip.Addr

	Prober  *testnet.Prober
	Client  *testnet.Client
	Capture *testnet.Capture
	Control *testnet.ControlProbe

	settled *testnet.Host // by the end of the trial before, or nil
}

// Open builds a lab, starts the product and the observers, and waits until it has
// settled. Close ends everything, also after a failure of Open.
func Open(ctx context.Context, p Product, s Setup) (_ *Rig, err error) {
	o := testnet.Options{Nodes: p.Nodes(), PeerNetwork: s.PeerNetwork}
	if s.Spare {
		o.Clients = 2
	}
	if v4, v6 := s.counts(); v4+v6 > 2 {
		o.Subnet4 = netip.MustParsePrefix("10.99.0.0/16")
	}
	lab, err := testnet.New(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &Rig{Lab: lab, Product: p, Setup: s, Addresses: s.addresses(lab), Control: testnet.StartControl(0)}
	for _, of := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		var family []netip.Addr
		for _, a := range r.Addresses {
			if of(a) {
				family = append(family, a)
			}
		}
		r.VIPs = append(r.VIPs, spread(family, mostProbed)...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", p.Name(), err), r.Close())
		}
	}()
	if r.Prober, err = lab.StartProber(testnet.ProberOptions{VIPs: r.VIPs, Interval: r.interval()}); err != nil {
		return nil, err
	}
	if r.Capture, err = lab.Observer().StartCapture(testnet.Front); err != nil {
		return nil, err
	}
	if r.System, err = p.deploy(ctx, r); err != nil {
		return nil, err
	}
	if _, err = r.Settle(ctx); err != nil {
		return nil, err
	}
	// Before somebody owned the address the client would only have noise to tell.
	r.Client, err = lab.Client(0).StartClient(testnet.ClientOptions{VIP: r.VIPs[0], Interval: r.interval()})
	return r, err
}

// Close ends the product and its lab.
func (r *Rig) Close() error {
	r.Control.Stop()
	return r.Lab.Close()
}

// Spare is the machine that can become a node, with [Setup.Spare].
func (r *Rig) Spare() *testnet.Host { return r.Lab.Client(1) }

// Peers is the network over which the nodes talk to each other.
func (r *Rig) Peers() testnet.Network {
	if r.Setup.PeerNetwork {
		return testnet.Peer
	}
	return testnet.Front
}

// Others returns the nodes other than h.
func (r *Rig) Others(h *testnet.Host) []*testnet.Host {
	var out []*testnet.Host
	for _, o := range r.Lab.Nodes() {
		if o != h {
			out = append(out, o)
		}
	}
	return out
}

// holders looks whether each instance is answered for by the node that is best for it, and
// returns the first node.
func (r *Rig) holders() (*testnet.Host, error) {
	for _, v := range r.VIPs {
		i := slices.Index(r.Addresses, v)
		if h := r.Prober.Holder(v); h != r.bestFor(i).Name() {
			return nil, fmt.Errorf("%q answers for %v, not %v", h, v, r.bestFor(i))
		}
	}
	return r.Lab.Node(0), nil
}

// holder returns the host that answers for every address now, or an error.
func (r *Rig) holder() (*testnet.Host, error) {
	name := ""
	if r.Setup.Spread {
		return r.holders()
	}
	for _, v := range r.VIPs {
		h := r.Prober.Holder(v)
		if h == "" {
			return nil, fmt.Errorf("nobody answers for %v", v)
		}
		if name != "" && h != name {
			return nil, fmt.Errorf("%s and %s answer", name, h)
		}
		name = h
	}
	for _, h := range r.Lab.Nodes() {
		if h.Name() == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%s answers: not a node", name)
}

// quiet is how long one node alone must have answered before all is well. Two
// daemons that both own find out by the messages they exchange.
func (r *Rig) quiet() time.Duration {
	return max(300*time.Millisecond, min(r.System.Detection(), 2*time.Second))
}

// settleWithin bounds the wait for a settled state. It is generous, since a
// machine under load is slow and this proves nothing about time.
func (r *Rig) settleWithin() time.Duration {
	d := 60 * time.Second
	if r.System != nil {
		// One that cannot settle, as adverts of 10 ms on a busy machine, is only a
		// finding; waiting longer for it finds nothing more.
		if !r.System.Strict() {
			d = 20 * time.Second
		}
		if len(r.Addresses) > len(r.VIPs) {
			d = 60 * time.Second
		}
		d += 8 * r.System.Detection()
	}
	return d
}

// Settle waits until the product is as it should be and one node alone answers,
// and has for a while. It returns the node.
func (r *Rig) Settle(ctx context.Context) (*testnet.Host, error) {
	var owner *testnet.Host
	var since time.Duration
	if h := r.settled; h != nil {
		// The trial before has waited for it; look whether it is still so.
		r.settled = nil
		owns, err := r.System.Settled(ctx)
		answers, silent := r.holder()
		if err == nil && silent == nil && owns == h && answers == h {
			return h, nil
		}
	}
	err := waitFor(ctx, r.settleWithin(), "a settled state", func() error {
		h, err := r.System.Settled(ctx)
		if err == nil {
			var answers *testnet.Host
			if answers, err = r.holder(); err == nil && answers != h {
				err = fmt.Errorf("%s owns and %s answers", h, answers)
			}
		}
		if err != nil {
			owner = nil
			return err
		}
		now := boottime.Now()
		if owner != h {
			owner, since = h, now
		}
		if left := r.quiet() - (now - since); left > 0 {
			return fmt.Errorf("%s owns, for %v only", h, now-since)
		}
		for _, a := range r.Prober.Since(since) {
			if a.Holder != h.Name() {
				owner = nil
				return fmt.Errorf("%s owns, and %s answers too", h, a.Holder)
			}
		}
		return nil
	})
	return owner, err
}

// waitFor is testnet.WaitFor with fewer questions: each costs CPU time that the
// daemons need.
func waitFor(ctx context.Context, within time.Duration, what string, cond func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v", within))
	defer cancel()
	return testnet.WaitFor(ctx, what, func() error {
		err := cond()
		if err != nil {
			_ = sleep(ctx, 25*time.Millisecond)
		}
		return err
	})
}

// sleep is time.Sleep that a context can end.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Logs returns the end of what each program printed, for a person who looks for
// the cause of a failure.
func (r *Rig) Logs(bytes int) string {
	s := ""
	for _, p := range r.Lab.Procs() {
		s += fmt.Sprintf("--- %s, pid %d:\n%s\n", p.Host(), p.Pid(), p.Tail(bytes))
	}
	return s
}
