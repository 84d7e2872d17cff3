package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// A Fault is something that is done to a running product and undone again.
type Fault struct {
	// Name is the word for flags; Title is for people.
	Name, Title string
	// Moves: another node has to take over while the fault lasts.
	Moves bool
	// PeerNetwork: it needs a lab where the nodes have a network of their own.
	PeerNetwork bool
	// Thaws: the old owner's daemon goes on where it stood when it is healed.
	Thaws bool
	// CutsClient: clients cannot reach the old owner either, so that they see the
	// gap even if it goes on answering.
	CutsClient bool
	// MayRefuse: a planned move under such conditions may be declined.
	MayRefuse bool
	// Planned: nothing is broken, so there is nothing to wait for.
	Planned bool
	// Many: it needs a lab with many addresses.
	Many bool
	// Spare: it needs a lab with a machine that can become a node.
	Spare bool
	// Ours: only raftvip can do it, or has what it is about.
	Ours bool

	// Steady: clients notice nothing, but for a moment, also when it is healed.
	Steady bool

	inject func(ctx context.Context, r *Rig, owner *testnet.Host) (undo, error)
}

// undo heals what a fault did; nil if there is nothing to heal.
type undo func(ctx context.Context) error

// How late messages between the old owner and the voters are in a planned move
// with delayed replies. There and back is well under the default heartbeat
// timeout, so that the leader stays the leader; its lease renews late.
const (
	requestDelay = 10 * time.Millisecond
	replyDelay   = 60 * time.Millisecond
)

// Faults returns all there are, in the order of the table.
func Faults() []Fault {
	return []Fault{
		{Name: "kill", Title: "kill -9", Moves: true, inject: kill},
		{Name: "power", Title: "power loss", Moves: true, CutsClient: true, inject: power},
		{Name: "freeze", Title: "SIGSTOP, then SIGCONT", Moves: true, Thaws: true, inject: freeze},
		{Name: "starve", Title: "CPU quota 0.1 %, then lifted", Moves: true, Thaws: true, inject: starve},
		{Name: "isolate", Title: "full partition", Moves: true, CutsClient: true, inject: isolate},
		{Name: "partition", Title: "partition", Moves: true, inject: partition},
		{Name: "cut-out", Title: "owner to others cut", Moves: true, inject: cutOut},
		{Name: "cut-in", Title: "others to owner cut", Moves: true, inject: cutIn},
		{Name: "cut-peers", Title: "peer links cut, clients reach all", Moves: true, PeerNetwork: true, inject: cutPeers},
		{Name: "cut-peers-in", Title: "peers to owner cut, clients reach all", Moves: true, PeerNetwork: true, inject: cutPeersIn},
		{Name: "restart-voter", Title: "owner cut off, a voter restarts", Moves: true, inject: restartVoter},
		{Name: "slow-transfer", Title: "planned move, replies delayed", MayRefuse: true, inject: slowMove},
		{Name: "kill-all", Title: "kill -9 of all, start all", inject: killAll},
		{Name: "clone", Title: "copy of the owner's data dir is started", Moves: true, Ours: true, inject: clone},
		{Name: "join", Title: "a node joins, and is removed", Planned: true, Spare: true, Ours: true, Steady: true, inject: join},
		{Name: "remove", Title: "a standby is removed, and joins again", Planned: true, Spare: true, Ours: true, Steady: true, inject: removeStandby},
		{Name: "replace", Title: "a standby dies and is replaced", Spare: true, Ours: true, Steady: true, inject: replaceStandby},
		{Name: "remove-owner", Title: "the owner is moved off, removed, joins again", Moves: true, Planned: true, Spare: true, Ours: true, inject: removeOwner},
		{Name: "leave", Title: "the owner leaves, and joins again", Moves: true, Planned: true, Spare: true, Ours: true, inject: leave},
		{Name: "remove-killed", Title: "kill -9, replaced by a new node", Moves: true, Spare: true, Ours: true, inject: outOf(kill)},
		{Name: "remove-frozen", Title: "SIGSTOP, replaced by a new node, SIGCONT", Moves: true, Thaws: true, Spare: true, Ours: true, inject: outOf(freeze)},
		{Name: "retime", Title: "heartbeat_timeout up, down, back", Planned: true, Ours: true, Steady: true, inject: retime},
		{Name: "term", Title: "SIGTERM", Moves: true, Planned: true, inject: term},
		{Name: "transfer", Title: "planned move", Moves: true, Planned: true, inject: move},
		{Name: "drain", Title: "drain", Moves: true, Planned: true, Ours: true, inject: drain},
		{Name: "check", Title: "failed check", Moves: true, Planned: true, inject: failCheck},
		{Name: "priority", Title: "priority change", Moves: true, Planned: true, inject: demote},
		{Name: "locked-transfer", Title: "planned move, 600 addresses, nftables locked", MayRefuse: true, Many: true, Ours: true, inject: locked(move)},
		{Name: "locked-drain", Title: "drain, 600 addresses, nftables locked", Moves: true, Many: true, Ours: true, inject: locked(drain)},
		{Name: "locked-term", Title: "SIGTERM, 600 addresses, nftables locked", Moves: true, Many: true, Ours: true, inject: locked(term)},
	}
}

// Find returns the faults of these names.
func Find(names ...string) ([]Fault, error) {
	var out []Fault
	all := Faults()
next:
	for _, n := range names {
		for _, f := range all {
			if f.Name == n {
				out = append(out, f)
				continue next
			}
		}
		var known []string
		for _, f := range all {
			known = append(known, f.Name)
		}
		return nil, fmt.Errorf("fault %q: must be one of %v", n, known)
	}
	return out, nil
}

func kill(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return func(context.Context) error { return r.System.Start(o) }, r.System.Kill(o)
}

// power takes the carrier with the processes, as a machine that is gone does.
func power(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return func(context.Context) error {
		return errors.Join(r.Lab.LinkUp(o), r.System.Start(o))
	}, errors.Join(r.Lab.LinkDown(o), r.System.Kill(o))
}

func freeze(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return func(context.Context) error { return r.System.Thaw(o) }, r.System.Freeze(o)
}

func starve(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	t, err := r.Lab.Throttle(0.001, r.System.Pids(o)...)
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return t.Lift() }, nil
}

func (r *Rig) heal(context.Context) error { return r.Lab.Heal() }

func isolate(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return r.heal, r.Lab.Isolate(o)
}

// partition cuts the owner off from the other nodes; clients reach all.
func partition(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return r.heal, r.Lab.Split([]*testnet.Host{o}, r.Others(o))
}

func cutOut(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	var errs []error
	for _, h := range r.Others(o) {
		errs = append(errs, r.Lab.Cut(o, h))
	}
	return r.heal, errors.Join(errs...)
}

func cutIn(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	var errs []error
	for _, h := range r.Others(o) {
		errs = append(errs, r.Lab.Cut(h, o))
	}
	return r.heal, errors.Join(errs...)
}

func cutPeers(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return r.heal, r.Lab.Split([]*testnet.Host{o}, r.Others(o), testnet.Peer)
}

func cutPeersIn(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	var errs []error
	for _, h := range r.Others(o) {
		errs = append(errs, r.Lab.Cut(h, o, testnet.Peer))
	}
	return r.heal, errors.Join(errs...)
}

// retime changes the heartbeat timeout in large steps while the owner answers.
func retime(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Retimer)
	if !ok {
		return nil, errors.New("its heartbeat timeout cannot be changed while it runs")
	}
	was := r.System.Detection()
	for _, d := range []time.Duration{7 * was, was / 3, 10 * time.Second} {
		if err := s.Retime(ctx, o, min(d, 10*time.Second)); err != nil {
			return nil, err
		}
	}
	return nil, s.Retime(ctx, o, was)
}

// restartVoter makes a voter forget that it has heard a leader while that one
// still has its lease.
func restartVoter(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	if err := r.Lab.Isolate(o); err != nil {
		return r.heal, err
	}
	v := r.Others(o)[0]
	if err := r.System.Kill(v); err != nil {
		return r.heal, err
	}
	return r.heal, r.System.Start(v)
}

func slowMove(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	for _, h := range r.Others(o) {
		if err := errors.Join(r.Lab.Delay(o, h, requestDelay), r.Lab.Delay(h, o, replyDelay)); err != nil {
			return r.heal, err
		}
	}
	// Until what is under way is late too.
	if err := sleep(ctx, 5*replyDelay); err != nil {
		return r.heal, err
	}
	back, err := r.System.Move(ctx, o)
	return both(r.heal, back), err
}

func killAll(_ context.Context, r *Rig, _ *testnet.Host) (undo, error) {
	each := func(do func(*testnet.Host) error) error {
		var errs []error
		for _, h := range r.Lab.Nodes() {
			errs = append(errs, do(h))
		}
		return errors.Join(errs...)
	}
	return func(context.Context) error { return each(r.System.Start) }, each(r.System.Kill)
}

func term(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return func(context.Context) error { return r.System.Start(o) }, r.System.Term(o)
}

func move(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	back, err := r.System.Move(ctx, o)
	return both(nil, back), err
}

func drain(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Drainer)
	if !ok {
		return nil, errors.New("it cannot be drained")
	}
	return func(ctx context.Context) error { return s.Undrain(ctx, o) }, s.Drain(ctx, o)
}

// manyAddresses is how many a lab for a fault with Many has: enough for the guard's
// transactions to take long.
const manyAddresses = 600

// lockedBefore is how long others have kept the lock of nftables before a move.
const lockedBefore = 300 * time.Millisecond

// locked does something while somebody else on the owner's machine keeps the lock
// that the guard nft needs to be shut.
func locked(do func(context.Context, *Rig, *testnet.Host) (undo, error)) func(context.Context, *Rig, *testnet.Host) (undo, error) {
	return func(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
		load, err := o.LoadNFTables()
		if err != nil {
			return nil, err
		}
		stop := func(context.Context) error {
			_, _, err := load.Stop()
			return err
		}
		if err := sleep(ctx, lockedBefore); err != nil {
			return stop, err
		}
		back, err := do(ctx, r, o)
		return both(stop, back), err
	}
}

func failCheck(_ context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Breaker)
	if !ok || !r.Setup.Check {
		return nil, errors.New("it has no check script")
	}
	return func(context.Context) error { return s.Mend(o) }, s.Break(o)
}

func demote(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Demoter)
	if !ok {
		return nil, errors.New("its priority cannot be changed")
	}
	return func(ctx context.Context) error { return s.Promote(ctx, o) }, s.Demote(ctx, o)
}

func clone(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Cloner)
	if !ok {
		return nil, errors.New("it has no identity to copy")
	}
	return s.Clone(ctx, o)
}

var errNoMembers = errors.New("its nodes cannot change while it runs")

// join makes a node of the spare machine.
func join(ctx context.Context, r *Rig, _ *testnet.Host) (undo, error) {
	s, ok := r.System.(Enlister)
	if !ok {
		return nil, errNoMembers
	}
	return func(ctx context.Context) error { return s.Remove(ctx, r.Spare()) }, s.Join(ctx, r.Spare())
}

func removeStandby(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	return removeOwner(ctx, r, r.Others(o)[0])
}

// removeOwner removes a node, of which the owner's moves the addresses.
func removeOwner(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Enlister)
	if !ok {
		return nil, errNoMembers
	}
	return func(ctx context.Context) error { return s.Join(ctx, o) }, s.Remove(ctx, o)
}

func leave(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Enlister)
	if !ok {
		return nil, errNoMembers
	}
	return func(ctx context.Context) error { return s.Join(ctx, o) }, s.Leave(ctx, o)
}

// replaceStandby takes a standby's data, and has it join as the one that it was.
func replaceStandby(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
	s, ok := r.System.(Enlister)
	if !ok {
		return nil, errNoMembers
	}
	return nil, s.Replace(ctx, r.Others(o)[0])
}

// outOf stops the owner, removes it, and has the spare machine join in its place. When
// the owner goes on, it is no member; at the end each has its own place again.
func outOf(stop func(context.Context, *Rig, *testnet.Host) (undo, error)) func(context.Context, *Rig, *testnet.Host) (undo, error) {
	return func(ctx context.Context, r *Rig, o *testnet.Host) (undo, error) {
		s, ok := r.System.(Enlister)
		if !ok {
			return nil, errNoMembers
		}
		goOn, err := stop(ctx, r, o)
		if err != nil {
			return goOn, err
		}
		again := func(ctx context.Context) error {
			// The time to answer, if it would.
			if err := sleep(ctx, 2*r.System.Detection()); err != nil {
				return err
			}
			return errors.Join(s.Join(ctx, o), s.Remove(ctx, r.Spare()))
		}
		if err := s.Remove(ctx, o); err != nil {
			return both(goOn, again), err
		}
		return both(goOn, again), s.Join(ctx, r.Spare())
	}
}

func both(a, b undo) undo {
	return func(ctx context.Context) error {
		var errs []error
		for _, f := range []undo{a, b} {
			if f != nil {
				errs = append(errs, f(ctx))
			}
		}
		return errors.Join(errs...)
	}
}
