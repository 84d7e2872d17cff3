package group

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/lease"
)

// Beats send the heartbeats of groups, see package beat. A beat is nothing but ordinary
// heartbeats in one message: they are stamped before it is sent for the first time, and
// the voter deals with each as if it had come alone.
type Beats interface {
	Follow(group string, source beat.Source)
	// Leave ends what Follow began, and who waits in Exchange for that group.
	Leave(group string)
	Exchange(group, node, address string, term uint64) (beat.Result, error)
}

// A source is a group as what sends its heartbeats sees it.
type source struct{ g *Group }

// Pace implements beat.Source.
func (s source) Pace() time.Duration { return s.g.beatPace() }

// Leads implements beat.Source.
func (s source) Leads(term uint64) bool { return s.g.leads(term) }

// Mark implements beat.Source.
func (s source) Mark(node string) uint64 { return s.g.trans.storedBy(node) }

// Answered implements beat.Source.
func (s source) Answered(node string, term uint64, sent time.Duration, stored uint64, r beat.Result) error {
	switch r.Verdict {
	case beat.Unheard:
		return nil // it says nothing: what is sent next does
	case beat.Failed:
		return fmt.Errorf("node %s: %s", node, r.Why)
	}
	resp := answerOf(node, r)
	return s.g.trans.answer(node, term, 0, sent, stored, &resp)
}

// answerOf is a result as Raft knows it.
func answerOf(node string, r beat.Result) raft.AppendEntriesResponse {
	return raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(node)},
		Term:      r.Term, LastLog: r.LastLog, Success: r.Verdict == beat.Agreed,
	}
}

// Beaten is the voter's side of a beat: what from, which other nodes reach at address,
// says of leading this group in term. Until Raft has accepted it as leader through its
// main loop, this voter is bound, but does not agree.
func (g *Group) Beaten(from Speaker, address string, term uint64) (r beat.Result) {
	defer func() {
		if p := recover(); p != nil { // it ends this request, not the daemon
			r = beat.Result{Verdict: beat.Failed, Why: fmt.Sprintf("%v: it made this node panic: %v", errMessage, p)}
		}
	}()
	return g.trans.beaten(from, address, term)
}

func (t *leaseTransport) beaten(from Speaker, address string, term uint64) beat.Result {
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(from.ID), Addr: []byte(address)},
		Term:      term,
	}
	if !t.admits(req) {
		return beat.Result{Verdict: beat.Failed, Why: errNotMember.Error()}
	}
	if err := examine(req, t.own()); err != nil {
		return beat.Result{Verdict: beat.Failed, Why: err.Error()}
	}
	if !t.begin() {
		return beat.Result{Verdict: beat.Failed, Why: raft.ErrTransportShutdown.Error()}
	}
	defer t.wg.Done()
	if t.handle.Load() == nil || !t.follows(term, from) {
		t.fence.heard(term, from.Key())
		return beat.Result{Verdict: beat.Unheard}
	}
	a := t.heartbeat(raft.RPC{Command: req, Reader: &speech{from: from}}, req)
	resp, ok := a.Response.(*raft.AppendEntriesResponse)
	switch {
	case a.Error != nil:
		return beat.Result{Verdict: beat.Failed, Why: a.Error.Error()}
	case !ok:
		return beat.Result{Verdict: beat.Failed, Why: "no answer"}
	case resp.Success:
		return beat.Result{Verdict: beat.Agreed, Term: resp.Term, LastLog: resp.LastLog}
	}
	return beat.Result{Verdict: beat.Refused, Term: resp.Term, LastLog: resp.LastLog}
}

// begin counts a request that is dealt with; false means that the transport is closed.
func (t *leaseTransport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

// beatShare is how many beats there are in a heartbeat timeout. At three a lease has 0.57
// of the timeout left when the next beat is answered, and bears the loss of one.
const beatShare = 3

// beatPace is the time between two beats of the group. It follows the shorter timeout
// while one replaces another, and what a lease is worth here.
func (g *Group) beatPace() time.Duration {
	promise, length := g.fence.timing()
	return paceOfBeats(promise, length, g.lateness)
}

// paceOfBeats is a third of the timeout where the whole of a lease is of use.
func paceOfBeats(promise, length, lateness time.Duration) time.Duration {
	usable := min(lease.Length(promise), length) - lateness
	return max(time.Duration(float64(usable)/lease.Margin)/beatShare, time.Millisecond)
}
