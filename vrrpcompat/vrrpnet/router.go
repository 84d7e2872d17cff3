package vrrpnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// A Sink is told synchronously, by the goroutine that learnt of it, what the owner
// of the addresses must not learn late. Its methods must not block, and must not
// call the Router.
type Sink interface {
	// Renew says that an advertisement was sent: no router that heard it and has the
	// same timing takes over before until, by CLOCK_BOOTTIME, unless it is a better
	// one. An owner that is silent from then on, whatever became of this process,
	// does not answer beside its successor. It may be called while the owner does not
	// know yet that this router is master.
	Renew(until time.Duration)
	// Backup says that this router is not master (any more), also when it was not
	// before. It returns when nothing answers. The other routers are told only after
	// that.
	Backup(reason string)
}

// Config describes a Router. What several parts of it need is given once: the
// version, the interval and the priority in Machine; VRID, family and group in
// Options; addresses, authentication, form of the checksum and peers in Expect.
// Source addresses are those of the socket.
type Config struct {
	Options Options
	Machine vrrpcompat.MachineConfig
	Expect  vrrpcompat.Expect
	Sink    Sink         // nil: nobody
	Log     *slog.Logger // nil: nowhere
}

// A Router runs one virtual router: a [vrrpcompat.Machine] over a [Conn]. It
// starts in Initialize and leaves it while it has a socket. Its methods may be
// called from several goroutines, before and during Run; none of them waits for
// the network.
type Router struct {
	opts    Options
	machine vrrpcompat.MachineConfig // as configured
	sink    Sink
	log     *slog.Logger
	wake    chan struct{} // cap 1: the deadline may have changed
	look    chan struct{} // cap 1: the interface may have changed

	mu       sync.Mutex
	m        *vrrpcompat.Machine
	expect   vrrpcompat.Expect
	conn     *Conn // nil while there is none
	down     error
	off      bool // Shutdown was called
	closed   bool // Run has ended
	changed  chan struct{}
	counters vrrpcompat.Counters
	notes    notes
	lines    []line
	said     said
	stat     Status // State, Since, Reason and counts; see Status()
}

// said is the last advertisement that we sent.
type said struct {
	at       time.Duration
	priority uint8
	ok       bool
}

// NewRouter returns a router that does nothing until Run. The error lists all that
// is wrong with the configuration.
func NewRouter(c Config) (*Router, error) {
	o, e, m := c.Options, c.Expect, c.Machine
	o.Peers = nil
	for _, p := range e.Peers {
		o.Peers = append(o.Peers, p.Address)
	}
	if slices.Contains(e.Addresses.Addresses, o.Source) {
		return nil, fmt.Errorf("%w: source %v: must not be a virtual address", errOptions, o.Source)
	}
	o, err := o.ready()
	errs := []error{err}
	if m.Version != vrrpcompat.V2 && m.Version != vrrpcompat.V3 || m.Version == vrrpcompat.V2 && o.IPv6 {
		errs = append(errs, fmt.Errorf("%w: version %d: must be 2 or 3, and 3 for IPv6", errOptions, m.Version))
	} else if err := vrrpcompat.ValidInterval(m.Version, m.Interval); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", errOptions, err))
	}
	if m.Priority == 0 {
		errs = append(errs, fmt.Errorf("%w: priority 0: must be 1 to 255", errOptions))
	}
	if m.DownTimerAdverts <= 0 {
		m.DownTimerAdverts = vrrpcompat.DefaultDownTimerAdverts
	}
	e.VRID, e.IPv6, e.Group, e.Version, e.Interval = o.VRID, o.IPv6, o.Group, m.Version, m.Interval
	if err := validAddresses(e, o.IPv6); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r := &Router{
		opts: o, machine: m, expect: e, sink: c.Sink, log: c.Log,
		wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		m: vrrpcompat.NewMachine(m), changed: make(chan struct{}),
		down: errors.New("not started"),
	}
	if r.sink == nil {
		r.sink = deaf{}
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.log = r.log.With("vrid", o.VRID)
	r.stat.Since, r.stat.Reason = boottime.Now(), "not started"
	return r, nil
}

// deaf is the Sink of nobody.
type deaf struct{}

func (deaf) Renew(time.Duration) {}
func (deaf) Backup(string)       {}

// validAddresses finds out by encoding it whether an advertisement can have what is
// configured.
func validAddresses(e vrrpcompat.Expect, ipv6 bool) error {
	if vrrpcompat.ValidInterval(e.Version, e.Interval) != nil || e.VRID == 0 {
		return nil // said already
	}
	any := netip.IPv4Unspecified()
	if ipv6 {
		any = netip.IPv6Unspecified()
	}
	if _, err := advertisement(e, 1).Append(nil, any, any, e.Checksum); err != nil {
		return fmt.Errorf("%w: %w", errOptions, err)
	}
	return nil
}

// advertisement is what a router that is configured for e sends.
func advertisement(e vrrpcompat.Expect, priority uint8) vrrpcompat.Advertisement {
	return vrrpcompat.Advertisement{
		Version: e.Version, VRID: e.VRID, Priority: priority, Interval: e.Interval,
		Addresses: e.Addresses.Addresses, AuthType: e.AuthType, Auth: e.Auth,
	}
}

// Changed returns a channel that is closed at the next change of what Status
// returns, other than counts and times. Take it before calling Status: then no
// change is missed, however slow the reader is.
func (r *Router) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Status returns the present state.
func (r *Router) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stat
	s.Priority, s.Entitled = r.m.Priority(), r.m.Entitled()
	if addr, priority, interval, heardAt, ok := r.m.Master(); ok {
		s.Other = &Speaker{Addr: addr, Priority: priority, Interval: interval, HeardAt: heardAt}
	}
	if addr, since, count, ok := r.m.Duplicate(boottime.Now()); ok {
		s.Duplicate = &Duplicate{Addr: addr, Since: since, Count: count}
	}
	s.Down = r.down
	if c := r.conn; c != nil {
		s.Interface, s.VMAC, s.Source, s.Destinations = c.Interface(), c.VMAC(), c.Source(), c.Destinations()
	}
	s.Received, s.Notes = r.counters, slices.Clone(r.notes)
	return s
}

// SetPriority changes the priority, 1 to 255.
func (r *Router) SetPriority(p uint8) {
	r.step(func(now time.Duration) []vrrpcompat.Action {
		if p != r.m.Priority() {
			r.notify()
		}
		return r.m.SetPriority(now, p)
	})
}

// SetFellows tells the addresses from which members of our own cluster advertise.
func (r *Router) SetFellows(addrs []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m.SetFellows(addrs)
}

// SetAddresses changes the virtual addresses that are advertised and expected. The
// error says why they cannot be; then nothing changes.
func (r *Router) SetAddresses(addrs []netip.Addr) error {
	if slices.Contains(addrs, r.opts.Source) {
		return fmt.Errorf("%w: source %v: must not be a virtual address", errOptions, r.opts.Source)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.expect
	e.Addresses.Addresses = slices.Clone(addrs)
	if err := validAddresses(e, e.IPv6); err != nil {
		return err
	}
	r.expect = e
	r.poke(r.look)
	return nil
}

// options returns the options with the virtual addresses of now.
func (r *Router) options() Options {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.opts
	o.Virtual = slices.Concat(o.Virtual, r.expect.Addresses.Addresses)
	return o
}

// Entitle tells a hybrid router that Raft has made this node the owner; fellow that
// the master heard last is known to be a member of our cluster. See
// vrrpcompat.Machine.Entitle.
func (r *Router) Entitle(fellow bool) {
	r.step(func(now time.Duration) []vrrpcompat.Action {
		if !r.m.Entitled() {
			r.notify()
		}
		r.receiveAll() // who is master, as of now
		return r.m.Entitle(now, fellow)
	})
}

// Disentitle tells a hybrid router that this node is not the owner any more;
// handedOver that a member of our cluster takes over now. When it returns the Sink
// has been told and the last advertisement, if there has to be one, is sent.
func (r *Router) Disentitle(handedOver bool) {
	r.step(func(now time.Duration) []vrrpcompat.Action {
		if r.m.Entitled() {
			r.notify()
		}
		return r.m.Disentitle(now, handedOver)
	})
}

// Shutdown leaves the election until Startup: a master says so with priority 0,
// after the Sink has been told.
func (r *Router) Shutdown() {
	r.step(func(now time.Duration) []vrrpcompat.Action {
		r.off = true
		return r.leave(now, "shut down")
	})
}

// Startup undoes Shutdown.
func (r *Router) Startup() {
	r.step(func(now time.Duration) []vrrpcompat.Action {
		r.off = false
		return r.start(now)
	})
}

// step does one thing to the machine and what follows from it.
func (r *Router) step(f func(now time.Duration) []vrrpcompat.Action) {
	r.mu.Lock()
	defer r.unlock()
	if r.closed {
		return
	}
	r.apply(f(boottime.Now()))
	r.poke(r.wake)
}

// start takes the machine out of Initialize if there is a reason to.
func (r *Router) start(now time.Duration) []vrrpcompat.Action {
	if r.off || r.closed || r.conn == nil {
		return nil
	}
	return r.m.Startup(now)
}

// leave takes the machine to Initialize.
func (r *Router) leave(now time.Duration, reason string) []vrrpcompat.Action {
	if r.m.State() == vrrpcompat.Initialize {
		return nil
	}
	actions := r.m.Shutdown(now)
	for i, a := range actions {
		if _, ok := a.(vrrpcompat.BecomeBackup); ok {
			actions[i] = vrrpcompat.BecomeBackup{Reason: reason}
		}
	}
	r.enter(reason)
	return actions
}

func (r *Router) poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has not been seen yet, and will be
	}
}

// notify tells those who wait on Changed.
func (r *Router) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// A line is a line for the log, which is written without the lock: a log that is
// slow to take it must not hold the router up.
type line struct {
	level slog.Level
	text  string
	args  []any
}

func (r *Router) say(level slog.Level, text string, args ...any) {
	r.lines = append(r.lines, line{level, text, args})
}

func (r *Router) unlock() {
	lines := r.lines
	r.lines = nil
	r.mu.Unlock()
	for _, l := range lines {
		r.log.Log(context.Background(), l.level, l.text, l.args...)
	}
}
