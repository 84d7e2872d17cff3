package group

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/identity"
)

// Errors by which the decorated transport keeps a message from leaving.
var (
	errPromised    = errors.New("this voter has promised not to stand for election yet")
	errUnfit       = errors.New("this node cannot own and lets others stand for election first")
	errDisk        = errors.New("this node does not stand for election")
	errTerm        = errors.New("this voter cannot write down the term")
	errMovedOn     = errors.New("this voter has moved on to a later term")
	errNotMember   = errors.New("the sender is not a member of the cluster, by this voter's state")
	errNotReleased = errors.New("leadership is not handed over before the lease is released")
)

// networkTransport is what the decorator needs of the transport below it.
type networkTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// A leaseTransport decorates a Raft transport with the lease rules. It stamps
// evidence before a request is sent, lets no vote leave that would break this
// voter's promise, and ends this node's own lease before a granted vote or a
// hand-over leaves. Raft itself is unchanged and knows nothing of it.
type leaseTransport struct {
	networkTransport
	fence *fence
	// exchange has a heartbeat sent with the next beat to a node, and returns the answer;
	// nil where there are no beats.
	exchange func(node, address string, term uint64) (beat.Result, error)
	// handle is Raft's handler of heartbeats; nil until Raft runs.
	handle atomic.Pointer[func(raft.RPC)]
	// promise is the heartbeat timeout, for how long a vote may be held back.
	promise func() time.Duration
	// steer is nil where elections are left to Raft's timers.
	steer *steering
	// DiskFault is that of Options.
	diskFault func() string
	// TermSaved is that of Options.
	termSaved func() bool
	// following tells whether Raft is a follower now; nil until Raft runs.
	following atomic.Pointer[func() bool]
	// followed is the leader and term that Raft has accepted through its main
	// loop; only their heartbeats may take the fast path.
	followed atomic.Pointer[leaderTerm]

	consumer chan raft.RPC
	done     chan struct{}

	mu     sync.Mutex // guards closed and the first Add of wg
	closed bool
	wg     sync.WaitGroup

	// replicating tells whether Raft leads and a node is one of its members; nil
	// until Raft runs.
	replicating atomic.Pointer[func(id string) bool]

	// view reads this node's own log, by which requests are examined; nil until Raft runs.
	view atomic.Pointer[func() logView]

	// acked notes how far other nodes are known to have come; nil until the node has an
	// identity that is watched.
	acked atomic.Pointer[*identity.Holders]

	// handing is the hand-over under way, or nil.
	handing atomic.Pointer[handing]

	answersMu sync.Mutex
	matched   map[string]matched       // by node ID
	answered  map[string]time.Duration // by node ID, when it last answered
	stored    map[string]uint64        // by node ID, committed entries that it has said to have

	ballot ballot

	installing installs
}

// matched is the log index up to which a node was found to have its leader's log.
type matched struct{ term, index uint64 }

type leaderTerm struct {
	term   uint64
	leader string
}

func newLeaseTransport(inner networkTransport, f *fence, promise func() time.Duration) *leaseTransport {
	return &leaseTransport{
		networkTransport: inner, fence: f, promise: promise,
		consumer: make(chan raft.RPC), done: make(chan struct{}),
		matched: make(map[string]matched), answered: make(map[string]time.Duration), stored: make(map[string]uint64),
	}
}

// start begins to receive; Close ends it and waits.
func (t *leaseTransport) start() {
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		for {
			select {
			case rpc := <-t.networkTransport.Consumer():
				t.receive(rpc)
			case <-t.done:
				return
			}
		}
	}()
}

// Close implements raft.WithClose.
func (t *leaseTransport) Close() error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.done)
	}
	t.mu.Unlock()
	err := t.networkTransport.Close()
	t.wg.Wait()
	return err
}

// Consumer implements raft.Transport.
func (t *leaseTransport) Consumer() <-chan raft.RPC { return t.consumer }

// AppendEntriesPipeline implements raft.Transport. Pipelining is refused so that
// there is one place that stamps evidence; the log is tiny.
func (t *leaseTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *leaseTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.exchange != nil && isHeartbeat(args) {
		r, err := t.exchange(string(id), string(target), args.Term)
		if !errors.Is(err, beat.ErrOrdinary) {
			*resp = answerOf(string(id), r)
			return err
		}
	}
	return t.append(id, target, args, resp)
}

// append sends a request by itself.
func (t *leaseTransport) append(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	index := args.PrevLogEntry + uint64(len(args.Entries))
	sent := t.fence.now()
	stored := t.storedBy(string(id))
	err := t.networkTransport.AppendEntries(id, target, args, resp)
	if err != nil && index > 0 && t.awaitAnswer(string(id)) {
		// Once: a node that answers at another address now is left to Raft.
		sent = t.fence.now()
		err = t.networkTransport.AppendEntries(id, target, args, resp)
	}
	if err != nil {
		return err
	}
	return t.answer(string(id), args.Term, index, sent, stored, resp)
}

// storedBy returns how many committed entries a node has said to have.
func (t *leaseTransport) storedBy(id string) uint64 {
	t.answersMu.Lock()
	defer t.answersMu.Unlock()
	return t.stored[id]
}

// answer takes the answer to a request of term, with entries up to index or none for 0,
// that was sent at sent, when the node had said to have stored entries.
func (t *leaseTransport) answer(id string, term, index uint64, sent time.Duration, stored uint64, resp *raft.AppendEntriesResponse) error {
	if err := examineAnswer(raft.ServerID(id), resp.RPCHeader, resp.Term, term); err != nil {
		return err
	}
	if resp.LastLog < stored && resp.LastLog > 0 {
		// Said before the request was sent: it has lost committed entries.
		if h := t.acked.Load(); h != nil {
			(*h).Lost(id)
		}
		return fmt.Errorf("%w: node %s has lost entries %d to %d", errMessage, id, resp.LastLog+1, stored)
	}
	agreed := resp.Success && resp.Term == term
	if agreed {
		t.fence.acknowledged(term, id, sent)
	}
	t.answersMu.Lock()
	defer t.answersMu.Unlock()
	t.answered[id] = t.fence.now()
	if agreed && index > 0 {
		t.matched[id] = matched{term, index}
		if committed := min(index, t.own().commit); committed > t.stored[id] {
			t.stored[id] = committed
			if h := t.acked.Load(); h != nil {
				(*h).Acknowledged(id, "", identity.Position{Index: committed})
			}
		}
	}
	return nil
}

// awaitAnswer waits until a node that a request did not reach answers heartbeats
// again, so that the request can be repeated. It returns false if that is not to
// be. Raft itself waits twice as long after each failure, up to 20 s: a node that
// was away for a minute would not have the newest log, and so could not own, for as
// long after it is back.
func (t *leaseTransport) awaitAnswer(id string) bool {
	failed := t.fence.now()
	for t.sleep(max(t.promise()/5, time.Millisecond)) {
		if replicating := t.replicating.Load(); replicating == nil || !(*replicating)(id) {
			return false
		}
		t.answersMu.Lock()
		at := t.answered[id]
		t.answersMu.Unlock()
		if at > failed {
			return true
		}
	}
	return false
}

// answeredSince tells whether a node has answered an append since an instant.
func (t *leaseTransport) answeredSince(id string, since time.Duration) bool {
	t.answersMu.Lock()
	defer t.answersMu.Unlock()
	at, ok := t.answered[id]
	return ok && at > since
}

// matches returns the log index up to which a node has the log of the leader of term.
func (t *leaseTransport) matches(term uint64, id string) uint64 {
	t.answersMu.Lock()
	defer t.answersMu.Unlock()
	if m := t.matched[id]; m.term == term {
		return m.index
	}
	return 0
}

// InstallSnapshot implements raft.Transport.
func (t *leaseTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	sent := t.fence.now()
	err := t.networkTransport.InstallSnapshot(id, target, args, resp, data)
	if err == nil {
		err = examineAnswer(id, resp.RPCHeader, resp.Term, args.Term)
	}
	if err == nil && resp.Success && resp.Term == args.Term {
		t.fence.acknowledged(args.Term, string(id), sent)
	}
	return err
}

// RequestVote implements raft.Transport.
func (t *leaseTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if !t.fence.campaigns(args.Term) {
		return errPromised
	}
	var sent time.Duration
	err := again(func() error {
		*resp = raft.RequestVoteResponse{} // of the attempt before
		sent = t.fence.now()
		return t.networkTransport.RequestVote(id, target, args, resp)
	})
	if err == nil {
		err = examineAnswer(id, resp.RPCHeader, resp.Term, args.Term)
	}
	if h := t.acked.Load(); h != nil && err == nil && resp.Granted && resp.Term == args.Term {
		(*h).Acknowledged(string(id), "", identity.Position{Term: args.Term})
	}
	if err == nil && resp.Granted && resp.Term == args.Term && bytes.Equal(resp.Peers, votedAndBound) {
		t.fence.acknowledged(args.Term, string(id), sent)
	}
	return err
}

// votedAndBound is what a voter puts into its vote if it has promised to follow the
// candidate as it would follow a leader. It is said, not taken for granted: a voter
// may have reasons not to, and programs of other versions know nothing of it. The
// field is one that Raft fills for peers of protocol version 0 only.
var votedAndBound = []byte("raftvip: bound")

// RequestPreVote implements raft.WithPreVote.
func (t *leaseTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.stand(); err != nil {
		return err
	}
	err := again(func() error { return t.networkTransport.RequestPreVote(id, target, args, resp) })
	if err == nil {
		err = examineAnswer(id, resp.RPCHeader, resp.Term, args.Term)
	}
	if err != nil {
		return err
	}
	if resp.Granted && t.steer != nil {
		return t.advance()
	}
	return nil
}

// poolSize is how many idle connections to each node Raft's transport keeps.
const poolSize = 4

// again makes a call once more for each connection that its peer had closed while
// it was idle: Raft's transport finds that out by using it, and takes it for a
// refusal, which costs an election. The call must not mind to be made twice.
func again(call func() error) error {
	var err error
	for range poolSize + 1 {
		err = call()
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return err
}

// warm sees to it that there is an open connection to a voter: what is asked of it
// in an election or a hand-over is not to begin with a handshake. It asks for a
// pre-vote in term 0, which no election has, and which the other end answers itself.
func (t *leaseTransport) warm(id raft.ServerID, target raft.ServerAddress) error {
	req := &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.fence.self), Addr: t.EncodePeer(raft.ServerID(t.fence.self), t.LocalAddr()),
	}}
	return again(func() error {
		return t.networkTransport.RequestPreVote(id, target, req, &raft.RequestPreVoteResponse{})
	})
}

// TimeoutNow implements raft.Transport.
func (t *leaseTransport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, _ *raft.TimeoutNowRequest, _ *raft.TimeoutNowResponse) error {
	// Raft starts a hand-over only when this package asks for it, and that
	// releases first. The check is here because being wrong would be a second owner.
	if term, _ := t.fence.until(); term != 0 && !t.fence.released(term) {
		return errNotReleased
	}
	h := t.handing.Load()
	if h == nil || h.to != id {
		return errNotReleased // Raft asks late: that hand-over was given up
	}
	return h.begin() // and the release is the TimeoutNow
}
