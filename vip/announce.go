package vip

import (
	"errors"
	"net/netip"
	"time"
)

// busyPause is the time after which a frame is tried again that found the transmit
// queue full.
const busyPause = time.Millisecond

// busyMax is how long a queue is believed to be full.
const busyMax = time.Second

// schedule returns the announcement schedule of e. It is called with mu held.
func (k *Keeper) schedule(e *entry) Schedule {
	for _, s := range []Schedule{e.want.Schedule, e.h.wanted.Schedule} {
		if s != (Schedule{}) {
			return s
		}
	}
	return DefaultSchedule()
}

// echoes are the instants after a burst at which it is repeated, one announcement
// each, as long as nothing has been heard on the link: a port that does not forward
// yet swallows the burst, and forwards after 30 s at the latest by default.
var echoes = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}

// echoing sets when the next echo is due after i of them. It is called with mu held.
func (k *Keeper) echoing(e *entry, i int) {
	e.echo, e.echoAt = i, 0
	if i < len(echoes) && k.cfg.Hearing != nil && !k.cfg.Hearing.Heard(e.at.link) {
		e.echoAt = e.echoFrom + echoes[i]
	}
}

// burst starts a burst for e, with a second one to follow if again is set. It is
// called with mu held.
func (k *Keeper) burst(e *entry, now time.Duration, again bool) {
	s := k.schedule(e)
	k.announceTimes(e, s.Repeat)
	e.secondAt, e.refreshAt = 0, 0
	if again && s.Delay > 0 {
		e.secondAt = now + s.Delay
	}
	if again {
		e.echoFrom = now
		k.echoing(e, 0)
	}
	if s.Refresh > 0 {
		e.refreshAt = now + s.Refresh
	}
}

// announceTimes queues n announcements of e. It is called with mu held.
func (k *Keeper) announceTimes(e *entry, n int) {
	l := k.mirror.links[e.at.link]
	if l == nil || !l.announceable() {
		return
	}
	if !l.Running {
		// A burst follows as soon as it runs.
		e.announceErr = errors.New("interface " + l.Name + " is down")
		return
	}
	k.loop.queue.start(laneOf(e.at.link, e.ip()), e, n, k.schedule(e).gap(e.ip()))
}

// sendDue sends the announcements that are due, with freshOnly only the first of
// each address. It looks at the wanted state and at the gate before each frame, and
// reports whether it stopped because Set was called.
func (k *Keeper) sendDue(freshOnly bool, seq uint64) (stale bool) {
	q := k.loop.queue
	for {
		if k.seq.Load() != seq {
			return true
		}
		now := k.now()
		e, ok := q.next(now, freshOnly)
		if !ok {
			return false
		}
		k.mu.Lock()
		l := k.mirror.links[e.at.link]
		var link Link
		if l != nil {
			link = l.Link
		}
		gap := k.schedule(e).gap(e.ip())
		placed := e.serves()
		k.mu.Unlock()
		if !placed || l == nil {
			q.drop(e)
			continue
		}
		if !e.h.gate.Valid(k.now()) {
			q.drop(e)
			continue
		}
		err := k.cfg.Announcer.Announce(link, e.ip())
		if errors.Is(err, ErrBusy) && !k.busyTooLong(e, now) {
			q.pause(laneOf(e.at.link, e.ip()), e, gap, now+busyPause)
			continue
		}
		k.mu.Lock()
		k.announced(e, err, now)
		k.mu.Unlock()
	}
}

// defendInterval is the least time between two announcements that answer another
// machine's claim of an address (RFC 5227 2.4 c, DEFEND_INTERVAL).
const defendInterval = 10 * time.Second

// Serves reports whether addr is on the link with that index by the Keeper's doing, is
// to be announced, and may be now.
func (k *Keeper) Serves(link int, addr netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.serving(link, addr)
	return e != nil && e.h.gate.Valid(k.now())
}

// serving is called with mu held.
func (k *Keeper) serving(link int, addr netip.Addr) *entry {
	if k.mirror == nil {
		return nil
	}
	l := k.mirror.links[link]
	if l == nil {
		return nil
	}
	for e := k.byIP[addr]; e != nil; e = e.next {
		if e.h.wanted.Own && e.want.Link == l.Name && e.serves() && e.at.link == link {
			return e
		}
	}
	return nil
}

// Defend answers another machine's claim of an address that the Keeper serves: by one
// announcement, and not more often than each 10 s for one address, however many claims
// there are. It never blocks.
func (k *Keeper) Defend(link int, addr netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.serving(link, addr)
	if e == nil || e.defendAt > 0 {
		return
	}
	e.defendAt = k.now()
	if e.defended > 0 {
		e.defendAt = max(e.defendAt, e.defendedAt+defendInterval)
	}
	k.wake()
}

// Failed announcements are tried again by a new burst after announceRetry, twice that
// and so on, up to announceRetryMax. That announceTold of them have failed in a row, or
// do not any more, is told as a change.
const (
	announceRetry    = 100 * time.Millisecond
	announceRetryMax = 5 * time.Second
	announceTold     = 3
)

// announceAgain notes a failed announcement and when the next burst is due. The
// frames of one burst count as one. It is called with mu held.
func (k *Keeper) announceAgain(e *entry, now time.Duration) {
	if e.announceFailures > 0 && now-e.announceFailedAt < announceRetry/2 {
		return
	}
	e.announceFailures++
	e.announceFailedAt = now
	at := now + min(announceRetry<<min(e.announceFailures-1, 10), announceRetryMax)
	if e.secondAt == 0 || at < e.secondAt {
		e.secondAt = at
	}
	k.loop.announceAt = min(k.loop.announceAt, e.secondAt)
	if e.announceFailures == announceTold {
		e.h.notify()
	}
}

// busyTooLong reports whether the queue has had no room for e for so long that it is
// no queue that is full: what drops the frames of a packet socket (tc, nftables) looks
// the same.
func (k *Keeper) busyTooLong(e *entry, now time.Duration) bool {
	if e.busySince == 0 {
		e.busySince = now
	}
	return now-e.busySince >= busyMax
}

// announced notes the outcome of one announcement. A frame that cannot be sent is
// not repeated by itself; another burst is. It is called with mu held.
func (k *Keeper) announced(e *entry, err error, now time.Duration) {
	if err != nil {
		e.h.counters.AnnounceErrors++
		if e.announceErr == nil || e.announceErr.Error() != err.Error() {
			e.h.log.Warn("address not announced", "vip", e.ip(), "link", e.want.Link, "reason", err)
		}
		e.announceErr = err
		k.announceAgain(e, now)
		return
	}
	if e.announceFailures >= announceTold {
		e.h.notify()
	}
	e.announceErr, e.announceFailures, e.busySince = nil, 0, 0
	e.announced++
	e.lastAnnounced = now
	if e.ip().Is4() {
		e.h.counters.Announced4++
	} else {
		e.h.counters.Announced6++
	}
}
