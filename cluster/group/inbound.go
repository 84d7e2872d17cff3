package group

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
)

// What comes in over Raft connections. The bytes are those of raft.NetworkTransport,
// which does the sending; receiving is done here, as it trusts whoever connects with
// any amount of memory, any name in a header and the time of Raft's main loop.
const (
	// arriveTimeout bounds how long a message may take to arrive once it has begun.
	arriveTimeout = 10 * time.Second
	// progressTimeout bounds each pause while a snapshot arrives.
	progressTimeout = 5 * time.Second
	// snapshotTimeout bounds the arrival of a whole snapshot.
	snapshotTimeout = 2 * time.Minute
	// maxSnapshot bounds a snapshot of the replicated state in bytes.
	maxSnapshot = 64 << 20
	// maxLarge is how many messages over maxSmall are held at a time.
	maxLarge = 4
	// maxStreams is how many Raft connections one member may have: the sender keeps
	// poolSize idle, and uses some for heartbeats, logs and votes at once.
	maxStreams = 32
)

// The kinds of messages on a Raft connection (hashicorp/raft net_transport.go).
const (
	wireAppendEntries byte = iota
	wireRequestVote
	wireInstallSnapshot
	wireTimeoutNow
	wireRequestPreVote
)

// An inbound is a raft.NetworkTransport whose receiving half is replaced: each
// message is bounded before it is decoded, speaks for the member whose certificate
// the connection has shown, and cannot take more down than its own connection.
type inbound struct {
	networkTransport // sends
	layer            net.Listener
	log              *slog.Logger
	// snapshot checks the content of a snapshot before Raft sees it.
	snapshot func([]byte) error

	consumer chan raft.RPC
	large    chan struct{}
	done     chan struct{}
	refusals port.Refusals

	mu        sync.Mutex
	closed    bool
	heartbeat func(raft.RPC)
	streams   map[net.Conn]string // with the member's ID
	wg        sync.WaitGroup
}

// A Speaker is who a Raft connection was authenticated as.
type Speaker struct {
	ID string
	// Boot is that of the Run, "" for a program that knows of none.
	Boot string
}

// Key tells the runs of a node apart where promises are concerned: they are made to a
// process, as another one with the same name may be on another machine.
func (s Speaker) Key() string {
	if s.Boot == "" {
		return s.ID
	}
	return s.ID + "#" + s.Boot
}

// nodeOf returns the node of a key.
func nodeOf(key string) string {
	id, _, _ := strings.Cut(key, "#")
	return id
}

// speakerOf returns whose request it is; id is what its header says, for requests that
// did not come from a network.
func speakerOf(rpc raft.RPC, id []byte) Speaker {
	if s, ok := rpc.Reader.(*speech); ok {
		return s.from
	}
	return Speaker{ID: string(id)}
}

// A speech is the Reader of every request from the network: what Raft reads of a
// snapshot, and whose request it is.
type speech struct {
	io.Reader
	from Speaker
}

// receiveOn makes a transport that sends by inner and receives from layer.
func receiveOn(layer net.Listener, inner networkTransport, log *slog.Logger, snapshot func([]byte) error) *inbound {
	in := &inbound{
		networkTransport: inner, layer: layer, log: log, snapshot: snapshot,
		consumer: make(chan raft.RPC), large: make(chan struct{}, maxLarge), done: make(chan struct{}),
		streams: make(map[net.Conn]string),
	}
	in.wg.Add(1)
	go func() {
		defer in.wg.Done()
		for {
			conn, err := layer.Accept()
			if err != nil {
				return // closed; nothing else ends a queue of connections
			}
			in.begin(conn)
		}
	}()
	return in
}

// begin serves a connection, unless its member has too many.
func (in *inbound) begin(conn net.Conn) {
	from := Speaker{}
	if t, ok := conn.(*port.Conn); ok {
		from.ID = t.Peer
		if run, ok := identity.ParseRun(t.Run); ok {
			from.Boot = run.Boot
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	count := 0
	for _, id := range in.streams {
		if id == from.ID {
			count++
		}
	}
	if in.closed || from.ID == "" || count >= maxStreams {
		conn.Close()
		return
	}
	in.streams[conn] = from.ID
	in.wg.Add(1)
	go func() {
		defer in.wg.Done()
		err := in.serve(conn, from)
		conn.Close()
		in.mu.Lock()
		delete(in.streams, conn)
		in.mu.Unlock()
		if errors.Is(err, errMessage) && in.refusals.News(from.ID+err.Error(), time.Now()) {
			in.log.Warn("closed a connection", "member", from.ID, "reason", err)
		}
	}()
}

// errMessage marks what only a broken or hostile member sends.
var errMessage = errors.New("invalid message")

// serve answers one connection's requests until it ends. A panic is its end, and not
// the daemon's.
func (in *inbound) serve(conn net.Conn, from Speaker) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it made this node panic: %v", errMessage, p)
			in.log.Error("panic while answering a member", "member", from.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	r, w := bufio.NewReaderSize(conn, 64<<10), bufio.NewWriter(conn)
	enc := codec.NewEncoder(w, &codec.MsgpackHandle{})
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return err
		}
		rpc, heartbeat, free, err := in.read(conn, r, kind, from)
		if err != nil {
			return err
		}
		answer := in.dispatch(rpc, heartbeat)
		free()
		text := ""
		if answer.Error != nil {
			text = answer.Error.Error()
		}
		conn.SetWriteDeadline(time.Now().Add(arriveTimeout))
		if err := enc.Encode(text); err != nil {
			return err
		}
		if err := enc.Encode(answer.Response); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

// read takes one request from a connection. free gives back what it holds.
func (in *inbound) read(conn net.Conn, r *bufio.Reader, kind byte, from Speaker) (rpc raft.RPC, heartbeat bool, free func(), err error) {
	conn.SetReadDeadline(time.Now().Add(arriveTimeout))
	held := false
	free = func() {
		if held {
			<-in.large
		}
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	grow := func() error {
		if held {
			return nil
		}
		select {
		case in.large <- struct{}{}:
			held = true
			return nil
		case <-time.After(arriveTimeout):
			return fmt.Errorf("%w: too many large ones at once", errMessage)
		case <-in.done:
			return raft.ErrTransportShutdown
		}
	}
	limit := maxSmall
	switch kind {
	case wireAppendEntries:
		limit = maxAppend
		rpc.Command = &raft.AppendEntriesRequest{}
	case wireRequestVote:
		rpc.Command = &raft.RequestVoteRequest{}
	case wireRequestPreVote:
		rpc.Command = &raft.RequestPreVoteRequest{}
	case wireInstallSnapshot:
		rpc.Command = &raft.InstallSnapshotRequest{}
	case wireTimeoutNow:
		// A hand-over needs none: see Group.released.
		return rpc, false, nil, fmt.Errorf("%w: TimeoutNow, which no member sends", errMessage)
	default:
		return rpc, false, nil, fmt.Errorf("%w: unknown kind %d", errMessage, kind)
	}
	body, err := readValue(r, limit, grow)
	if errors.Is(err, errWireSize) || errors.Is(err, errWireShape) {
		return rpc, false, free, fmt.Errorf("%w: %w", errMessage, err)
	} else if err != nil {
		return rpc, false, free, err
	}
	if err := codec.NewDecoderBytes(body, &codec.MsgpackHandle{}).Decode(rpc.Command); err != nil {
		return rpc, false, free, fmt.Errorf("%w: %w", errMessage, err)
	}
	header := rpc.Command.(raft.WithRPCHeader).GetRPCHeader()
	if string(header.ID) != from.ID {
		return rpc, false, free, fmt.Errorf("%w: it speaks for node %q", errMessage, clip(string(header.ID)))
	}
	said := &speech{Reader: bytes.NewReader(nil), from: from}
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		heartbeat = isHeartbeat(req)
	case *raft.InstallSnapshotRequest:
		if req.Size < 0 || req.Size > maxSnapshot {
			return rpc, false, free, fmt.Errorf("%w: a snapshot of %d bytes, allowed are %d", errMessage, req.Size, maxSnapshot)
		}
		// All of it is here before Raft, which would wait for it in its main loop.
		if err := grow(); err != nil {
			return rpc, false, free, err
		}
		data, err := readSnapshot(conn, r, req.Size)
		if err != nil {
			return rpc, false, free, err
		}
		if err := in.snapshot(data); err != nil {
			return rpc, false, free, fmt.Errorf("%w: %w", errMessage, err)
		}
		said.Reader = bytes.NewReader(data)
	}
	conn.SetReadDeadline(time.Time{})
	rpc.Reader = said
	return rpc, heartbeat, free, nil
}

// checkSnapshot tells whether a snapshot is one. What only a newer program understands
// passes: this node says so then, and stops.
func checkSnapshot(b []byte) error {
	_, err := readState(bytes.NewReader(b))
	if _, newer := errors.AsType[*state.NewerError](err); newer {
		return nil
	}
	return err
}

// clip shortens what a peer wrote to what a log line can bear.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// isHeartbeat tells whether raft.NetworkTransport would take a request for one.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.Term != 0 && len(req.Addr) > 0 &&
		req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// readSnapshot reads size bytes, as long as they keep coming.
func readSnapshot(conn net.Conn, r io.Reader, size int64) ([]byte, error) {
	end := time.Now().Add(snapshotTimeout)
	var buf bytes.Buffer
	for int64(buf.Len()) < size {
		deadline := time.Now().Add(progressTimeout)
		if deadline.After(end) {
			deadline = end
		}
		conn.SetReadDeadline(deadline)
		if _, err := io.CopyN(&buf, r, min(size-int64(buf.Len()), 64<<10)); err != nil {
			return nil, fmt.Errorf("receive snapshot: %w", err)
		}
	}
	return buf.Bytes(), nil
}

// dispatch gives a request to whoever receives, and waits for the answer.
func (in *inbound) dispatch(rpc raft.RPC, heartbeat bool) raft.RPCResponse {
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	in.mu.Lock()
	fast := in.heartbeat
	in.mu.Unlock()
	shut := raft.RPCResponse{Error: raft.ErrTransportShutdown}
	if heartbeat && fast != nil {
		fast(rpc)
	} else {
		select {
		case in.consumer <- rpc:
		case <-in.done:
			return shut
		}
	}
	select {
	case a := <-answers:
		return a
	case <-in.done:
		return shut
	}
}

// Consumer implements raft.Transport.
func (in *inbound) Consumer() <-chan raft.RPC { return in.consumer }

// SetHeartbeatHandler implements raft.Transport.
func (in *inbound) SetHeartbeatHandler(handle func(raft.RPC)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.heartbeat = handle
}

// Close implements raft.WithClose. It waits for the connections' ends.
func (in *inbound) Close() error {
	in.mu.Lock()
	if !in.closed {
		in.closed = true
		close(in.done)
	}
	for conn := range in.streams {
		conn.Close()
	}
	in.mu.Unlock()
	err := errors.Join(in.networkTransport.Close(), in.layer.Close())
	in.wg.Wait()
	return err
}

// tag makes a target of a node and its address, so that the half that sends keeps the
// connections of each node apart, and asks nobody else who is found at the address.
func tag(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + string(target))
}

// AppendEntries implements raft.Transport.
func (in *inbound) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return in.networkTransport.AppendEntries(id, tag(id, target), args, resp)
}

// RequestVote implements raft.Transport.
func (in *inbound) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return in.networkTransport.RequestVote(id, tag(id, target), args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (in *inbound) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return in.networkTransport.RequestPreVote(id, tag(id, target), args, resp)
}

// InstallSnapshot implements raft.Transport.
func (in *inbound) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return in.networkTransport.InstallSnapshot(id, tag(id, target), args, resp, data)
}

// An outward is the stream layer of the half that sends (raft.StreamLayer): it dials
// and accepts nothing.
type outward struct {
	layer *port.StreamLayer
	done  chan struct{}
	once  sync.Once
}

func sendOn(layer *port.StreamLayer) *outward {
	return &outward{layer: layer, done: make(chan struct{})}
}

// Dial implements raft.StreamLayer.
func (o *outward) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, address, ok := strings.Cut(string(target), "@")
	if !ok || id == "" {
		return nil, fmt.Errorf("dial %s: it names no node", target)
	}
	conn, err := o.layer.Dial(id, address, timeout)
	if err != nil {
		return nil, err
	}
	return &answerConn{Conn: conn}, nil
}

// Accept implements net.Listener.
func (o *outward) Accept() (net.Conn, error) {
	<-o.done
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (o *outward) Close() error {
	o.once.Do(func() { close(o.done) })
	return nil
}

// Addr implements net.Listener.
func (o *outward) Addr() net.Addr { return o.layer.Addr() }

// An answerConn bounds what may be read for each thing that is written.
type answerConn struct {
	net.Conn
	left atomic.Int64
}

// Write implements net.Conn.
func (c *answerConn) Write(b []byte) (int, error) {
	c.left.Store(maxSmall)
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *answerConn) Read(b []byte) (int, error) {
	left := c.left.Load()
	if left <= 0 {
		return 0, fmt.Errorf("read answer: %w: over %d bytes", errWireSize, maxSmall)
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), left)])
	c.left.Add(-int64(n))
	return n, err
}
