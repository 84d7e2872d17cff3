package group

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/state"
)

var (
	errUnreachable = errors.New("simulated network: no answer in time")
	errConnRefused = errors.New("simulated network: connection refused")
	errDead        = errors.New("simulated network: this process is dead")
)

// A simNet carries messages between processes. What it may do to them is what
// TCP with new connections may: delay each by any time, in each direction by
// itself, let them overtake one another, lose them, keep them through a cut or a
// freeze and deliver them then. A message reaches only the process that was there
// when it was sent: a connection does not survive its process.
type simNet struct {
	timeout time.Duration // after which a caller gives up; the message may still arrive
	done    chan struct{}

	mu    sync.Mutex
	rng   *rand.Rand
	procs map[string]*simProc // by address
	links map[[2]string]*simLink
}

// A simLink is one direction between two hosts.
type simLink struct {
	healed chan struct{} // not nil while cut; closed when it heals
	keep   bool          // what is sent into the cut arrives after it
	delay  time.Duration // in addition to the usual one, at most
	loss   float64
}

func newSimNet(seed uint64, timeout time.Duration) *simNet {
	return &simNet{
		timeout: timeout, done: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 1)),
		procs: map[string]*simProc{}, links: map[[2]string]*simLink{},
	}
}

// change alters the link from one host to another.
func (n *simNet) change(from, to string, f func(*simLink)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[[2]string{from, to}]
	if l == nil {
		l = &simLink{}
		n.links[[2]string{from, to}] = l
	}
	f(l)
}

func (l *simLink) cut(keep bool) {
	l.keep = keep
	if l.healed == nil {
		l.healed = make(chan struct{})
	}
}

func (l *simLink) heal() {
	if l.healed != nil {
		close(l.healed)
	}
	*l = simLink{}
}

func (n *simNet) healAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.heal()
	}
}

// draw returns the delay of a message that is sent now, whether it is lost, and
// the end of the cut that it waits for.
func (n *simNet) draw(from, to string) (delay time.Duration, lost bool, healed chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delay = 100*time.Microsecond + time.Duration(n.rng.Int64N(int64(400*time.Microsecond)))
	l := n.links[[2]string{from, to}]
	if l == nil {
		return delay, false, nil
	}
	if l.delay > 0 {
		delay += time.Duration(n.rng.Int64N(int64(l.delay)))
	}
	if l.healed != nil && !l.keep {
		return delay, true, nil
	}
	return delay, n.rng.Float64() < l.loss, l.healed
}

// carry brings a message from one process to another; false if it never arrives.
func (n *simNet) carry(from, to *simProc) bool {
	if !from.awake() {
		return false
	}
	delay, lost, healed := n.draw(from.host.name, to.host.name)
	if lost {
		return false
	}
	if healed != nil {
		select {
		case <-healed:
		case <-from.dead:
			return false
		case <-n.done:
			return false
		}
	}
	time.Sleep(delay)
	return to.awake()
}

// call sends a request and waits for the answer.
func (n *simNet) call(ctx context.Context, from *simProc, address string, handle func(to *simProc) (any, error)) (any, error) {
	type result struct {
		v   any
		err error
	}
	n.mu.Lock()
	to := n.procs[address]
	n.mu.Unlock()
	got := make(chan result, 1)
	go func() {
		if to == nil {
			time.Sleep(time.Millisecond)
			got <- result{nil, errConnRefused}
			return
		}
		if !n.carry(from, to) {
			return
		}
		v, err := handle(to)
		if errors.Is(err, errDead) || !n.carry(to, from) {
			return
		}
		got <- result{v, err}
	}()
	timer := time.NewTimer(n.timeout)
	defer timer.Stop()
	select {
	case r := <-got:
		return r.v, r.err
	case <-timer.C:
		return nil, errUnreachable
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-from.dead:
		return nil, errDead
	}
}

// A simTransport is a process's Raft transport on a simNet.
type simTransport struct {
	proc     *simProc
	consumer chan raft.RPC

	mu        sync.Mutex
	heartbeat func(raft.RPC)
}

// Consumer implements raft.Transport.
func (t *simTransport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport.
func (t *simTransport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.proc.address) }

// AppendEntriesPipeline implements raft.Transport. It works, so that refusing it
// is the decorator's doing.
func (t *simTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// EncodePeer implements raft.Transport.
func (t *simTransport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(addr)
}

// DecodePeer implements raft.Transport.
func (t *simTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *simTransport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heartbeat = f
}

// Close implements raft.WithClose.
func (t *simTransport) Close() error { return nil }

// deliver gives a request to the process and waits for its answer, as
// raft.NetworkTransport does: heartbeats go to their handler.
func (t *simTransport) deliver(from Speaker, command any, reader io.Reader) (any, error) {
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: command, Reader: &speech{Reader: reader, from: from}, RespChan: answers}
	t.mu.Lock()
	heartbeat := t.heartbeat
	t.mu.Unlock()
	req, ok := command.(*raft.AppendEntriesRequest)
	if ok && heartbeat != nil && req.Term != 0 && req.PrevLogEntry == 0 && req.PrevLogTerm == 0 &&
		len(req.Entries) == 0 && req.LeaderCommitIndex == 0 {
		heartbeat(rpc)
	} else {
		select {
		case t.consumer <- rpc:
		case <-t.proc.dead:
			return nil, errDead
		}
	}
	select {
	case r := <-answers:
		return r.Response, r.Error
	case <-t.proc.dead:
		return nil, errDead
	}
}

// request sends a copy of req, which the caller may change after it gave up.
func request[Req, Resp any](t *simTransport, target raft.ServerAddress, req *Req, resp *Resp, data []byte) error {
	sent := *req
	v, err := t.proc.host.net.call(context.Background(), t.proc, string(target), func(to *simProc) (any, error) {
		return to.trans.deliver(t.proc.speaker(), &sent, bytes.NewReader(data))
	})
	if err != nil {
		return err
	}
	*resp = *v.(*Resp)
	return nil
}

// AppendEntries implements raft.Transport.
func (t *simTransport) AppendEntries(_ raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return request(t, target, args, resp, nil)
}

// RequestVote implements raft.Transport.
func (t *simTransport) RequestVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return request(t, target, args, resp, nil)
}

// RequestPreVote implements raft.WithPreVote.
func (t *simTransport) RequestPreVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return request(t, target, args, resp, nil)
}

// InstallSnapshot implements raft.Transport.
func (t *simTransport) InstallSnapshot(_ raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	b, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	return request(t, target, args, resp, b)
}

// TimeoutNow implements raft.Transport.
func (t *simTransport) TimeoutNow(_ raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return request(t, target, args, resp, nil)
}

// simPeers sends the lease messages over the same network.
type simPeers struct{ proc *simProc }

func (p simPeers) CallPrepare(ctx context.Context, address string, r Release) error {
	_, err := p.proc.host.net.call(ctx, p.proc, address, func(to *simProc) (any, error) {
		if !to.group.fence.speaks(r.Term, p.proc.speaker().Key()) {
			return nil, state.Refuse(state.CodeNotLeader, "", "this voter does not follow the sender")
		}
		return nil, to.group.Prepared(r)
	})
	return err
}

func (p simPeers) CallRelease(ctx context.Context, address string, r Release) error {
	_, err := p.proc.host.net.call(ctx, p.proc, address, func(to *simProc) (any, error) {
		if !to.group.fence.speaks(r.Term, p.proc.speaker().Key()) {
			return nil, state.Refuse(state.CodeNotLeader, "", "this voter does not follow the sender")
		}
		to.group.Released(r)
		return nil, nil
	})
	return err
}

func (p simPeers) CallRebind(ctx context.Context, _, address string, r Release) error {
	_, err := p.proc.host.net.call(ctx, p.proc, address, func(to *simProc) (any, error) {
		if !to.group.fence.speaks(r.Term, p.proc.speaker().Key()) {
			return nil, state.Refuse(state.CodeNotLeader, "", "this voter does not follow the sender")
		}
		if !to.group.Rebound(r, p.proc.speaker().Key()) {
			return nil, state.Refuse(state.CodeNotLeader, "", "this voter has taken part in a later term")
		}
		return nil, nil
	})
	return err
}
