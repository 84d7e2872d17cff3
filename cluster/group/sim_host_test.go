package group

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/testlog"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/internal/testnet"
)

// simVIP is the address that all hosts want to have.
var simVIP = netip.MustParseAddr("192.0.2.10")

// A simHost is a machine: a clock and a kernel, which outlive the processes that
// run on it. The kernel answers for the address while the deadline that some
// process stored is ahead of the host's clock.
type simHost struct {
	t     *testing.T
	name  string
	net   *simNet
	start time.Time // of the simulation
	// offset and ppm say how far off the clock is, and how much faster it runs.
	offset time.Duration
	ppm    int64
	hb     time.Duration
	// cache is what the host has on its disk of the replicated state: the heartbeat
	// setting and the version it is from.
	cache store.Cache
	raw   bool // the holder is whoever Raft calls leader
	// ordinary: a program that knows of no beats.
	ordinary bool
	order    func(lost string) []string
	// between is that of Options.
	between func(*leaseTransport) raft.Transport

	mu       sync.Mutex
	deadline time.Duration // by the host's clock
	holding  bool
	from     time.Duration  // since when it holds, true time
	holds    []testnet.Hold // that have ended
	takes    int
	held     time.Duration
	thawed   chan struct{} // not nil while the process is frozen
	late     []func()      // what a frozen process does first when it goes on
	diskOK   chan struct{} // not nil while the disk hangs

	proc  *simProc // nil while none runs
	last  *simProc // the one before
	store *memStore
	snaps *memSnapshots
	id    string
	lives int
	gone  sync.WaitGroup // processes that were killed
}

// true time is the time since the start of the simulation.
func (h *simHost) trueNow() time.Duration { return time.Since(h.start) }

// now is the host's clock.
func (h *simHost) now() time.Duration {
	t := h.trueNow()
	return h.offset + t + time.Duration(int64(t)/1000*h.ppm/1000)
}

// trueAt is the true time at which the host's clock shows an instant.
func (h *simHost) trueAt(at time.Duration) time.Duration {
	return time.Duration(float64(at-h.offset) * 1e6 / float64(1e6+h.ppm))
}

// setDeadline is the store into the kernel's map.
func (h *simHost) setDeadline(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.trueNow()
	if end := h.trueAt(h.deadline); h.holding && end <= now {
		h.endLocked(end)
	}
	h.deadline = d
	switch valid := h.trueAt(d) > now; {
	case valid && !h.holding:
		h.holding, h.from = true, now
		h.takes++
	case !valid && h.holding:
		h.endLocked(now)
	}
}

func (h *simHost) endLocked(at time.Duration) {
	h.holding = false
	h.held += at - h.from
	h.holds = append(h.holds, testnet.Hold{VIP: simVIP, Holder: h.name, From: h.from, To: at})
}

// collect returns the holds up to now that may overlap one not yet seen, and
// forgets those that are over.
func (h *simHost) collect() []testnet.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.trueNow()
	if end := h.trueAt(h.deadline); h.holding && end <= now {
		h.endLocked(end)
	}
	out := h.holds
	h.holds = nil
	if h.holding {
		out = append(out, testnet.Hold{VIP: simVIP, Holder: h.name, From: h.from, To: now})
	}
	return out
}

// answers tells whether the host answers for the address now.
func (h *simHost) answers() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trueAt(h.deadline) > h.trueNow()
}

// freeze stops the process; the kernel goes on. Virtual time cannot stop single
// goroutines, so a frozen process is one that sends, receives, writes to disk and
// stores deadlines only when it goes on.
func (h *simHost) freeze() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.thawed == nil {
		h.thawed = make(chan struct{})
	}
}

func (h *simHost) thaw() {
	for {
		h.mu.Lock()
		late := h.late
		h.late = nil
		if len(late) == 0 {
			if h.thawed != nil {
				close(h.thawed)
				h.thawed = nil
			}
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		for _, f := range late {
			f()
		}
	}
}

func (h *simHost) hangDisk() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.diskOK == nil {
		h.diskOK = make(chan struct{})
	}
}

func (h *simHost) freeDisk() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.diskOK != nil {
		close(h.diskOK)
		h.diskOK = nil
	}
}

// waits returns what the process has to wait for.
func (h *simHost) waits(disk bool) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.thawed != nil {
		return h.thawed
	}
	if disk {
		return h.diskOK
	}
	return nil
}

// A simProc is one life of the daemon on a host. It is also the sink of its own
// lease, and, through its gate, the one that stores deadlines, as the daemon's
// owner loop and vip.Gate do.
type simProc struct {
	host    *simHost
	id      string
	boot    string // of the Run
	address string
	trans   *simTransport
	group   *Group // nil if raw
	raft    *raft.Raft
	dead    chan struct{}
	stop    context.CancelFunc
	ended   chan error
	changed *Broadcast
	wake    chan struct{}
	moves   chan simMove
	// reported is the version of the state that the process has said to have.
	reported atomic.Uint64
	beats    *beat.Sender // nil for a program that knows of none

	mu       sync.Mutex // guards the gate
	open     bool
	term     uint64
	deadline time.Duration
}

// speaker is who the process's connections are authenticated as.
func (p *simProc) speaker() Speaker { return Speaker{ID: p.id, Boot: p.boot} }

type simMove struct {
	to    string
	unset bool // the gate is left to Transfer's revocation
	done  chan error
}

// boot starts a process on the host's disk.
func (h *simHost) boot() *simProc {
	h.t.Helper()
	h.lives++
	p := &simProc{
		host: h, id: h.id, boot: fmt.Sprintf("%016x", h.lives), address: h.name + ":7355", dead: make(chan struct{}), ended: make(chan error, 1),
		changed: NewBroadcast(), wake: make(chan struct{}, 1), moves: make(chan simMove),
	}
	p.trans = &simTransport{proc: p, consumer: make(chan raft.RPC)}
	mem := h.store
	var booted atomic.Bool // a disk that hangs now would only be a later start
	defer booted.Store(true)
	mem.block = func() {
		if booted.Load() {
			p.wait(true)
		}
	}
	log := testlog.New(h.t, fmt.Sprintf("%s/%d", h.name, h.lives))
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	if h.raw {
		p.bootRaw(ctx, mem)
	} else {
		g, err := Open(Options{
			Name: state.DefaultGroup, Self: h.id, Log: log, Now: h.now, Heartbeat: h.cache.Heartbeat, Version: h.cache.Version,
			Sink: p, Inner: p.trans, Logs: mem, Stable: mem, Snapshots: h.snaps,
			Peers: simPeers{p}, Changed: p.changed, RaftLog: log, Order: h.order, between: h.between, Beats: h.beatsOf(p, log),
		})
		if err != nil {
			h.t.Fatal(err)
		}
		p.group, p.raft = g, g.raft
		// Small logs, so that snapshots are installed. Much smaller ones find a flaw
		// of Raft's: a follower whose log differs from its leader's in the very first
		// entry after an installed snapshot is sent that snapshot for ever.
		rc := g.raft.ReloadableConfig()
		rc.SnapshotThreshold, rc.SnapshotInterval, rc.TrailingLogs = 64, time.Second, 128
		if err := g.raft.ReloadConfig(rc); err != nil {
			h.t.Fatal(err)
		}
		var tasks sync.WaitGroup
		tasks.Go(func() { p.own(ctx) })
		tasks.Go(func() { p.followTiming(ctx) })
		if p.beats != nil {
			tasks.Go(func() { p.beats.Run(ctx) })
		}
		go func() {
			err := g.Run(ctx)
			tasks.Wait()
			p.ended <- err
		}()
	}
	h.net.mu.Lock()
	h.net.procs[p.address] = p
	h.net.mu.Unlock()
	h.proc = p
	return p
}

// bootRaw starts Raft alone: the holder is its leader.
func (p *simProc) bootRaw(ctx context.Context, mem *memStore) {
	h := p.host
	config := raftConfig(h.id, h.hb, false)
	config.Logger = raftlog.New(testlog.New(h.t, h.name))
	leading := make(chan bool, 16)
	config.NotifyCh = leading
	r, err := raft.NewRaft(config, newStateMachine(state.New(), p.changed, slog.New(slog.DiscardHandler)), mem, mem, h.snaps, p.trans)
	if err != nil {
		h.t.Fatal(err)
	}
	p.raft = r
	go func() {
		for ctx.Err() == nil {
			select {
			case yes := <-leading:
				d := time.Duration(0)
				if yes {
					d = 1 << 60
				}
				p.act(func() { h.setDeadline(d) })
			case <-ctx.Done():
			}
		}
		p.ended <- r.Shutdown().Error()
	}()
}

// kill is kill -9. The process's goroutines go on for a while, but nothing that
// they do reaches the network, the disk or the kernel.
func (h *simHost) kill() {
	p := h.proc
	h.mu.Lock()
	h.late = nil
	close(p.dead)
	h.mu.Unlock()
	h.thaw() // whoever waits finds itself dead
	h.freeDisk()
	h.store, h.snaps = h.store.clone(), h.snaps.clone()
	h.net.mu.Lock()
	delete(h.net.procs, p.address)
	h.net.mu.Unlock()
	h.proc, h.last = nil, p
	if h.raw {
		h.setDeadline(0)
	}
	h.gone.Go(func() {
		// Raft forgets what it was asked for in the moment of its shutdown, and the
		// goroutine that waits would be left. A dead leader has stepped down by then.
		time.Sleep(5 * h.hb)
		p.stop()
		if err := <-p.ended; err != nil {
			h.t.Errorf("%s: %v", h.name, err)
		}
	})
}

// wait returns when the process may go on, false if it is dead.
func (p *simProc) wait(disk bool) bool {
	for {
		select {
		case <-p.dead:
			return false
		default:
		}
		c := p.host.waits(disk)
		if c == nil {
			return true
		}
		select {
		case <-c:
		case <-p.dead:
			return false
		}
	}
}

func (p *simProc) awake() bool { return p.wait(false) }

// act does something to the kernel: now, when the process goes on, or, if it is
// dead, never.
func (p *simProc) act(f func()) {
	h := p.host
	h.mu.Lock()
	select {
	case <-p.dead:
		h.mu.Unlock()
		return
	default:
	}
	if h.thawed != nil {
		h.late = append(h.late, f)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	f()
}

// Renew implements LeaseSink, as the daemon does.
func (p *simProc) Renew(term uint64, until time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || p.term != term {
		p.notify()
		return
	}
	if until > p.deadline {
		p.store(until)
	}
}

// Revoke implements LeaseSink.
func (p *simProc) Revoke(term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open && p.term <= term {
		p.open = false
		p.store(0)
	}
	p.notify()
}

func (p *simProc) store(d time.Duration) {
	p.deadline = d
	p.act(func() { p.host.setDeadline(d) })
}

func (p *simProc) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *simProc) openGate(term uint64) {
	p.mu.Lock()
	if term < p.term || p.open && term == p.term {
		p.mu.Unlock()
		return
	}
	p.store(0)
	p.open, p.term = true, term
	p.mu.Unlock()
	p.group.RefreshLease()
}

func (p *simProc) shutGate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.open = false
		p.store(0)
	}
}

// followTiming does with the replicated state what Node.persist does.
func (p *simProc) followTiming(ctx context.Context) {
	for ctx.Err() == nil && p.wait(true) {
		changed := p.changed.Wait()
		if s := p.group.machine.state.Load(); s.Founded() {
			if !p.writeCache(store.Cache{Heartbeat: s.Heartbeat, Version: s.Version}) {
				return
			}
			p.group.SetTiming(s.Version, s.Heartbeat)
			p.reported.Store(s.Version)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// writeCache writes to the host's disk unless something newer is there; false if the
// process is dead.
func (p *simProc) writeCache(c store.Cache) bool {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	select {
	case <-p.dead:
		return false
	default:
	}
	if c.Version >= p.host.cache.Version {
		p.host.cache = c
	}
	return true
}

// own is the owner loop.
func (p *simProc) own(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil && p.awake() {
		changed := p.changed.Wait()
		next := time.Second
		s := p.group.Standing()
		if left := s.LeaseUntil - p.host.now(); s.Leading && left > 0 {
			p.openGate(s.Term)
			next = left + time.Millisecond
		} else {
			p.shutGate()
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
		case m := <-p.moves:
			if !p.awake() {
				m.done <- errDead
				return
			}
			if !m.unset {
				p.shutGate()
			}
			// What it says is not heeded: the hand-over has to be safe whatever is prepared.
			_ = p.group.Prepare(ctx, m.to)
			m.done <- p.group.Transfer(ctx, m.to, "simulation", false)
		case <-changed:
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// move asks for a hand-over.
func (p *simProc) move(to, address string, unset bool) {
	if p.group == nil {
		go func() {
			if p.awake() {
				p.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(address))
			}
		}()
		return
	}
	m := simMove{to, unset, make(chan error, 1)}
	go func() {
		select {
		case p.moves <- m:
		case <-p.dead:
		case <-time.After(time.Second):
		}
	}()
}
