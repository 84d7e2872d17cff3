package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/machine"
	"github.com/raftvip/raftvip/internal/pki"
)

// Options are what a Node is made from.
type Options struct {
	DataDir  *store.DataDir
	Identity store.Identity
	Secret   pki.Secret
	// Listen and Advertise are HOST:PORT.
	Listen    string
	Advertise string
	// Peers are HOST:PORT of the founding nodes, for an identity of OriginPeers.
	Peers []string
	// Heartbeat is the failure detection time for a new cluster.
	Heartbeat time.Duration
	// MinHeartbeat is the shortest heartbeat timeout that this node's guard can
	// keep the lease at; 0 for none.
	MinHeartbeat time.Duration
	// Machine returns what this machine is known by; nil means machine.Read.
	Machine func() machine.Facts
	// Content returns the instances of a new cluster, when this node founds one.
	Content func() []state.Instance
	// Order returns the nodes that may own in a group, best first, without a leader that
	// was lost (a node ID, or ""): the best one stands for election first. Nil leaves
	// elections to Raft's own timers.
	Order func(group, lost string) []string
	// Lateness is by how much the sinks shorten a lease.
	Lateness time.Duration
	// Sink returns where the leases of a group go. It is asked once for each group that is
	// opened, before the group can have a lease.
	Sink func(group string) group.LeaseSink
	// Released tells whether none of these addresses is on this node's kernel in that
	// group, or will be by a list that is older than the version; nil where there never is
	// one.
	Released func(group string, version uint64, addresses []netip.Addr) bool
	// Bind prepares the socket of a connection to a member before it is connected, as
	// net.Dialer.ControlContext, so that it leaves from an address that stays this
	// node's; nil for what the kernel chooses.
	Bind func(ctx context.Context, network, address string, c syscall.RawConn) error
	// Handler answers requests of the node API that are not this package's; nil for none.
	Handler http.Handler
	Log     *slog.Logger
	// RaftLog gets Raft's own log.
	RaftLog *slog.Logger
}

// A Node is this machine's membership in its cluster.
type Node struct {
	opts   Options
	log    *slog.Logger
	port   *port.Port
	client *port.Client
	group  *group.Group
	beats  *beat.Sender
	// groups are the other ownership groups that run here, by ID, and groupFault says why
	// one does not, or is nil.
	groupsMu    sync.Mutex
	groups      map[string]*ownership
	groupStores *store.Groups
	groupFault  atomic.Pointer[string]
	// wasAt is the version of the state that was written down in the last run, or 0.
	wasAt uint64
	store *raftboltdb.BoltStore
	votes *store.VoteStore
	disk  *store.DiskWatch
	// holders knows who holds the members' identities, diverged whose state is another.
	holders *identity.Holders
	// backSince is when this node was found behind what it had acknowledged, 0 if it
	// is not; voided: its data dir says so. Only keepIdentities uses them.
	backSince time.Duration
	voided    bool
	diverged  *state.Divergence
	changed   *group.Broadcast

	running atomic.Bool
	// existing: the log was not empty when the node was opened.
	existing bool
	// phase says in words what a node that is not yet a member waits for.
	phase atomic.Pointer[string]
	// waits are the reasons to wait that were logged: a peer that is down is in turn
	// without an answer and without a route.
	waits port.Refusals

	reports *reportTable
	// remembered are the members' addresses of the last run.
	remembered []string
	// guesses are joins that failed.
	guesses *port.Limiter
	// kick wakes the reporting loop, members the membership loop.
	// identities holds a token when something is known of who holds which identity.
	// noticed holds one when that may be a finding, so that it is acted on at once.
	identities chan struct{}
	noticed    chan struct{}
	kick       chan struct{}
	members    chan struct{}

	ledMu    sync.Mutex
	ledTerm  uint64
	ledSince time.Duration // when that term was first seen to be led

	persistMu sync.Mutex
	persisted struct {
		version uint64
		cache   store.Cache
		at      time.Time // when the cache was written
		marked  bool
	}
}

// OpenNode opens the listening port and the log. Nothing runs before Run.
func OpenNode(o Options) (*Node, error) {
	if o.RaftLog == nil {
		o.RaftLog = slog.New(slog.DiscardHandler)
	}
	authority, err := pki.NewAuthority(o.Secret)
	if err != nil {
		return nil, err
	}
	if id := authority.ClusterID(); id != o.Identity.ClusterID {
		return nil, fmt.Errorf("the secret belongs to cluster %s, the data dir %s to cluster %s", id, o.DataDir.Path(), o.Identity.ClusterID)
	}
	cache, err := o.DataDir.Cache()
	if err != nil {
		return nil, err
	}
	if o.Machine == nil {
		o.Machine = machine.Read
	}
	claim, err := o.DataDir.Claim(o.Identity.Name, o.Machine())
	if err != nil {
		return nil, err
	}
	heartbeat := cache.Heartbeat
	if heartbeat.Current == 0 {
		heartbeat = state.HeartbeatSetting{Configured: o.Heartbeat, Current: o.Heartbeat, Previous: o.Heartbeat}
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, &PortInUseError{Address: o.Listen, Err: err}
		}
		return nil, fmt.Errorf("listen on %s: %w", o.Listen, err)
	}
	n := &Node{
		groups:  make(map[string]*ownership),
		guesses: port.NewLimiter(port.GuessRate, port.GuessBurst, port.AllGuessRate, port.AllGuessBurst, true),
		opts:    o, log: o.Log, changed: group.NewBroadcast(), reports: newReportTable(boottime.Now), identities: make(chan struct{}, 1), noticed: make(chan struct{}, 1), kick: make(chan struct{}, 1), members: make(chan struct{}, 1),
	}
	creds := pki.NewCredentials(authority, o.Identity.NodeID, nil)
	n.port = port.New(ln, creds, o.Log, n.authorize, n.expect, n.isMemberAt)
	n.port.Bind = o.Bind
	n.client = port.NewClient(n.port.Dial)
	n.beats = beat.NewSender(beat.Options{Dial: n.dialBeat, Now: boottime.Now, Log: o.Log})
	n.persisted.marked = o.Identity.HasLog
	n.persisted.cache, n.remembered, n.wasAt = cache, cache.Addresses, cache.Version
	n.disk = store.WatchDisk(o.DataDir.Path(), o.Log, n.changed.Notify, n.testDisk)
	if err := n.openGroup(heartbeat, cache.Version); err != nil {
		ln.Close()
		return nil, err
	}
	if err := n.openGroups(); err != nil {
		return nil, errors.Join(err, n.group.Close(), n.store.Close(), n.votes.Close(), ln.Close())
	}
	n.openIdentity(creds, claim)
	return n, nil
}

// A PortInUseError says that something else listens on the node's port.
type PortInUseError struct {
	Address string
	Err     error
}

func (e *PortInUseError) Error() string { return "listen on " + e.Address + ": the port is in use" }

// Unwrap returns the system's error.
func (e *PortInUseError) Unwrap() error { return e.Err }

// authorize decides whether a node may connect.
func (n *Node) authorize(proto, nodeID string) error {
	if n.group == nil {
		return state.Refuse(state.CodeNotReady, "", "starting")
	}
	// A removed node may connect to the node API, to be told that it was removed:
	// a refused handshake has no words.
	if proto != pki.ProtoRaft && proto != pki.ProtoBeat {
		return nil
	}
	return mayLead(n.State(), nodeID, n.group.Standing())
}

// mayLead decides whether a node may connect to speak Raft. One that is not known here
// may have joined and been elected while this node was away, and only it can tell this
// node so: it is heard while no leader is (Raft thesis, 4.1: a server accepts requests
// from a leader that is not part of its latest configuration).
func mayLead(s *state.State, nodeID string, here group.Standing) error {
	if _, ok := s.Nodes[nodeID]; ok || !s.Founded() {
		return nil
	}
	if gone, ok := s.Removed[nodeID]; ok {
		return state.RemovedRefusal(gone)
	}
	if here.Leading || here.LeaderID != "" {
		return state.Refuse(state.CodeNotMember, "", "node %s is not a member", nodeID)
	}
	return nil
}

// expect returns the member at an address.
func (n *Node) expect(address string) string {
	if n.group == nil {
		return ""
	}
	for _, node := range n.State().Nodes {
		if node.Address == address {
			return node.ID
		}
	}
	return ""
}

// isMemberAt tells whether a member is reached at an address, as far as is known
// without asking a name server: by the state, by the last run and by the file.
func (n *Node) isMemberAt(ip netip.Addr) bool {
	here := func(address string) bool {
		at, err := netip.ParseAddrPort(address)
		return err == nil && at.Addr().Unmap().WithZone("") == ip
	}
	if slices.ContainsFunc(n.opts.Peers, here) || slices.ContainsFunc(n.remembered, here) {
		return true
	}
	for id, node := range n.State().Nodes {
		if id != n.opts.Identity.NodeID && here(node.Address) {
			return true
		}
	}
	return n.port.IsPeer(ip)
}

// Run takes part in the cluster until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	n.running.Store(true)
	// Raft is shut down before the port closes, so that its last answers leave.
	portCtx, closePort := context.WithCancel(context.WithoutCancel(ctx))
	defer closePort()
	var ports errgroup.Group
	ports.Go(func() error { return n.port.Run(portCtx) })
	ports.Go(func() error { return n.beats.Run(portCtx) })
	ports.Go(func() error { n.answerBeats(portCtx); return nil })
	ports.Go(func() error { return n.serve(portCtx, n.port.API, n.apiHandler(), false) })
	ports.Go(func() error { return n.serve(portCtx, n.port.Join, n.joinHandler(), true) })

	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return n.group.Run(ctx) })
	tasks.Go(func() error { return n.keepGroups(ctx) })
	tasks.Go(func() error { n.keepMembership(ctx); return nil })
	tasks.Go(func() error { n.keepReporting(ctx); return nil })
	tasks.Go(func() error { n.keepWarm(ctx); return nil })
	tasks.Go(func() error { n.keepBeats(ctx); return nil })
	tasks.Go(func() error { n.keepIdentities(ctx); return nil })
	tasks.Go(func() error { n.followState(ctx); return nil })
	tasks.Go(func() error { n.disk.Run(ctx); return nil })
	if n.opts.Identity.Origin == store.OriginPeers && !n.existing {
		tasks.Go(func() error { n.form(ctx); return nil })
	}
	err := tasks.Wait()
	closePort()
	n.client.Close()
	return errors.Join(err, ports.Wait(), n.store.Close(), n.votes.Close(), n.groupStores.Close())
}

// serve answers HTTP requests of one protocol until ctx ends. A newcomer's connection
// is good for one request, and for little time and memory.
func (n *Node) serve(ctx context.Context, ln net.Listener, h http.Handler, newcomers bool) error {
	server := &http.Server{
		Handler: h, ConnContext: port.ConnContext,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Minute,
		ErrorLog: slog.NewLogLogger(n.opts.RaftLog.Handler(), slog.LevelDebug),
	}
	if newcomers {
		server.ReadTimeout, server.ReadHeaderTimeout, server.WriteTimeout = port.JoinReadTimeout, port.JoinReadTimeout, port.JoinTimeout
		server.MaxHeaderBytes = port.MaxJoinHeader
		server.SetKeepAlivesEnabled(false)
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve node API: %w", err)
	}
	return nil
}

// State returns the replicated state as this node has it. It must not be changed.
func (n *Node) State() *state.State { return n.group.State() }

// Changed returns a channel that is closed when the state, the standing or a
// report changes. Take it before reading them.
func (n *Node) Changed() <-chan struct{} { return n.changed.Wait() }

// Self is this node's identity.
func (n *Node) Self() store.Identity { return n.opts.Identity }

// Advertise is the address given to other nodes.
func (n *Node) Advertise() string { return n.opts.Advertise }

// Phase says what a node that is not a member yet is waiting for, or "".
func (n *Node) Phase() string {
	if p := n.phase.Load(); p != nil {
		return *p
	}
	return ""
}

func (n *Node) setPhase(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	old := n.phase.Swap(&text)
	if old != nil && *old == text || old == nil && text == "" {
		return
	}
	if text != "" && n.waits.News(text, time.Now()) {
		n.log.Info("waiting", "reason", text)
	}
	n.changed.Notify()
}

// Apply commits a command to the replicated state; only the leader can.
func (n *Node) Apply(ctx context.Context, c state.Command) error {
	c.At = time.Now()
	if c.Configure != nil || c.AddVIP != nil || c.Raise != nil {
		c.Voters = n.group.Voters() // what a new group begins with
	}
	return n.group.Apply(ctx, c)
}

// LeaderAddress returns where the leader of the default group is, or "".
func (n *Node) LeaderAddress() string {
	id, address := n.group.Leader()
	if id == "" {
		return ""
	}
	// A leader that has moved says so in the replicated state first.
	if r, ok := n.State().Nodes[id]; ok {
		return r.Address
	}
	return address
}

// Call posts a request to another member's node API.
func (n *Node) Call(ctx context.Context, address, path string, in, out any) error {
	return n.client.Call(ctx, address, path, in, out)
}

// A Caller calls members over connections of its own, to see whether one can be made
// now. It must be closed.
type Caller struct{ client *port.Client }

// NewCaller returns a Caller with no connection.
func (n *Node) NewCaller() *Caller { return &Caller{port.NewClient(n.port.Dial)} }

// Call is Node.Call; the first one to an address connects.
func (c *Caller) Call(ctx context.Context, address, path string, in, out any) error {
	return c.client.Call(ctx, address, path, in, out)
}

// Close closes the connections.
func (c *Caller) Close() { c.client.Close() }

// Suffrage is a node's part in elections.
type Suffrage string

// Suffrages.
const (
	SuffrageVoter    Suffrage = "voter"
	SuffrageNonvoter Suffrage = "nonvoter"
	SuffrageNone     Suffrage = "joining"
)

// Suffrages returns every node's part in elections of the default group, by node ID.
func (n *Node) Suffrages() map[string]Suffrage { return n.SuffragesIn(state.DefaultGroup) }

// SuffragesIn returns every node's part in elections of a group, by node ID; none where the
// group does not run here.
func (n *Node) SuffragesIn(id string) map[string]Suffrage {
	m := make(map[string]Suffrage)
	g := n.Group(id)
	if g == nil {
		return m
	}
	for _, s := range g.Configuration().Servers {
		m[string(s.ID)] = SuffrageNonvoter
		if s.Suffrage == raft.Voter {
			m[string(s.ID)] = SuffrageVoter
		}
	}
	return m
}

// Promote makes a node a voter now. Only the leader can, and only for a node that
// has the whole state, as the length of its promise is in it.
func (n *Node) Promote(node state.NodeRecord) error {
	err := n.group.SetServer(raft.Server{ID: raft.ServerID(node.ID), Address: raft.ServerAddress(node.Address), Suffrage: raft.Voter}, 5*time.Second)
	if err != nil {
		return fmt.Errorf("promote %s: %w", node.Name, err)
	}
	return nil
}

// mark notes on disk that this identity has a log, before anything depends on it.
func (n *Node) mark() error {
	if n.persisted.marked {
		return nil
	}
	if err := n.opts.DataDir.MarkLog(n.opts.Identity); err != nil {
		return err
	}
	n.persisted.marked = true
	return nil
}

// cacheEvery is how often the version of the state alone is written down: it is
// compared with the log at the next start, and need not be the latest.
const cacheEvery = 10 * time.Second

// persist writes down what this node must remember of the state before it may
// say that it has applied it, and returns the version it may report.
func (n *Node) persist() (uint64, error) {
	n.persistMu.Lock()
	defer n.persistMu.Unlock()
	s := n.State()
	pasts := n.holders.Pasts()
	if !s.Founded() || s.Version == n.persisted.version && maps.Equal(pasts, n.persisted.cache.Past) {
		return n.persisted.version, nil
	}
	if s.Version < n.persisted.cache.Version {
		// After a start, until the log is applied again: what is on disk is newer.
		return s.Version, nil
	}
	if err := n.mark(); err != nil {
		return n.persisted.version, err
	}
	cache := store.Cache{Heartbeat: s.Heartbeat, Version: s.Version, Past: pasts}
	for _, node := range s.SortedNodes() {
		if node.ID != n.opts.Identity.NodeID {
			cache.Addresses = append(cache.Addresses, node.Address)
		}
	}
	if due := time.Since(n.persisted.at) >= cacheEvery; due || cache.Heartbeat != n.persisted.cache.Heartbeat || !slices.Equal(cache.Addresses, n.persisted.cache.Addresses) {
		if err := n.opts.DataDir.WriteCache(cache); err != nil {
			return n.persisted.version, err
		}
		n.persisted.cache, n.persisted.at = cache, time.Now()
	}
	// A leader that hears of this version counts on promises as long as it says, and on
	// leases that are no longer.
	if !n.setTiming(s.Version, s.Heartbeat) {
		return n.persisted.version, nil
	}
	n.persisted.version = s.Version
	return s.Version, nil
}

// followState acts on changes of the replicated state that concern the cluster
// itself: timing, and nodes that were removed.
func (n *Node) followState(ctx context.Context) {
	cut := make(map[string]bool)
	var members []string
	for {
		changed := n.Changed()
		s := n.State()
		if s.Founded() {
			n.setTiming(s.Version, s.Heartbeat)
			if _, err := n.persist(); err != nil {
				n.log.Error("cannot write the data dir", "error", err)
			}
			n.holders.KeepOnly(func(id string) bool { _, ok := s.Nodes[id]; return ok })
			n.diverged.KeepOnly(s.Nodes)
			for id, node := range s.Nodes {
				n.holders.Claimed(id, node.Claim)
			}
			if now := slices.Sorted(maps.Keys(s.Nodes)); !slices.Equal(now, members) {
				members = now
				group.Signal(n.identities)
			}
			for id := range s.Removed {
				if !cut[id] {
					cut[id] = true
					n.port.CutOff(id)
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
