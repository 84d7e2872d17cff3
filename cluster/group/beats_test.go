package group

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/beat"
)

// beaten is what a beat of a leader makes of the rig, which has another leader's log.
func (r *rig) beaten(term uint64, leader string) beat.Result {
	return r.trans.beaten(Speaker{ID: leader}, leader, term)
}

// TestBeatBindsAndDoesNotAgreeBeforeItIsFollowed: Raft must not learn of a leader from two
// goroutines, and who has heard one helps no other.
func TestBeatBindsAndDoesNotAgreeBeforeItIsFollowed(t *testing.T) {
	r := newRig(t, 1).awake()
	fast := 0
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast++
		rpc.Respond(&raft.AppendEntriesResponse{Term: rpc.Command.(*raft.AppendEntriesRequest).Term, Success: true, LastLog: 9}, nil)
	})
	asked := r.raftAsked()
	if got := r.beaten(2, "b"); got.Verdict != beat.Unheard {
		t.Errorf("before it is followed: %+v", got)
	}
	if fast > 0 || r.raftAsked() > asked {
		t.Error("Raft has heard of it")
	}
	if r.fence.bound("c") <= 0 {
		t.Error("the voter is not bound")
	}
	r.ask(entries(2, "b"))
	r.pass(rigPromise - 1)
	if got := r.beaten(2, "b"); got != (beat.Result{Verdict: beat.Agreed, Term: 2, LastLog: 9}) {
		t.Errorf("of the leader that is followed: %+v", got)
	}
	r.pass(rigPromise - 1)
	if r.fence.bound("c") <= 0 {
		t.Error("the voter is not bound any more")
	}
	if got := r.beaten(2, "c"); got.Verdict != beat.Unheard {
		t.Errorf("of another node: %+v", got)
	}
	r.following = false
	if got := r.beaten(2, "b"); got.Verdict != beat.Unheard {
		t.Errorf("to a candidate: %+v", got)
	}
	if got := r.beaten(1<<63, "b"); got.Verdict != beat.Failed {
		t.Errorf("of a term out of reach: %+v", got)
	}
}

// TestBeatIsAnsweredAsAHeartbeatIs: consent to a leader is withheld once a later term was
// helped, and a released term binds nobody.
func TestBeatIsAnsweredAsAHeartbeatIs(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(4, "b"))
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		r.fence.heard(5, "c")
		rpc.Respond(&raft.AppendEntriesResponse{Term: 4, Success: true}, nil)
	})
	if got := r.beaten(4, "b"); got.Verdict != beat.Failed {
		t.Errorf("answered %+v", got)
	}
	r = newRig(t, 1).awake()
	r.ask(entries(4, "b"))
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		rpc.Respond(&raft.AppendEntriesResponse{Term: 4, Success: true}, nil)
	})
	r.fence.freed(4, 1)
	r.beaten(4, "b")
	if left := r.fence.bound("c"); left > 0 {
		t.Errorf("a beat of a released term binds for %v", left)
	}
	r.trans.Close()
	if got := r.beaten(4, "b"); got.Verdict != beat.Failed {
		t.Errorf("after the end: %+v", got)
	}
}

// TestAnswerToABeatIsEvidenceOfItsSending: of the moment before it left for the first
// time, in its own term, and only if the voter agrees.
func TestAnswerToABeatIsEvidenceOfItsSending(t *testing.T) {
	r := newRig(t, 1).awake()
	r.fence.lead(2)
	s := source{&Group{trans: r.trans}}
	sent := r.now()
	r.pass(40 * time.Millisecond)
	for _, no := range []beat.Result{
		{Verdict: beat.Unheard}, {Verdict: beat.Failed, Why: "no"}, {Verdict: beat.Refused, Term: 2}, {Verdict: beat.Agreed, Term: 3},
	} {
		s.Answered("b", 2, sent, 0, no)
		if _, until := r.fence.until(); until != 0 {
			t.Errorf("%+v makes a lease", no)
		}
	}
	if err := s.Answered("b", 2, sent, 0, beat.Result{Verdict: beat.Agreed, Term: 2, LastLog: 3}); err != nil {
		t.Error(err)
	}
	if _, until := r.fence.until(); until != sent+rigLength {
		t.Errorf("lease until sent + %v, want + %v", until-sent, rigLength)
	}
	// An answer that says less than what is known of the node.
	if err := s.Answered("b", 2, r.now(), 7, beat.Result{Verdict: beat.Agreed, Term: 2, LastLog: 3}); !errors.Is(err, errMessage) {
		t.Errorf("entries are lost: %v", err)
	}
	if _, until := r.fence.until(); until != sent+rigLength {
		t.Error("a node that has lost entries supports the lease")
	}
}

// TestHeartbeatLeavesInABeat: and by itself where that is asked for; nothing else does.
func TestHeartbeatLeavesInABeat(t *testing.T) {
	r := newRig(t, 1).awake()
	answer := error(nil)
	var terms []uint64
	r.trans.exchange = func(_, _ string, term uint64) (beat.Result, error) {
		terms = append(terms, term)
		return beat.Result{Verdict: beat.Refused, Term: 8}, answer
	}
	var resp raft.AppendEntriesResponse
	send := func(req *raft.AppendEntriesRequest) error {
		resp = raft.AppendEntriesResponse{}
		return r.trans.AppendEntries("b", "b", req, &resp)
	}
	heartbeat := &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: 2}
	if err := send(heartbeat); err != nil || resp.Success || resp.Term != 8 || len(r.net.sent) != 0 {
		t.Errorf("%+v, %v, sent %v", resp, err, r.net.sent)
	}
	answer = beat.ErrNotLed
	if err := send(heartbeat); !errors.Is(err, beat.ErrNotLed) {
		t.Error(err)
	}
	answer = beat.ErrOrdinary
	if err := send(heartbeat); err != nil || !resp.Success || len(r.net.sent) != 1 {
		t.Errorf("%+v, %v, sent %v", resp, err, r.net.sent)
	}
	asked := len(terms)
	if err := send(&raft.AppendEntriesRequest{RPCHeader: from("a"), Term: 2, PrevLogEntry: 4, PrevLogTerm: 1}); err != nil || len(terms) != asked {
		t.Errorf("%v, asked for terms %v", err, terms)
	}
}

func TestPaceOfBeats(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name                            string
		promise, length, lateness, want time.Duration
	}{
		{"three in a timeout", 300 * ms, 270 * ms, 0, 100 * ms},
		{"the timeout grows", 2000 * ms, 270 * ms, 0, 100 * ms},
		{"half of the lease is the guard's", 2000 * ms, 1800 * ms, 900 * ms, 333333333},
		{"nothing is left", 30 * ms, 27 * ms, 40 * ms, ms},
	} {
		if got := paceOfBeats(c.promise, c.length, c.lateness); got.Round(ms) != c.want.Round(ms) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
