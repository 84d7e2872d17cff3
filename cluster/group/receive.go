package group

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// SetHeartbeatHandler implements raft.Transport. Heartbeats bypass Raft's main
// loop, so that a slow disk does not look like a dead leader, but only those of
// a leader that the main loop has accepted: Raft must not learn of a leader from
// two goroutines.
func (t *leaseTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.handle.Store(&handle)
	t.networkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		req, ok := rpc.Command.(*raft.AppendEntriesRequest)
		if !ok || !t.admits(req) || examine(req, t.own()) != nil || !t.follows(req.Term, speakerOf(rpc, req.ID)) {
			t.receive(rpc)
			return
		}
		rpc.RespChan <- t.heartbeat(rpc, req)
	})
}

// admits tells whether a request is a member's, as far as this node's own state says. One
// that was removed may still lead or stand in a group whose configuration it is in.
func (t *leaseTransport) admits(request any) bool {
	r, ok := request.(raft.WithRPCHeader)
	return !ok || t.fence.counts(string(r.GetRPCHeader().ID))
}

// follows tells whether Raft has accepted a leader of term through its main loop.
func (t *leaseTransport) follows(term uint64, from Speaker) bool {
	following := t.following.Load()
	f := t.followed.Load()
	return f != nil && *f == leaderTerm{term, from.Key()} && following != nil && (*following)()
}

// heartbeat gives Raft a heartbeat of the leader that it follows.
func (t *leaseTransport) heartbeat(rpc raft.RPC, req *raft.AppendEntriesRequest) raft.RPCResponse {
	t.fence.heard(req.Term, speakerOf(rpc, req.ID).Key())
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	(*t.handle.Load())(rpc)
	select {
	case r := <-answers:
		return t.agree(req.Term, r)
	default: // Raft answers before it returns, unless it is shut down
		return raft.RPCResponse{Error: raft.ErrTransportShutdown}
	}
}

// receive applies the rules to one request from a peer and gives it to Raft. It
// does not wait for the answer.
func (t *leaseTransport) receive(rpc raft.RPC) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		rpc.Respond(nil, raft.ErrTransportShutdown)
		return
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		defer func() {
			if p := recover(); p != nil { // it ends this request, not the daemon
				rpc.Respond(nil, fmt.Errorf("%w: it made this node panic: %v", errMessage, p))
			}
		}()
		own := t.own()
		if !t.admits(rpc.Command) {
			rpc.Respond(nil, errNotMember)
			return
		}
		if err := examine(rpc.Command, own); err != nil {
			rpc.Respond(nil, err)
			return
		}
		switch req := rpc.Command.(type) {
		case *raft.AppendEntriesRequest:
			from := speakerOf(rpc, req.ID).Key()
			t.fence.heard(req.Term, from)
			t.pass(rpc, func(r raft.RPCResponse) raft.RPCResponse {
				r = t.agree(req.Term, r)
				if resp, ok := r.Response.(*raft.AppendEntriesResponse); ok && r.Error == nil && resp.Success && resp.Term == req.Term {
					t.followed.Store(&leaderTerm{req.Term, from})
				}
				return r
			})
		case *raft.InstallSnapshotRequest:
			t.fence.heard(req.Term, speakerOf(rpc, req.ID).Key())
			if req.LastLogIndex <= own.commit && req.Term >= own.term {
				// All of it is here, and Raft would go back to it.
				rpc.RespChan <- t.agree(req.Term, raft.RPCResponse{Response: &raft.InstallSnapshotResponse{Term: req.Term, Success: true}})
				return
			}
			defer t.installing.begin(req.LastLogTerm, req.LastLogIndex)()
			t.pass(rpc, func(r raft.RPCResponse) raft.RPCResponse { return t.agree(req.Term, r) })
		case *raft.RequestPreVoteRequest:
			t.preVote(rpc, req)
		case *raft.RequestVoteRequest:
			t.vote(rpc, req)
		case *raft.TimeoutNowRequest:
			// Raft would stand for election again although it has won already.
			if following := t.following.Load(); following != nil && !(*following)() {
				rpc.Respond(&raft.TimeoutNowResponse{}, nil)
				return
			}
			t.pass(rpc, nil)
		default:
			t.pass(rpc, nil)
		}
	}()
}

// own is the view of this node's log; empty until Raft runs.
func (t *leaseTransport) own() logView {
	if view := t.view.Load(); view != nil {
		return (*view)()
	}
	return logView{}
}

// agree withholds Raft's consent to the leader of term if this node has helped a
// later one meanwhile. A refusal passes: the leader learns the newer term from it.
func (t *leaseTransport) agree(term uint64, r raft.RPCResponse) raft.RPCResponse {
	consent := false
	switch resp := r.Response.(type) {
	case *raft.AppendEntriesResponse:
		consent = resp.Success
	case *raft.InstallSnapshotResponse:
		consent = resp.Success
	}
	switch {
	case !consent || r.Error != nil:
	case !t.fence.agrees(term):
		return raft.RPCResponse{Error: errMovedOn}
	case !t.saved():
		return raft.RPCResponse{Error: errTerm}
	}
	return r
}

// saved tells whether this voter would know the term again after a restart. If not, it
// consents to nothing in it.
func (t *leaseTransport) saved() bool { return t.termSaved == nil || t.termSaved() }

// preVote answers a peer that asks whether it could win. A question that comes a
// little before this voter's promise ends is held until then, as a refusal would
// cost the candidate a whole new random timeout, and a moment longer if this node
// would do better itself.
func (t *leaseTransport) preVote(rpc raft.RPC, req *raft.RequestPreVoteRequest) {
	if req.Term == 0 { // see warm
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: responseHeader(req.RPCHeader)}, nil)
		return
	}
	candidate := string(req.ID)
	key := speakerOf(rpc, req.ID).Key()
	free := t.waitFree(key, 0)
	if free && t.steer != nil && t.fence.self != candidate {
		free = t.waitFree(key, holdDelay(t.steer.order(), t.fence.self, candidate, t.promise()))
	}
	if !free {
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: responseHeader(req.RPCHeader)}, nil)
		return
	}
	if t.steer == nil {
		t.pass(rpc, nil)
		return
	}
	t.steer.leaderless()
	t.pass(rpc, func(r raft.RPCResponse) raft.RPCResponse {
		resp, ok := r.Response.(*raft.RequestPreVoteResponse)
		if !ok || r.Error != nil || !resp.Granted || candidate == t.fence.self {
			return r
		}
		// Both at once would each have the other's consent, vote for themselves, and
		// wait for Raft's timer.
		if left := t.ballot.yield(t.fence.now(), t.window(), t.yieldsTo(candidate)); left > 0 {
			t.sleep(left)
			if t.fence.bound(key) > 0 {
				refused := *resp
				refused.Granted = false
				r.Response = &refused
			}
		}
		return r
	})
}

// vote answers a candidate. While the promise runs Raft is not even asked, so
// that its term and its vote stay as they are.
func (t *leaseTransport) vote(rpc raft.RPC, req *raft.RequestVoteRequest) {
	key := speakerOf(rpc, req.ID).Key()
	if req.LeadershipTransfer {
		t.awaitRelease(key)
	}
	if t.fence.bound(key) > 0 {
		rpc.Respond(&raft.RequestVoteResponse{RPCHeader: responseHeader(req.RPCHeader)}, nil)
		return
	}
	// The promise has run out or was freed, and it alone decides: Raft would go
	// on refusing until its own randomized timer says that the leader is gone.
	// The flag makes it ignore that timer and nothing else.
	asked := *req
	asked.LeadershipTransfer = true
	rpc.Command = &asked
	// A hand-over is expected to succeed, so its candidate may count on this vote as
	// on an answer to its first heartbeat, and owns one round trip sooner. In other
	// elections the vote is not worth so much: of a candidate that loses, it would keep
	// this voter from the next one.
	follow := req.LeadershipTransfer && string(req.ID) != t.fence.self
	t.pass(rpc, func(r raft.RPCResponse) raft.RPCResponse {
		resp, ok := r.Response.(*raft.RequestVoteResponse)
		if !ok || r.Error != nil || !resp.Granted {
			return r
		}
		said := *resp
		leaves, bound := t.fence.grants(req.Term, key, follow && resp.Term == req.Term)
		said.Granted, said.Peers = leaves, nil
		if bound {
			said.Peers = votedAndBound
		}
		r.Response = &said
		return r
	})
}

// awaitRelease waits a moment until this voter may help candidate, which says that it
// was handed the group: its request may be faster than the old leader's release.
func (t *leaseTransport) awaitRelease(candidate string) {
	timer := time.NewTimer(t.window())
	defer timer.Stop()
	for {
		freed := t.fence.freeing()
		if t.fence.bound(candidate) <= 0 {
			return
		}
		select {
		case <-freed:
		case <-timer.C:
			return
		case <-t.done:
			return
		}
	}
}

// responseHeader answers in the protocol version of the request.
func responseHeader(h raft.RPCHeader) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: h.ProtocolVersion}
}

// pass gives a request to Raft and its answer, changed by after, to the peer.
func (t *leaseTransport) pass(rpc raft.RPC, after func(raft.RPCResponse) raft.RPCResponse) {
	answers := make(chan raft.RPCResponse, 1)
	inner := rpc
	inner.RespChan = answers
	select {
	case t.consumer <- inner:
	case <-t.done:
		rpc.Respond(nil, fmt.Errorf("pass request to raft: %w", raft.ErrTransportShutdown))
		return
	}
	select {
	case r := <-answers:
		if after != nil {
			r = after(r)
		}
		rpc.RespChan <- r
	case <-t.done:
		rpc.Respond(nil, fmt.Errorf("pass request to raft: %w", raft.ErrTransportShutdown))
	}
}
