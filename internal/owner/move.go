package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
)

// A Request asks the loop to hand the group over.
type Request struct {
	To     string // node ID, "" for the best
	Reason string
	Manual bool // an operator asks: nobody preempts afterwards
	// Leaves: this node leaves for good. The group is not given back to it, and whoever is
	// best may take it from the node that it goes to.
	Leaves bool
	// Anyone: if nobody else may own, any voter that answers shall lead.
	Anyone bool
	done   chan error
	Moved  string // node ID, set before done
}

// Move has the loop hand the group over, and returns when it has or cannot. It sets
// r.moved.
func (o *Owner) Move(ctx context.Context, r *Request) error {
	r.done = make(chan error, 1)
	select {
	case o.requests <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stay takes back that this node leaves the cluster.
func (o *Owner) Stay() { o.leaving.Store(false) }

// handOver is a planned move. What can be done before the addresses fall silent is
// done before. Then the gate is shut, the voters are freed and leadership goes over.
// Where a guard silences the addresses they are deleted after that: to delete many
// takes long, and if the hand-over fails they are there.
func (o *Owner) handOver(ctx context.Context, to, reason string, manual bool) error {
	if err := o.seat.Prepare(ctx, to); err != nil {
		o.pauseEnd = o.now() + handoverPause
		return err
	}
	o.gate.Shut()
	was := o.state
	if was == owning {
		o.ceaseOwning("the hand-over to " + NameOf(o.members.State(), to) + " failed")
	}
	o.setView("handing over: "+reason, nil)
	s := o.members.State()
	if !o.silent {
		addrs, schedule, _ := o.addresses(s)
		o.keeper.Set(vip.Wanted{Own: false, Addresses: addrs, Schedule: schedule})
	}
	if was == owning && !o.silent {
		bounded, cancel := context.WithTimeout(ctx, releaseWait)
		err := o.keeper.WaitReleased(bounded)
		cancel()
		if err != nil {
			o.pauseEnd = o.now() + handoverPause
			return fmt.Errorf("not handed over, as addresses are still answering here: %w", err)
		}
	}
	o.log.Info("handing over", "to", s.Nodes[to].Name, "reason", reason)
	if err := o.seat.Transfer(ctx, to, reason, manual); err != nil {
		o.pauseEnd = o.now() + handoverPause
		return err
	}
	// Until now the VRRP peers were told that this node is master, as the member is
	// from now on: they see one master all the time.
	o.consent.Decide(false, true)
	return nil
}

// request carries out a move that was asked for, and answers.
func (o *Owner) request(ctx context.Context, r *Request) {
	standing := o.seat.Standing()
	if !standing.Leading {
		r.done <- state.Refuse(state.CodeNotLeader, "try again", "this node does not lead any more")
		return
	}
	s := o.members.State()
	nodes := o.candidates(s)
	if r.Leaves {
		// Whoever leads then would give the group back.
		o.leaving.Store(true)
		o.publishHint([]string{"it is leaving the cluster"})
	}
	to, err := chooseTarget(s, nodes, r.To)
	if err != nil && r.Anyone {
		if to = anyVoter(nodes); to != "" {
			err = nil
		}
	}
	if err == nil {
		err = o.handOver(ctx, to, r.Reason, r.Manual)
	}
	r.Moved = to
	r.done <- err
}

// chooseTarget finds the node that a requested move goes to.
func chooseTarget(s *state.State, nodes []policy.Node, to string) (string, error) {
	if to == "" {
		for _, id := range policy.Rank(nodes, "") {
			if !isSelf(nodes, id) {
				return id, nil
			}
		}
		why := ""
		for _, n := range nodes {
			if ok, reason := policy.Eligible(n); !ok && !n.Self {
				why += "; " + n.Name + " " + reason
			}
		}
		return "", state.Refuse(state.CodeTransfer, `see "raftvip status"`, "no other node can take over%s", why)
	}
	for _, n := range nodes {
		if n.ID != to {
			continue
		}
		if n.Self {
			return "", state.Refuse(state.CodeTransfer, `see "raftvip status"`, "%s leads already", n.Name)
		}
		if ok, why := policy.Eligible(n); !ok {
			return "", state.Refuse(state.CodeTransfer, `see "raftvip status"`, "%s cannot take over: it %s", n.Name, why)
		}
		// The group would come back at once.
		if n.Take.Missing > missingHere(nodes) {
			return "", state.Refuse(state.CodeTransfer, `mend that first; see "raftvip status"`, "%s %s, fewer than here", n.Name, n.Take)
		}
		return to, nil
	}
	return "", state.Refuse(state.CodeNotFound, `see "raftvip node list"`, "no node %s", to)
}

// anyVoter is a voter that answers and could lead, or "": the addresses stay silent.
func anyVoter(nodes []policy.Node) string {
	for _, n := range nodes {
		if !n.Self && n.Voter && n.Connected {
			return n.ID
		}
	}
	return ""
}

// missingHere is how many addresses this node does not get up.
func missingHere(nodes []policy.Node) int {
	for _, n := range nodes {
		if n.Self {
			return n.Take.Missing
		}
	}
	return 0
}

func isSelf(nodes []policy.Node, id string) bool {
	for _, n := range nodes {
		if n.ID == id {
			return n.Self
		}
	}
	return false
}

// shutdown releases and hands over, so that others need not wait for the lease.
func (o *Owner) shutdown() {
	s := o.members.State()
	// The best node would be given the group back as long as it is seen.
	o.publishHint([]string{"it is stopping"})
	// Who still speaks when this returns has nobody to hand over to.
	defer o.consent.Decide(false, false)
	release := func() {
		o.gate.Shut()
		o.state = standby
		addrs, schedule, _ := o.addresses(s)
		o.keeper.Set(vip.Wanted{Own: false, Addresses: addrs, Schedule: schedule})
	}
	defer release()
	standing := o.seat.Standing()
	if !standing.Leading || len(s.Nodes) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownHandover)
	defer cancel()
	to, err := chooseTarget(s, o.candidates(s), "")
	if err != nil {
		o.log.Warn("stopping, and nobody answers until this node is back", "reason", err)
		// Nobody is fit to own, but somebody can lead until then.
		if to = anyVoter(o.candidates(s)); to != "" {
			err = nil
		}
	}
	if err == nil {
		if o.turns.await(ctx) {
			defer o.turns.leave()
		}
		err = o.handOver(ctx, to, o.members.Self().Name+" is stopping", false)
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			o.log.Warn("stopping without a hand-over: the others wait for the lease to end", "error", err)
		}
		return
	}
	release()
	o.awaitSuccessor(context.Background(), s.Nodes[to].Name, standing.Term)
}

// awaitSuccessor waits a moment until the history says that the addresses are up
// elsewhere. Until then this voter may be needed for a majority. And what a daemon
// does when it ends takes locks of the kernel that containers on one machine share.
func (o *Owner) awaitSuccessor(ctx context.Context, name string, term uint64) {
	ctx, cancel := context.WithTimeout(ctx, successorWait)
	defer cancel()
	for {
		changed := o.members.Changed()
		if moves := o.members.State().Moves; slices.ContainsFunc(moves[max(0, len(moves)-8):], func(m state.Move) bool {
			return m.Group == o.name && m.To == name && m.Term > term
		}) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
