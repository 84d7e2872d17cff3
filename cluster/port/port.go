package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/pki"
)

// A Port is the one TCP port of a node: TLS 1.3 connections that carry Raft, the
// node API or a join, told apart by ALPN.
type Port struct {
	ln    net.Listener
	creds *pki.Credentials
	log   *slog.Logger
	// authorize decides whether a node may use a protocol.
	authorize func(proto, nodeID string) error
	// expect returns the node that should answer at an address, or "".
	expect func(address string) string
	// Bind prepares the socket of each connection to a member; nil for nothing.
	Bind func(ctx context.Context, network, address string, c syscall.RawConn) error
	// isMember tells whether a member is reached at an address.
	isMember func(netip.Addr) bool
	// dials are the ownership groups' connections to members that are being opened.
	dials dialGates

	// Handshakes under way and join connections, by whom they come from.
	strangers, members, joins *places
	handshakes                *Limiter
	// Meet is told of every complete handshake: with whom, as which run, when it began,
	// and at which address if this node dialled. An error ends the connection. Nil for
	// nobody.
	Meet func(proto, nodeID, run string, begun time.Duration, address string) error

	API   *connQueue
	Join  *connQueue
	Beats *connQueue

	Refusals Refusals

	mu     sync.Mutex
	closed bool
	groups map[string]*StreamLayer
	conns  map[net.Conn]string // open connections, with the peer's node ID
	wg     sync.WaitGroup
}

func New(ln net.Listener, creds *pki.Credentials, log *slog.Logger, authorize func(proto, nodeID string) error, expect func(string) string, isMember func(netip.Addr) bool) *Port {
	return &Port{
		ln: ln, creds: creds, log: log, authorize: authorize, expect: expect, isMember: isMember,
		dials:      dialGates{now: time.Now},
		strangers:  newPlaces(strangerHandshakes, strangerPerSource),
		members:    newPlaces(memberHandshakes, memberPerSource),
		joins:      newPlaces(JoinConns, joinPerSource),
		handshakes: NewLimiter(sourceRate, sourceBurst, strangerRate, strangerBurst, true),
		API:        newConnQueue(ln.Addr()),
		Join:       newConnQueue(ln.Addr()),
		Beats:      newConnQueue(ln.Addr()),
		groups:     make(map[string]*StreamLayer),
		conns:      make(map[net.Conn]string),
	}
}

// Run accepts connections until ctx ends, closes everything, and waits.
func (p *Port) Run(ctx context.Context) error {
	config := p.creds.Server(p.authorize)
	stop := context.AfterFunc(ctx, func() { p.ln.Close() })
	defer stop()
	var failure error
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				var temporary interface{ Temporary() bool }
				if errors.As(err, &temporary) && temporary.Temporary() { //nolint:staticcheck // EMFILE and the like pass
					if p.Refusals.News("accept "+err.Error(), time.Now()) {
						p.log.Warn("cannot accept connections for now", "error", err)
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
					}
					continue
				}
				failure = fmt.Errorf("accept connections on %s: %w", p.ln.Addr(), err)
			}
			break
		}
		at := p.admit(conn, time.Now())
		if at == nil {
			conn.Close()
			continue
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.serve(ctx, conn, config, at)
		}()
	}
	p.close()
	p.wg.Wait()
	return failure
}

// admit gives a new connection a place for its handshake, or nil for one too many.
func (p *Port) admit(conn net.Conn, now time.Time) *place {
	ip := addrOf(conn.RemoteAddr())
	evict := func() { conn.Close() }
	if p.isMember(ip) {
		at, _ := ip.Prefix(ip.BitLen())
		return p.members.take(at, evict)
	}
	source := sourceOf(ip)
	if !p.handshakes.Allows(source, now) {
		if p.Refusals.News("too many handshakes "+source.String(), now) {
			p.log.Warn("refused a connection", "peer", conn.RemoteAddr().String(), "reason", "too many connections from there, or from everywhere")
		}
		return nil
	}
	p.handshakes.Spend(source, now)
	return p.strangers.take(source, evict)
}

// Connections returns how many connections are open.
func (p *Port) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// JoinsOpen returns how many newcomers' connections are open.
func (p *Port) JoinsOpen() int {
	p.joins.mu.Lock()
	defer p.joins.mu.Unlock()
	return p.joins.count
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

const (
	// refusalQuiet is how long the same refusal is not logged again: a node that was
	// removed goes on trying several times a second.
	refusalQuiet = time.Minute
	// maxRefusals bounds what is remembered of them.
	maxRefusals = 256
)

// Refusals remembers which ones have been logged.
type Refusals struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// News tells whether a refusal is to be logged.
func (r *Refusals) News(what string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[what]; ok && now.Sub(at) < refusalQuiet {
		return false
	}
	if len(r.last) >= maxRefusals {
		maps.DeleteFunc(r.last, func(_ string, at time.Time) bool { return now.Sub(at) >= refusalQuiet })
		if len(r.last) >= maxRefusals {
			return false
		}
	}
	if r.last == nil {
		r.last = make(map[string]time.Time)
	}
	r.last[what] = now
	return true
}

func (p *Port) close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.conns = make(map[net.Conn]string)
	groups := p.groups
	p.groups = make(map[string]*StreamLayer)
	p.mu.Unlock()
	p.ln.Close()
	for conn := range conns {
		conn.Close()
	}
	for _, g := range groups {
		g.queue.Close()
	}
	p.API.Close()
	p.Join.Close()
	p.Beats.Close()
}

// serve does the handshake in the place that it got, and hands the connection to its
// protocol.
func (p *Port) serve(ctx context.Context, raw net.Conn, config *tls.Config, at *place) {
	conn := tls.Server(raw, config)
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	begun := boottime.Now()
	err := conn.HandshakeContext(ctx)
	at.leave()
	if err != nil {
		conn.Close()
		// Port scans and health checks close at once; that is no news.
		if peer := hostOf(conn.RemoteAddr()); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && p.Refusals.News(peer+" "+err.Error(), time.Now()) {
			p.log.Warn("refused a connection", "peer", conn.RemoteAddr().String(), "reason", err)
		}
		return
	}
	state := conn.ConnectionState()
	tracked := p.track(conn, pki.PeerID(state), pki.PeerRun(state))
	if tracked == nil {
		conn.Close()
		return
	}
	// Tracked first: else it would miss being cut off.
	if state.NegotiatedProtocol != pki.ProtoJoin && p.Meet != nil {
		if err := p.Meet(state.NegotiatedProtocol, tracked.Peer, tracked.Run, begun, ""); err != nil {
			tracked.Close()
			if p.Refusals.News(tracked.Peer+err.Error(), time.Now()) {
				p.log.Warn("refused a connection", "member", tracked.Peer, "peer", conn.RemoteAddr().String(), "reason", err)
			}
			return
		}
	}
	switch state.NegotiatedProtocol {
	case pki.ProtoBeat:
		p.Beats.put(tracked)
	case pki.ProtoAPI:
		p.API.put(tracked)
	case pki.ProtoJoin:
		tracked.Peer = ""
		tracked.at = p.joins.take(sourceOf(addrOf(raw.RemoteAddr())), func() { raw.Close() })
		p.Join.put(tracked)
	case pki.ProtoRaft:
		conn.SetReadDeadline(time.Now().Add(HandshakeTimeout))
		name, err := readGroup(conn)
		if err != nil {
			tracked.Close()
			return
		}
		conn.SetReadDeadline(time.Time{})
		p.mu.Lock()
		layer := p.groups[name]
		p.mu.Unlock()
		if layer == nil {
			// It has not begun here yet, or has ended: one of the two will hear of it.
			p.log.Debug("refused a connection", "peer", conn.RemoteAddr().String(), "reason", "unknown group", "group", name)
			tracked.Close()
			return
		}
		layer.queue.put(tracked)
	}
}

// track registers an authenticated connection, so that it can be cut off. It
// returns nil when the port is closed.
func (p *Port) track(conn net.Conn, peer, run string) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	t := &Conn{Conn: conn, port: p, Peer: peer, Run: run}
	p.conns[t] = peer
	return t
}

// IsPeer tells whether the other end of an authenticated connection that is open is at
// an address: members that are known by a host name, or from behind a translator.
func (p *Port) IsPeer(ip netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn, peer := range p.conns {
		if peer != "" && addrOf(conn.RemoteAddr()) == ip {
			return true
		}
	}
	return false
}

// CutOff closes every connection with a node, in both directions.
func (p *Port) CutOff(nodeID string) {
	p.mu.Lock()
	var cut []net.Conn
	for conn, peer := range p.conns {
		if peer == nodeID {
			cut = append(cut, conn)
		}
	}
	p.mu.Unlock()
	for _, conn := range cut {
		conn.Close()
	}
}

// CutOffRuns closes the connections with those runs of a node that cutoff names.
func (p *Port) CutOffRuns(nodeID string, cutoff func(run string) bool) {
	p.mu.Lock()
	var cut []net.Conn
	for conn, peer := range p.conns {
		if t, ok := conn.(*Conn); ok && peer == nodeID && cutoff(t.Run) {
			cut = append(cut, conn)
		}
	}
	p.mu.Unlock()
	for _, conn := range cut {
		conn.Close()
	}
}

// Dial opens an authenticated connection to whoever should answer at an address.
func (p *Port) Dial(ctx context.Context, proto, address string) (net.Conn, error) {
	return p.DialNode(ctx, proto, address, p.expect(address))
}

// DialNode opens a connection to a node, or to any if it is named "". It gives up by
// itself: net/http goes on with a dial whose request has ended, and one to a process that
// stands still would never end.
func (p *Port) DialNode(ctx context.Context, proto, address, expect string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: p.creds.Client(proto, expect), NetDialer: &net.Dialer{ControlContext: p.Bind}}
	begun := boottime.Now()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	state := conn.(*tls.Conn).ConnectionState()
	// A server that refuses this node's certificate says so only with the first
	// bytes it sends (TLS 1.3), so a refusal appears at the first read.
	tracked := p.track(conn, pki.PeerID(state), pki.PeerRun(state))
	if tracked == nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	if p.Meet != nil {
		if err := p.Meet(proto, tracked.Peer, tracked.Run, begun, address); err != nil {
			tracked.Close()
			return nil, err
		}
	}
	return tracked, nil
}

// Layer returns the stream layer of a group and begins to accept for it.
func (p *Port) Layer(group string) *StreamLayer {
	s := &StreamLayer{port: p, group: group, queue: newConnQueue(p.ln.Addr())}
	p.mu.Lock()
	p.groups[group] = s
	p.mu.Unlock()
	return s
}

// A Conn leaves the port's register when it is closed.
type Conn struct {
	net.Conn
	port *Port
	// Peer is the node's ID, run what its certificate says of the process.
	Peer, Run string
	// at is the place of a join connection, until its request has proven itself.
	at *place
}

func (c *Conn) Close() error {
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	c.at.leave()
	return c.Conn.Close()
}

// A connQueue is a net.Listener that is fed with connections.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *connQueue) put(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.done:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *connQueue) Addr() net.Addr { return q.addr }

// A StreamLayer carries one Raft group over the port: a listener for what comes in,
// and dial.
type StreamLayer struct {
	port  *Port
	group string
	queue *connQueue
}

// Accept implements net.Listener.
func (s *StreamLayer) Accept() (net.Conn, error) { return s.queue.Accept() }

// Close implements net.Listener.
func (s *StreamLayer) Close() error {
	s.port.mu.Lock()
	delete(s.port.groups, s.group)
	s.port.mu.Unlock()
	return s.queue.Close()
}

// Addr implements net.Listener.
func (s *StreamLayer) Addr() net.Addr { return s.queue.Addr() }

// Dial opens a connection for the group's messages to a node.
func (s *StreamLayer) Dial(nodeID, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var conn net.Conn
	dial := func() (err error) {
		conn, err = s.port.DialNode(ctx, pki.ProtoRaft, address, nodeID)
		return err
	}
	var err error
	if s.group == state.DefaultGroup {
		err = dial()
	} else {
		err = s.port.dials.through(ctx, nodeID, dial)
	}
	if err != nil {
		return nil, err
	}
	if err := WriteGroup(conn, s.group); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// WriteGroup says which group a new Raft connection is for.
func WriteGroup(w io.Writer, name string) error {
	if name == "" || len(name) > state.MaxGroupName {
		return fmt.Errorf("group name %q: must be 1 to %d bytes", name, state.MaxGroupName)
	}
	_, err := w.Write(append([]byte{byte(len(name))}, name...))
	return err
}

func readGroup(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	if n[0] == 0 {
		return "", errors.New("empty group name")
	}
	name := make([]byte, n[0])
	if _, err := io.ReadFull(r, name); err != nil {
		return "", err
	}
	return string(name), nil
}
