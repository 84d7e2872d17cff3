package vrrpnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vrrpcompat"
)

const (
	// retryOpen is how often a router without a socket tries to get one, besides
	// whenever the kernel says that something has changed.
	retryOpen = time.Second
	// lookPause is the least time between two looks at the interface: a host that
	// starts a hundred containers changes links all the time.
	lookPause = 20 * time.Millisecond
)

// pauseAfter returns how long not to look after this error, even if something
// changes. An attempt that came as far as changing something is what was notified.
func pauseAfter(err error) time.Duration {
	if err == nil || errors.Is(err, ErrNoInterface) || errors.Is(err, ErrNoSource) {
		return lookPause
	}
	return retryOpen
}

// Run runs the router until ctx ends, and returns when it is silent, its sockets are
// closed and its virtual MAC interface is removed. A master then has told the Sink
// first and the other routers, with priority 0, after that. An interface that cannot
// be used is waited for. The error is about what could not be undone at the end. A
// Router can be run once.
func (r *Router) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	tasks.Go(func() { watch(ctx, func() { r.poke(r.look) }) })
	tasks.Go(func() { r.beat(ctx) })
	var kept *vmac
	tasks.Go(func() { kept = r.mind(ctx, &tasks) })
	<-ctx.Done()

	r.mu.Lock()
	r.apply(r.leave(boottime.Now(), "stopped"))
	r.closed = true
	r.down = errors.New("stopped")
	conn := r.conn
	r.conn = nil
	r.notify()
	r.unlock()
	if conn != nil {
		conn.closeSockets() // ends its reader
	}
	tasks.Wait()
	if kept != nil {
		// Last, as a master's virtual addresses were on it until the Sink was told.
		return kept.close(r.opts)
	}
	return nil
}

// beat calls the machine whenever its timer has run out.
//
// A late timer is no proof that nobody spoke. The process may have been frozen, or
// the machine suspended, and the kernel has kept what arrived meanwhile. So before
// the timer counts, all of that is looked at, in one go under the lock that the
// reader needs as well: a master that a better one has replaced becomes Backup
// without another advertisement, and a Backup whose master did speak waits on. The
// clock is CLOCK_BOOTTIME, which goes on in suspend. The runtime's timers do not,
// but the first packet that arrives wakes the reader.
func (r *Router) beat(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.mu.Lock()
		at, ticking := r.m.Deadline()
		if ticking && at <= boottime.Now() {
			r.receiveAll()
			other := r.other()
			r.apply(r.m.Expire(boottime.Now()))
			if r.other() != other {
				r.notify()
			}
			at, ticking = r.m.Deadline()
		}
		r.unlock()
		timer.Stop()
		if ticking {
			timer.Reset(at - boottime.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// read receives from one Conn until it is closed.
func (r *Router) read(ctx context.Context, c *Conn) {
	for {
		// It waits without taking anything: whoever has the lock takes all that there is,
		// so that nothing has been taken and not been looked at when the timer runs out.
		err := c.wait(ctx)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		r.mu.Lock()
		if r.conn != c {
			r.unlock()
			return
		}
		r.receiveAll()
		if err != nil {
			r.poke(r.look)
		}
		r.unlock()
		r.poke(r.wake)
		if err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(lookPause):
			}
		}
	}
}

// mind keeps the router supplied with a Conn for as long as the interface can be
// used, and takes the machine to Initialize while there is none. It alone asks the
// kernel, which may take its time, and holds the lock only for what comes of it. It
// returns the virtual MAC that is left.
func (r *Router) mind(ctx context.Context, tasks *sync.WaitGroup) (kept *vmac) {
	var conn *Conn
	for {
		var err error
		if conn != nil {
			err = conn.check(r.options())
			if errors.Is(err, ErrMoved) || errors.Is(err, ErrNoInterface) || errors.Is(err, ErrNoSource) {
				r.release(conn, err)
				conn.closeSockets()
				conn = nil
			}
			// Any other error is of the question, not of the interface: ask again.
		}
		if conn == nil && ctx.Err() == nil {
			if conn, kept, err = open(r.options(), kept); err == nil {
				if !r.install(conn) {
					conn.closeSockets()
					return kept
				}
				tasks.Go(func() { r.read(ctx, conn) })
			} else {
				r.without(err)
			}
		}
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(retryOpen)
		}
		select {
		case <-ctx.Done():
			return kept
		case <-retry:
		case <-r.look:
			select {
			case <-ctx.Done():
				return kept
			case <-time.After(pauseAfter(err)):
			}
		}
	}
}

// install has the router use a Conn, unless it has ended.
func (r *Router) install(c *Conn) bool {
	r.mu.Lock()
	defer r.unlock()
	if r.closed {
		return false
	}
	r.conn, r.down = c, nil
	r.m.SetSource(c.Source())
	r.expect.Source = c.Source()
	r.said = said{}
	r.say(slog.LevelInfo, "VRRP socket open", "interface", c.Interface(), "source", c.Source().String(), "destinations", fmt.Sprint(c.Destinations()))
	r.notify()
	if r.m.State() == vrrpcompat.Master {
		// Only the source address has changed: the others are to know the new one before
		// they miss the old.
		r.advertise(r.m.Priority())
	}
	r.apply(r.start(boottime.Now()))
	r.poke(r.wake)
	return true
}

// release takes the Conn away from the router. If another can be opened at once, the
// machine goes on: it is the same router with another address.
func (r *Router) release(c *Conn, why error) {
	r.mu.Lock()
	defer r.unlock()
	if r.conn == c {
		r.conn = nil
	}
	if !errors.Is(why, ErrMoved) {
		r.lost(why)
	}
}

// without notes that there is no Conn to be had.
func (r *Router) without(why error) {
	r.mu.Lock()
	defer r.unlock()
	if !r.closed {
		r.lost(why)
	}
}

func (r *Router) lost(why error) {
	if r.down == nil || r.down.Error() != why.Error() {
		r.down = why
		r.say(slog.LevelWarn, "VRRP socket not open", "error", why)
		r.notify()
	}
	r.apply(r.leave(boottime.Now(), why.Error()))
}
