package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
)

// occupant tells which other member is at an address, by its own report if that is
// fresh: a node that has just left it is not.
func occupant(s *state.State, reports map[string]SeenReport, id, address string) (name string, taken bool) {
	for _, other := range s.SortedNodes() {
		at := other.Address
		if r, ok := reports[other.ID]; ok && r.Age < reportFresh && r.Address != "" {
			at = r.Address
		}
		if other.ID != id && at == address {
			return other.Name, true
		}
	}
	return "", false
}

// handleJoin admits a newcomer. Any member may be asked; it asks the leader, once it
// has seen that the newcomer is no stranger.
func (n *Node) handleJoin(ctx context.Context, req JoinRequest) (any, error) {
	trusted := port.PeerFromContext(ctx) != "" && req.TokenID == ""
	if err := checkJoin(req); err != nil {
		return nil, state.Refuse(state.CodeBadRequest, "", "%s", err)
	}
	if !trusted {
		if err := n.checkToken(ctx, req); err != nil {
			return nil, err
		}
		// What is asked for from here on takes time, and whoever asks may.
		port.LeaveDoor(ctx)
	}
	if offset := time.Until(req.Clock); offset.Abs() > maxClockOffset {
		return nil, state.Refuse(state.CodeClock, "set both clocks by NTP, then join again",
			"the clock of %s is %s %s that of %s", req.Name, offset.Abs().Round(time.Second), aheadOf(offset), n.opts.Identity.Name)
	}
	if !n.group.Standing().Leading {
		return n.forwardJoin(ctx, req)
	}
	s := n.State()
	if !s.Founded() {
		return nil, state.Refuse(state.CodeNotReady, "try again in a moment", "the cluster is just being founded")
	}
	if ip, ok := state.AddressIP(req.Address); ok {
		if _, a, ok := s.AddressOf(ip); ok {
			return nil, state.Refuse(state.CodeAddressInUse, "name another one with --advertise",
				"%s cannot be reached at %s: that is a virtual address of this cluster", req.Name, a.Prefix.Addr())
		}
	}
	join := state.JoinCommand{
		Node:    state.NodeRecord{ID: req.NodeID, Name: req.Name, Address: req.Address, Witness: req.Witness},
		TokenID: req.TokenID, Trusted: trusted, Level: req.Level,
	}
	if old, ok := s.NodeByName(req.Name); ok && old.ID != req.NodeID && req.Replace {
		join.Replace = old.ID
		// What the log would refuse needs no waiting for.
		if _, err := s.Apply(state.Command{At: time.Now(), Join: &join}, s.Version); err != nil {
			return nil, err
		}
		if err := n.lost(ctx, old); err != nil {
			return nil, err
		}
		n.log.Warn("replacing a lost node", "member", old.Name, "old", old.ID, "new", req.NodeID)
	}
	if err := n.Apply(ctx, state.Command{Join: &join}); err != nil {
		return nil, err
	}
	n.reconcileSoon()
	s = n.State()
	got := JoinAnswer{ClusterID: s.ClusterID, Heartbeat: s.Heartbeat, Nodes: s.SortedNodes()}
	if !trusted {
		got.Secret = n.opts.Secret.Text()
	}
	n.log.Info("node admitted", "member", req.Name, "address", req.Address, "token", req.TokenID)
	return got, nil
}

// checkJoin holds a newcomer's words to what its own command line is held to.
func checkJoin(req JoinRequest) error {
	if err := state.CheckName(req.Name); err != nil {
		return err
	}
	if err := state.CheckOwnID(req.Name, req.NodeID); err != nil {
		return err
	}
	if err := state.CheckAddress(req.Address); err != nil {
		return fmt.Errorf("%w; name another one with --advertise", err)
	}
	if len(req.TokenID) > state.MaxTokenID || len(req.Proof) > state.MaxProof {
		return errors.New("the request has no token")
	}
	return nil
}

func aheadOf(offset time.Duration) string {
	if offset > 0 {
		return "ahead of"
	}
	return "behind"
}

// tokenLag is how long a follower waits for a token that it does not know: it may have
// been made at the leader a moment ago. Raft tells how far the log is committed each
// half second.
const tokenLag = 1500 * time.Millisecond

// checkToken proves the newcomer's token. Whether it is still good is decided in the
// log, by the leader's clock.
func (n *Node) checkToken(ctx context.Context, req JoinRequest) error {
	wait := time.NewTimer(tokenLag)
	defer wait.Stop()
	for {
		changed := n.Changed()
		t, ok := n.State().Tokens[req.TokenID]
		switch {
		case ok && proofMatches(req.Proof, t.Hash):
			return nil
		case ok || req.TokenID == "" || n.group.Standing().Leading && n.State().Founded():
			return wrongToken()
		case n.LeaderAddress() == "":
			return noLeaderToJoin()
		}
		select {
		case <-changed:
		case <-wait.C:
			if !n.State().Founded() {
				return state.Refuse(state.CodeNotReady, "try again in a moment", "%s does not have the cluster's state yet", n.opts.Identity.Name)
			}
			return wrongToken()
		case <-ctx.Done():
			return wrongToken()
		}
	}
}

func wrongToken() *state.Refusal {
	return state.Refuse(state.CodeWrongToken, `make a new one on a member with "raftvip token create"`,
		"this cluster does not know the token: it is used up, revoked or wrong")
}

func noLeaderToJoin() *state.Refusal {
	return state.Refuse(state.CodeNoLeader, `see "raftvip status" on a member`, "the cluster has no leader now, so nobody can be admitted")
}

// lost makes sure that a member is gone whose place somebody else asks for. That
// nothing has been heard of it counts only after this leader has listened for a while:
// after a restart of all nothing has been heard of anybody.
func (n *Node) lost(ctx context.Context, old state.NodeRecord) error {
	alive := state.Refuse(state.CodeNameTaken, "choose another name with --name",
		"the name %s is taken by a member at %s, which is alive", old.Name, old.Address)
	if old.ID == n.opts.Identity.NodeID {
		return alive
	}
	answers := make(chan bool, 1)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asking.Go(func() {
		h, err := n.hello(ctx, old.Address)
		answers <- err == nil && h.NodeID == old.ID
	})
	asked := false
	for {
		changed := n.Changed()
		for _, r := range n.reports.all() {
			if r.NodeID == old.ID && r.Age < reportFresh {
				return alive
			}
		}
		if ago, ok := n.group.Contact(old.ID); ok && ago < reportFresh {
			return alive
		}
		led := n.ledFor()
		switch {
		case led == 0:
			return state.Refuse(state.CodeNotLeader, "try again", "the leader has just changed")
		case asked && led >= reportFresh:
			return nil
		}
		select {
		case yes := <-answers:
			if yes {
				return alive
			}
			asked = true
		case <-changed:
		case <-time.After(reportFresh / 10):
		case <-ctx.Done():
			return state.Refuse(state.CodeNotReady, "try again in a moment", "it is not known yet whether %s is alive", old.Name)
		}
	}
}

// forwardJoin asks the leader on the newcomer's behalf.
func (n *Node) forwardJoin(ctx context.Context, req JoinRequest) (any, error) {
	address := n.LeaderAddress()
	if address == "" || address == n.opts.Advertise {
		return nil, noLeaderToJoin()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var got JoinAnswer
	if err := n.client.Call(ctx, address, pathJoin, req, &got); err != nil {
		var r *state.Refusal
		if !errors.As(err, &r) {
			r = state.Refuse(state.CodeNoLeader, "try again in a moment", "the leader at %s does not answer: %s", address, reason(err))
		}
		return nil, r
	}
	return got, nil
}

// handleNewcomer is handleJoin for somebody who has shown nothing yet: those that
// fail are counted, told once in a while, and slowed down.
func (n *Node) handleNewcomer(ctx context.Context, req JoinRequest) (any, error) {
	now := time.Now()
	source, from := port.CallerFrom(ctx)
	if !n.guesses.Allows(source, now) {
		return nil, state.Refuse(state.CodeTooMany, "wait a minute, then try again with the right token", "too many joins have failed")
	}
	out, err := n.handleJoin(ctx, req)
	var r *state.Refusal
	if errors.As(err, &r) && (r.Code == state.CodeWrongToken || r.Code == state.CodeExpiredToken || r.Code == state.CodeBadRequest) {
		n.guesses.Spend(source, now)
		if n.port.Refusals.News("join "+source.String(), now) {
			n.log.Warn("refused a join; more from there are not told for a minute", "peer", from, "name", shorten(req.Name), "token", shorten(req.TokenID), "reason", r.Message)
		}
	}
	return out, err
}

// shorten bounds what is logged of a stranger's words.
func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
