package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/advertise"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// handOvers is how many groups a node hands over at a time.
const handOvers = 4

// A Daemon is one running raftvip.
type Daemon struct {
	settings Settings
	log      *slog.Logger
	started  time.Time
	begun    config.Raft // what the daemon was started with

	data    *store.DataDir
	node    *cluster.Node
	checks  *check.Checks
	host    *vip.Netlink
	sender  *vip.PacketAnnouncer
	guard   *guard.Guard
	journal *vip.Journal
	numbers guard.Numbers // of the gates
	keeper  *vip.Keeper   // has the addresses of all gates; nil on a witness
	hearing *vip.Hearing  // listens where addresses are placed
	links   *place.Links  // nil on a witness
	places  *place.Places // nil on a witness
	seats   seats
	turns   owner.Turns // of hand-overs
	told    told        // what this node says of itself
	// routing is what runs until the addresses are gone, histories until the cluster is left.
	routing, histories errgroup.Group
	plain              *vrrp.Plain     // nil on a witness
	claims             *operate.Claims // nil on a witness
	reached            []string        // HOST:PORT that others are given, and that is listened on
	socket             http.Handler

	leave context.CancelFunc

	reloading sync.Mutex // one reload at a time: the last one wins everywhere

	hints  hint.Reader
	quorum *operate.QuorumWatch
	server *operate.Server

	mu       sync.Mutex
	config   *config.Config
	path     string // of the configuration file, "" for none
	loadedAt time.Time
	reload   error // why the last reload changed nothing
	drifted  place.Drift
	// baseContent is what this node's file and the cluster last agreed on.
	baseContent place.Content

	watch *watchdog
}

// New builds a daemon: it reads the configuration, opens the data directory, the
// port, the guard and the control socket, and removes what an earlier run left.
// Nothing runs before Run. logger may be nil.
func New(s Settings, logger *slog.Logger) (_ *Daemon, err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	d := &Daemon{settings: s, log: logger, started: time.Now(), watch: newWatchdog(), seats: seats{all: make(map[string]*seat)}, turns: owner.NewTurns(handOvers)}
	d.quorum = operate.NewQuorumWatch(logger)
	if d.config, d.path, err = s.LoadConfig(); err != nil {
		return nil, err
	}
	d.loadedAt, d.begun = time.Now(), d.config.Raft
	for _, w := range d.config.Warnings {
		logger.Warn("configuration", "at", w.Pos.String(), "reason", w.Message)
	}
	if d.data, err = store.OpenDataDir(d.config.Raft.DataDir); err != nil {
		return nil, dataDirHint(err)
	}
	opened := d // a return with an error sets d to nil
	defer func() {
		if err != nil {
			opened.closeParts()
		}
	}()
	id, secret, err := ownIdentity(d.data, d.config)
	if errors.Is(err, store.ErrEmptyDataDir) && needsNoCluster(d.config) {
		return d, d.openStandalone()
	}
	if err != nil {
		return nil, err
	}
	if !id.Witness {
		if err := d.openKernel(d.config.Raft.Guard); err != nil {
			return nil, err
		}
	}
	cache, err := d.data.Cache()
	if err != nil {
		return nil, err
	}
	if d.baseContent, err = d.data.Base(); err != nil {
		return nil, err
	}
	reached, err := advertise.Address(id, d.config, cache.Addresses, place.FileAddresses(d.config))
	if err != nil {
		return nil, err
	}
	listen := advertise.Listen(id, d.config)
	d.reached = []string{reached, listen}
	nodeMux := http.NewServeMux()
	d.node, err = cluster.OpenNode(cluster.Options{
		DataDir: d.data, Identity: id, Secret: secret,
		Listen: listen, Advertise: reached,
		Peers: d.config.Raft.Peers, Heartbeat: d.config.Raft.HeartbeatTimeout, MinHeartbeat: minHeartbeat(d.lateness()), Lateness: d.lateness(),
		Content: func() []state.Instance { return place.InstancesOf(d.configuration()) },
		Order:   d.order,
		Sink:    d.sinkOf, Released: d.released,
		Bind:    place.Source(reached, d.isVirtual).Control,
		Handler: nodeMux, Log: logger.With("node", id.Name), RaftLog: logger.With("node", id.Name),
	})
	if err != nil {
		return nil, nodeHint(err)
	}
	d.checks = check.New(check.Config{Config: d.config, Logger: logger})
	d.openSeats()
	control := http.NewServeMux()
	d.openServer()
	d.server.Routes(nodeMux, control)
	d.socket = control
	return d, nil
}

// order ranks the nodes that may own in a group, by their latest hints, for the election
// after a leader was lost.
func (d *Daemon) order(group, lost string) []string {
	hints := hint.In(group, d.seen())
	connected := func(id string) bool { return id != lost }
	return policy.Rank(hint.Candidates(d.node.State(), group, "", hints, votes(d.node.SuffragesIn(group)), connected, false), "")
}

// openSeats makes what the seats share: the keeper, the routers of instances with "vrrp
// only", and what listens for claims. The default group's seat is there from the start.
func (d *Daemon) openSeats() {
	d.openKeeper()
	if d.host != nil {
		d.hearing.Tell(func(int) { d.look() })
		d.openPlain()
		d.claims = operate.NewClaims(operate.ClaimsConfig{
			Reached: d.reached, IsVirtual: d.isVirtual,
			Log: d.log, Keeper: d.keeper, Links: d.links, Member: d.memberOf, Took: d.took,
		})
	}
	d.openSeat(d.seats.get(state.DefaultGroup))
}

// took is when this node last began to own in a group.
func (d *Daemon) took() (at time.Duration) {
	for _, t := range d.seats.with() {
		if v := t.owner.View(); v.Owning {
			at = max(at, v.Since)
		}
	}
	return at
}

// openServer makes what answers operators and members.
func (d *Daemon) openServer() {
	c := operate.Config{
		Node: d.node, Data: d.data,
		Seats: d.operated, Hints: d.seats.get(state.DefaultGroup).advice, Describe: d.describe, Quorum: d.quorum,
		Places: d.places, Links: d.links, Claims: d.claims, Routers: d.virtualRouters, Checks: d.checks,
		File: d.configuration, FileStatus: d.configStatus, Reload: d.Reload, Leave: func() { d.leave() },
		Program: d.settings.Program, Started: d.started, Log: d.log,
	}
	if d.guard != nil {
		c.Guard = d.guard
	}
	d.server = operate.New(c)
}

// openKeeper makes the keeper of all gates' addresses; a witness has none.
func (d *Daemon) openKeeper() {
	if d.host == nil {
		return
	}
	d.journal = vip.NewJournal(d.journalPath())
	d.keeper = vip.NewKeeper(vip.KeeperConfig{
		Host: d.host, Announcer: d.sender, Guard: d.guard,
		Logger: d.log, Journal: d.journal, Lifetime: d.guard.AddressLifetime(), Unguarded: d.notToSilence, Hearing: d.hearing,
	})
}

// newGate makes a gate with a number of its own in the guard.
func (d *Daemon) newGate() (*vip.Gate, error) {
	number, err := d.numbers.Take()
	if err != nil {
		return nil, err
	}
	return vip.NewGate(d.vipGuard(), number, nil), nil
}

// freeGate gives the number of a gate back, whose Holding has been closed.
func (d *Daemon) freeGate(gate *vip.Gate) { d.numbers.Return(gate.Group()) }

// Run works until ctx ends, then releases, hands over, and returns. ready is
// called once everything listens and ownership has been looked at.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	defer d.closeParts()
	if d.node == nil {
		return d.runStandalone(ctx, ready)
	}
	ln, err := api.ListenSocket(d.config.Raft.Socket)
	if err != nil {
		return err
	}
	ctx, d.leave = context.WithCancel(ctx)
	defer d.leave()

	// The order of the end: ownership is released and handed over first, while
	// everything still works; then the addresses are confirmed gone; then the
	// cluster is left; the guard goes last.
	ownerCtx := ctx
	keeperCtx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeper()
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()

	// A part that fails ends the daemon in the same order.
	var failures errs
	part := func(name string, f func() error) func() error {
		return func() error {
			if err := f(); err != nil {
				failures.add(fmt.Errorf("%s: %w", name, err))
			}
			d.leave()
			return nil
		}
	}
	var owners, keepers, nodes errgroup.Group
	nodes.Go(part("cluster", func() error { return d.node.Run(nodeCtx) }))
	nodes.Go(part("control socket", func() error { return api.Serve(nodeCtx, ln, d.socket) }))
	nodes.Go(part("base", func() error { d.followBase(nodeCtx); return nil }))
	nodes.Go(part("quorum", func() error { d.server.WatchQuorum(nodeCtx); return nil }))
	if d.keeper != nil {
		keepers.Go(part("addresses", func() error { return d.keeper.Run(keeperCtx) }))
		keepers.Go(part("claims", func() error { return d.claims.Run(keeperCtx) }))
		keepers.Go(part("hearing", func() error { return d.hearing.Run(keeperCtx, d.host) }))
		keepers.Go(part("interfaces", func() error { d.links.Run(keeperCtx); return nil }))
		keepers.Go(part("guard", func() error { return d.guard.Run(keeperCtx) }))
	}
	if d.plain != nil {
		owners.Go(part("vrrp only", func() error { return d.plain.Run(ownerCtx) }))
	}
	owners.Go(part("checks", func() error { return d.checks.Run(ownerCtx) }))
	owners.Go(part("owner", func() error { return d.keepSeats(ownerCtx, keeperCtx, nodeCtx) }))
	owners.Go(part("ready", func() error {
		d.announceReady(ownerCtx, ready)
		<-ownerCtx.Done()
		return nil
	}))

	owners.Wait()
	sdNotify(sd.SdNotifyStopping)
	stopKeeper()
	keepers.Wait()
	_ = d.routing.Wait() // nil: failures were told
	stopNode()
	nodes.Wait()
	_ = d.histories.Wait() // nil
	return failures.join()
}

// announceReady tells systemd and the caller when the loop has turned once.
func (d *Daemon) announceReady(ctx context.Context, ready func()) {
	for d.seats.get(state.DefaultGroup).owner.View().LastTurn == 0 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	sdNotify(sd.SdNotifyReady)
	if ready != nil {
		ready()
	}
}

// closeParts closes what New opened. The fields stay: a request whose connection
// was cut may still be looking at them, and then gets an error.
func (d *Daemon) closeParts() {
	if d.guard != nil {
		if err := d.guard.Close(); err != nil {
			d.log.Error("cannot detach the guard", "error", err)
		}
	}
	if d.sender != nil {
		d.sender.Close()
	}
	if d.host != nil {
		d.host.Close()
	}
	if d.data != nil {
		d.data.Close()
	}
}

func (d *Daemon) configuration() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

// record queues an entry of a group's history; it never blocks the owner.
func (d *Daemon) record(t *seat, m state.Move) {
	select {
	case t.moves <- m:
	default:
		d.log.Error("history entry lost: the queue is full", "to", m.To, "reason", m.Reason)
	}
}

// writeHistory commits a group's queued entries while this node leads it.
func (d *Daemon) writeHistory(ctx context.Context, t *seat) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-t.moves:
			g := d.node.Group(t.id)
			if g == nil {
				return // it has ended
			}
			bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := g.Apply(bounded, state.Command{At: time.Now(), Move: &m})
			cancel()
			if err != nil {
				d.log.Warn("cannot record a move", "to", m.To, "reason", m.Reason, "error", err)
			}
		}
	}
}

// describe adds what the daemon knows to this node's hint.
func (d *Daemon) describe(h *hint.Hint) {
	h.Program = d.settings.Program
	d.mu.Lock()
	h.Drift = d.driftLocked()
	if d.reload != nil {
		h.ConfigError = d.reload.Error()
	}
	d.mu.Unlock()
	if d.guard != nil {
		h.Guard = string(d.guard.Kind())
	}
	h.VRRP = d.routersHere()
	h.Claims, h.Twins = d.claims.Hints(), d.claims.TwinHints()
	h.MACs, h.Fronts = d.places.Hardware()
	if d.hearing != nil {
		h.Settling = d.hearing.Settling()
	}
}

func dataDirHint(err error) error {
	if errors.Is(err, store.ErrDataDirInUse) {
		return api.WithHint(err, "a daemon runs with this data dir; name another one with --data-dir")
	}
	return err
}

func nodeHint(err error) error {
	var used *cluster.PortInUseError
	var moved *store.OtherMachineError
	switch {
	case errors.As(err, &used):
		return api.WithHint(err, "choose another address with listen in the raft block, or find who has it with: ss -ltnp")
	case errors.As(err, &moved):
		return api.WithHint(err, `if its node runs nowhere else any more: raftvip node move-here; else join this machine as a node of its own, with an empty data dir`)
	case errors.Is(err, store.ErrRolledBack):
		return api.WithHint(err, `this node must not vote under its old identity: move the data dir away and come back with "raftvip join --replace" (with peers and secret_file, just start it)`)
	case errors.Is(err, store.ErrLogLost):
		return api.WithHint(err, `this node must not vote under its old identity: move the data dir away and come back with "raftvip join --replace" (with peers and secret_file, just start it)`)
	}
	return err
}

// errs gathers errors from several goroutines.
type errs struct {
	mu  sync.Mutex
	all []error
}

func (e *errs) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

func (e *errs) join() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.all...)
}
