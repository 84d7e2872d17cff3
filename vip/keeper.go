package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// ErrOwned is returned by WaitReleased while the group is to be owned.
var ErrOwned = errors.New("the group is to be owned")

// ErrBusy is returned by an Announcer whose queue is full: the same frame is to be
// sent a moment later.
var ErrBusy = errors.New("transmit queue is full")

// An Announcer sends one announcement of addr, which is on the link: a gratuitous
// ARP or an unsolicited neighbour advertisement. It must not block.
type Announcer interface {
	Announce(link Link, addr netip.Addr) error
}

// A Wanted is what a Holding is to bring about.
type Wanted struct {
	// Own: the addresses are to be on the kernel, as far as the gate is valid.
	// Otherwise none of them.
	Own bool
	// Term names the period of ownership. Another term means that someone else may
	// have owned the addresses in between, so that all are announced again.
	Term uint64
	// Addresses is the whole list, also while not owned. Of several with the same IP
	// and link the first counts.
	Addresses []Address
	// Schedule is for addresses without their own; the zero value means
	// DefaultSchedule.
	Schedule Schedule
}

// KeeperConfig is what NewKeeper needs.
type KeeperConfig struct {
	Host      Host
	Announcer Announcer
	// Guard must be the one that the gates of all Holdings write to; nil means NoGuard.
	Guard Guard
	// Logger may be nil.
	Logger *slog.Logger
	// Journal is shared by all Keepers of a Host; nil means none. It is used only if
	// the host does not keep marks.
	Journal *Journal
	// Hearing tells on which links announcements may be heard; nil means on all.
	Hearing Hearer
	// Lifetime is the lifetime of addresses on the kernel, in whole seconds; it is
	// started anew each third of it while the gate is valid. 0 means forever.
	Lifetime time.Duration
	// ReleaseWithin bounds the time that Run goes on trying to delete after its
	// context has ended. Default 5 s.
	ReleaseWithin time.Duration
	// Unguarded says why the guard cannot, or must not, silence an address that someone
	// else has configured on the link of that name; empty if it can. It must not block.
	// Nil means that it never can.
	Unguarded func(link string, addr netip.Addr) string
	// Now is the clock, nil means boottime.Now.
	Now func() time.Duration
}

// A Keeper makes the kernel match what its Holdings want: one for each Host and Guard.
// Run does all the work in one goroutine; the other methods may be called from any.
type Keeper struct {
	cfg  KeeperConfig
	now  func() time.Duration
	log  *slog.Logger
	kick chan struct{}
	// seq counts calls of Set of all Holdings. It is written under mu; the loop reads it
	// between two operations, so that a release never waits for a long list to be added,
	// be it another Holding's.
	seq atomic.Uint64

	mu       sync.Mutex
	holdings []*Holding // in the order of Hold
	held     int        // calls of Hold so far
	closing  bool       // Run is releasing for good
	stopped  bool       // Run has returned
	mirror   *mirror
	byIP     map[netip.Addr]*entry // of each address the entry that came last; see entry.next
	rivals   map[netip.Addr]bool   // addresses that are entries of several Holdings
	doubt    map[int]bool          // links whose addresses are to be announced again
	deletes  map[place]int         // our deletions whose event is still to come
	errs     map[string]error      // what is wrong, by part
	changed  chan struct{}         // nil: nobody has asked for it
	// reloading: the loop is listing the kernel's state; events are kept in missed to
	// be repeated on top of it. A Snapshot ends it.
	reloading bool
	missed    []Event
	behind    bool // the last Snapshot lacks an address that we put
	// adding: addresses are being added; overtaken: meanwhile something was removed,
	// which may be what the kernel has just added.
	adding, overtaken bool

	loop loopState // of the Run goroutine alone
}

// An entry is one address, wanted or still held. It is written by the Run
// goroutine, or an event, with mu held.
type entry struct {
	h      *Holding
	want   Address
	listed bool
	// next is another entry of the same address: on another link, or of another Holding,
	// which rival says.
	next  *entry
	rival bool
	// moved: it was another Holding's until now, so that it is to be announced.
	moved bool

	// placed: we put the address at at, as form, when spec was wanted, and it was not
	// removed since.
	placed bool
	at     place
	form   KernelAddress
	spec   Address
	// borrowed: someone else's address at at serves in place of ours.
	borrowed bool
	// requeuedAt is when it was last put behind the others' addresses of its link.
	requeuedAt time.Duration
	// around is what others' addresses mean for it, as of their version.
	around surroundings
	// lost: the address went away without our doing since it was placed.
	lost    bool
	lostWhy string
	// unlistedAt is when it was last taken from the list.
	unlistedAt time.Duration
	// foreign is someone else's copy on the wanted link, invalid if there is none; silent
	// says that the guard has an entry for it and works there.
	// mute is why the kernel does not use it.
	foreign netip.Prefix
	silent  bool
	mute    string
	// copyAt is where such a copy was seen last. It may be on a link that has another
	// name by now.
	copyAt place

	state State
	why   string
	since time.Duration
	// noGuard: it waits for the guard, not for the lease.
	noGuard bool

	lastErr error
	backoff time.Duration
	retryAt time.Duration // no attempt before
	// deleteFailures counts the failed attempts to delete since the last that worked;
	// more than 0 is StateRemoving.
	deleteFailures int

	secondAt      time.Duration // second burst, 0 for none
	echoFrom      time.Duration // the burst that echoes repeat began
	echo          int           // index of the next in echoes
	echoAt        time.Duration // next echo, 0 for none
	refreshAt     time.Duration // next refresh, 0 for none
	announced     uint64
	lastAnnounced time.Duration
	announceErr   error
	// announceFailures counts failed announcements in a row, the last at announceFailedAt.
	announceFailures int
	announceFailedAt time.Duration
	// defendAt is when a claim of another machine is to be answered, 0 for none; defended
	// counts the answers, the last was at defendedAt.
	defendAt   time.Duration
	defended   uint64
	defendedAt time.Duration
	busySince  time.Duration // 0: the last frame did not find the queue full
	readded    uint64
	readdedAt  time.Duration
	tug        tug
}

func (e *entry) ip() netip.Addr { return e.want.Prefix.Addr() }

// serves reports whether the address at e.at is to be announced.
func (e *entry) serves() bool { return e.placed || e.borrowed }

// NewKeeper returns a Keeper that wants nothing. It starts nothing.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Guard == nil {
		cfg.Guard = NoGuard{}
	}
	if cfg.Now == nil {
		cfg.Now = boottime.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ReleaseWithin <= 0 {
		cfg.ReleaseWithin = 5 * time.Second
	}
	if cfg.Lifetime > 0 {
		cfg.Lifetime = max(cfg.Lifetime.Round(time.Second), time.Second)
	}
	if cfg.Host.Marks() {
		cfg.Journal = nil
	}
	k := &Keeper{
		cfg:     cfg,
		now:     cfg.Now,
		log:     cfg.Logger,
		kick:    make(chan struct{}, 1),
		byIP:    map[netip.Addr]*entry{},
		rivals:  map[netip.Addr]bool{},
		doubt:   map[int]bool{},
		deletes: map[place]int{},
		errs:    map[string]error{},
		loop:    loopState{queue: newBurstQueue[*entry](), armed: map[netip.Addr]arming{}},
	}
	if cfg.Hearing != nil {
		cfg.Hearing.Tell(k.heard)
	}
	return k
}

// heard notes that another machine was heard on a link for the first time since it runs:
// what was announced before may have been swallowed.
func (k *Keeper) heard(link int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doubt[link] = true
	k.wake()
}

// Run does the work until ctx ends. It then deletes all addresses of all Holdings and
// returns nil, or an error naming what it could not delete in time. It must be
// called once.
func (k *Keeper) Run(ctx context.Context) error {
	// Changes are watched until the last address is gone.
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { k.watch(watchCtx) })
	defer func() {
		stop()
		wg.Wait()
		k.mu.Lock()
		k.stopped = true
		k.notifyAll()
		k.mu.Unlock()
	}()

	for ctx.Err() == nil {
		k.sleep(ctx, k.pass())
	}
	return k.finish()
}

// finish releases for good.
func (k *Keeper) finish() error {
	k.mu.Lock()
	for _, h := range k.holdings {
		w := h.wanted
		w.Own = false
		h.set(w)
	}
	k.closing = true
	k.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), k.cfg.ReleaseWithin)
	defer cancel()
	for {
		next := k.pass()
		k.mu.Lock()
		var held []string
		released := true
		for _, h := range k.holdings {
			released = released && h.released()
			held = append(held, h.present()...)
		}
		k.mu.Unlock()
		if released {
			return nil
		}
		if ctx.Err() != nil {
			k.log.Error("addresses are still on the kernel and will not be removed by this process", "vips", fewOf(held))
			return fmt.Errorf("release addresses within %v: still present: %s", k.cfg.ReleaseWithin, fewOf(held))
		}
		k.sleep(ctx, next)
	}
}

// never is the instant of something that is not to happen.
const never = time.Duration(1<<63 - 1)

// sleep waits until the instant at, for something to do, or for the end of ctx.
func (k *Keeper) sleep(ctx context.Context, at time.Duration) {
	var timeout <-chan time.Time
	if at != never {
		d := at - k.now()
		if d <= 0 {
			return
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-k.kick:
	case <-timeout:
	}
}

// wake makes the loop look again. It never blocks.
func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// notifyAll tells of a change that concerns every Holding. It is called with mu held.
func (k *Keeper) notifyAll() {
	for _, h := range k.holdings {
		h.notify()
	}
	k.notify()
}

// notify closes the channel of Changed. It is called with mu held.
func (k *Keeper) notify() {
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// Changed returns a channel that is closed at the next change that the Changed of some
// Holding tells.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.changed
}

// setErr records what is wrong with a part, nil for nothing, and logs changes.
func (k *Keeper) setErr(part string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if setErr(k.errs, part, err, k.log) {
		k.notifyAll()
	}
}

// setErr notes in errs what is wrong with a part, nil for nothing, and reports whether
// that is news, which is logged.
func setErr(errs map[string]error, part string, err error, log *slog.Logger) (news bool) {
	old := errs[part]
	if err == nil {
		if old == nil {
			return false
		}
		delete(errs, part)
		log.Info(part + " works again")
		return true
	}
	errs[part] = err
	if old != nil && old.Error() == err.Error() {
		return false
	}
	log.Error(part+" fails", "reason", err)
	return true
}
