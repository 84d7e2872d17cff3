package group

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

const (
	rigPromise = 100 * time.Millisecond
	rigLength  = 90 * time.Millisecond
)

// A rig is one node's fence and transport between a Raft and a network that the
// test plays, on a clock that the test moves.
type rig struct {
	t     *testing.T
	fence *fence
	trans *leaseTransport
	sink  *recordingSink
	net   *rigNet
	peers []string // voters

	mu        sync.Mutex
	clock     time.Duration
	following bool
	// raft answers what the transport passes on; asked counts.
	raft  func(command any) any
	asked []any
}

// newRig starts a voter's process that has taken part in terms up to term.
func newRig(t *testing.T, term uint64) *rig {
	t.Helper()
	r := &rig{t: t, sink: &recordingSink{}, net: &rigNet{consumer: make(chan raft.RPC)}, peers: []string{"a", "b", "c"}, clock: time.Hour, following: true}
	r.fence = newFence("a", r.now, rigPromise, rigLength, term, r.sink)
	r.fence.readVoters = func() []string { return r.peers }
	r.raft = func(command any) any {
		switch req := command.(type) {
		case *raft.AppendEntriesRequest:
			return &raft.AppendEntriesResponse{Term: req.Term, Success: true}
		case *raft.InstallSnapshotRequest:
			return &raft.InstallSnapshotResponse{Term: req.Term, Success: true}
		case *raft.RequestVoteRequest:
			return &raft.RequestVoteResponse{Term: req.Term, Granted: true}
		case *raft.RequestPreVoteRequest:
			return &raft.RequestPreVoteResponse{Term: req.Term, Granted: true}
		}
		return nil
	}
	r.trans = newLeaseTransport(r.net, r.fence, func() time.Duration { return rigPromise })
	following := func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.following }
	r.trans.following.Store(&following)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case rpc := <-r.trans.Consumer():
				r.respond(rpc)
			case <-done:
				return
			}
		}
	}()
	r.trans.start()
	t.Cleanup(func() { r.trans.Close(); close(done) })
	return r
}

func (r *rig) respond(rpc raft.RPC) {
	r.mu.Lock()
	r.asked = append(r.asked, rpc.Command)
	answer := r.raft
	r.mu.Unlock()
	rpc.Respond(answer(rpc.Command), nil)
}

func (r *rig) now() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock += d
}

// awake lets the promise that runs since the start end.
func (r *rig) awake() *rig { r.pass(rigPromise); return r }

// ask is a request from a peer.
func (r *rig) ask(command any) raft.RPCResponse {
	answers := make(chan raft.RPCResponse, 1)
	r.net.consumer <- raft.RPC{Command: command, RespChan: answers}
	select {
	case a := <-answers:
		return a
	case <-time.After(10 * time.Second):
		r.t.Fatalf("no answer to %T", command)
		return raft.RPCResponse{}
	}
}

func (r *rig) raftAsked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func from(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

func entries(term uint64, leader string) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: from(leader), Term: term, LeaderCommitIndex: 1}
}

func vote(term uint64, candidate string) *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{RPCHeader: from(candidate), Term: term}
}

func granted(a raft.RPCResponse) bool {
	switch v := a.Response.(type) {
	case *raft.RequestVoteResponse:
		return a.Error == nil && v.Granted
	case *raft.RequestPreVoteResponse:
		return a.Error == nil && v.Granted
	}
	return false
}

// send is a request of this node's Raft to b.
func (r *rig) send(term uint64) error {
	return r.trans.AppendEntries("b", "b", &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: term}, &raft.AppendEntriesResponse{})
}

// leads makes the rig the leader of term with the lease of one acknowledgement.
func (r *rig) leads(term uint64) *rig {
	r.t.Helper()
	if err := r.send(term); err != nil {
		r.t.Fatal(err)
	}
	r.fence.lead(term)
	if _, until := r.fence.until(); until != r.now()+rigLength {
		r.t.Fatalf("lease until %v, want now + %v", until-r.now(), rigLength)
	}
	return r
}

// rigNet is the network below a rig. Nobody is there but peers that agree.
type rigNet struct {
	consumer  chan raft.RPC
	heartbeat func(raft.RPC)
	before    func() // called while a request is under way
	sent      []any
	voted     *raft.RequestVoteResponse // answer to RequestVote, if not nil
	answer    raft.RPCHeader            // of answers to AppendEntries
}

func (n *rigNet) under(command any) {
	n.sent = append(n.sent, command)
	if n.before != nil {
		n.before()
	}
}

// Consumer implements raft.Transport; the others below do too.
func (n *rigNet) Consumer() <-chan raft.RPC { return n.consumer }

func (n *rigNet) LocalAddr() raft.ServerAddress { return "a" }

func (n *rigNet) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, nil
}

func (n *rigNet) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	n.under(args)
	*resp = raft.AppendEntriesResponse{RPCHeader: n.answer, Term: args.Term, Success: true}
	return nil
}

func (n *rigNet) RequestVote(_ raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	n.under(args)
	*resp = raft.RequestVoteResponse{Term: args.Term, Granted: true}
	if n.voted != nil {
		*resp = *n.voted
	}
	return nil
}

func (n *rigNet) RequestPreVote(_ raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	n.under(args)
	*resp = raft.RequestPreVoteResponse{Term: args.Term, Granted: true}
	return nil
}

func (n *rigNet) InstallSnapshot(_ raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, _ io.Reader) error {
	n.under(args)
	*resp = raft.InstallSnapshotResponse{Term: args.Term, Success: true}
	return nil
}

func (n *rigNet) TimeoutNow(_ raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, _ *raft.TimeoutNowResponse) error {
	n.under(args)
	return nil
}

func (n *rigNet) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }
func (n *rigNet) DecodePeer(b []byte) raft.ServerAddress                     { return raft.ServerAddress(b) }
func (n *rigNet) SetHeartbeatHandler(f func(raft.RPC))                       { n.heartbeat = f }
func (n *rigNet) Close() error                                               { return nil }

// snapshotOf is a snapshot that the leader of term sends.
func snapshotOf(term uint64, leader string) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader: from(leader), Term: term, SnapshotVersion: raft.SnapshotVersionMax, LastLogIndex: 1, LastLogTerm: 1, ConfigurationIndex: 1,
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(leader), Address: raft.ServerAddress(leader)}}}),
	}
}
