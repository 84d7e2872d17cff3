package vrrpnet

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// apply does what the machine wants. Losing the mastership comes before everything
// else, in whatever order the machine names it: while an advertisement that says so
// is under way, nothing may answer here any more.
func (r *Router) apply(actions []vrrpcompat.Action) {
	for _, a := range actions {
		if a, ok := a.(vrrpcompat.BecomeBackup); ok {
			r.becomeBackup(a.Reason)
		}
	}
	for _, a := range actions {
		switch a := a.(type) {
		case vrrpcompat.SendAdvertisement:
			r.advertise(a.Priority)
		case vrrpcompat.BecomeMaster:
			r.becomeMaster(a.Reason)
		case vrrpcompat.Announce:
			r.stat.Announcements++
			r.notify()
		}
	}
}

func (r *Router) becomeMaster(reason string) {
	r.stat.Masters++
	r.enter(reason)
}

func (r *Router) becomeBackup(reason string) {
	r.stat.Until = 0
	r.sink.Backup(reason)
	r.enter(reason)
}

// enter notes the state that the machine is in now.
func (r *Router) enter(reason string) {
	from, to := r.stat.State, r.m.State()
	r.stat.Reason = reason
	if from == to {
		return
	}
	r.stat.State, r.stat.Since = to, boottime.Now()
	r.say(slog.LevelInfo, "VRRP state changed", "from", from.String(), "to", to.String(), "priority", r.m.Priority(), "reason", reason)
	r.notify()
}

// advertise sends an advertisement now.
func (r *Router) advertise(priority uint8) {
	if r.conn == nil {
		return // there is no way to say it
	}
	// Before it is sent: a router that hears it counts from later.
	now := boottime.Now()
	sent, err := r.conn.Send(advertisement(r.expect, priority), r.expect.Checksum)
	r.stat.Sent += uint64(sent)
	if err != nil {
		failed := len(r.conn.Destinations()) - sent
		r.stat.NotSent += uint64(failed)
		if errors.Is(err, ErrQueueFull) {
			r.stat.QueueFull += uint64(failed)
		}
		if r.stat.SendError == nil {
			r.say(slog.LevelWarn, "VRRP advertisement not sent", "error", err)
		}
		r.poke(r.look) // the interface may be another one
	}
	r.stat.SendError = err
	if sent == 0 && err != nil {
		return
	}
	r.said = said{at: now, priority: priority, ok: true}
	if r.m.State() == vrrpcompat.Master && priority != vrrpcompat.PriorityLeaving {
		r.stat.Until = now + time.Duration(r.machine.DownTimerAdverts)*r.machine.Interval
		r.sink.Renew(r.stat.Until)
	}
}

// maxBatch bounds how much is looked at before the timer has its turn. It is more
// than the socket's queue holds, so that all that waited is looked at.
const maxBatch = 1024

// receiveAll takes all that has arrived. What follows from it is done when all of it
// has been seen, and once: after a pause of this process a hundred advertisements
// may wait, of which the last is from a better master, and none but the last is
// worth an answer. Only the loss of the mastership does not wait.
func (r *Router) receiveAll() {
	var pending []vrrpcompat.Action
	for range maxBatch {
		if r.conn == nil {
			return
		}
		d, ok, err := r.conn.next()
		if err != nil {
			r.poke(r.look)
		}
		if err != nil || !ok {
			break
		}
		now := boottime.Now()
		if a, ok := r.check(now, d); ok {
			before := r.other()
			actions := r.m.Receive(now, a, d.Source)
			if after := r.other(); after != before {
				r.notify()
			}
			pending = coalesce(pending, r.lose(actions))
		}
	}
	r.apply(pending)
}

// lose does what must not wait, and returns all actions: what came before the loss
// is known by it. Telling the Sink twice is harmless, but not needed.
func (r *Router) lose(actions []vrrpcompat.Action) []vrrpcompat.Action {
	for _, a := range actions {
		if a, ok := a.(vrrpcompat.BecomeBackup); ok {
			r.becomeBackup(a.Reason)
		}
	}
	return actions
}

// coalesce adds to the actions that are still to be done those that come next. What
// a master wanted before it lost is not done, and nothing is done twice. The loss
// itself has been done.
func coalesce(pending, next []vrrpcompat.Action) []vrrpcompat.Action {
	isLoss := func(a vrrpcompat.Action) bool { _, ok := a.(vrrpcompat.BecomeBackup); return ok }
	if slices.ContainsFunc(next, isLoss) {
		pending = nil
	}
	for _, a := range next {
		if !isLoss(a) && !slices.Contains(pending, a) {
			pending = append(pending, a)
		}
	}
	return pending
}

// other is the other master, as far as a change of it is worth telling.
func (r *Router) other() Speaker {
	addr, priority, interval, _, _ := r.m.Master()
	return Speaker{Addr: addr, Priority: priority, Interval: interval}
}

// check counts a packet and notes what is wrong with it; ok tells whether it is for
// the machine.
func (r *Router) check(now time.Duration, d vrrpcompat.Datagram) (a vrrpcompat.Advertisement, ok bool) {
	a, drop := r.expect.Check(d)
	if drop != vrrpcompat.DropNone {
		r.counters.Count(drop)
		switch drop {
		case vrrpcompat.DropAddressOwner:
			return a, false // it is as it should be
		case vrrpcompat.DropOwn:
			r.note(now, Note{Reason: r.own(now, d), Sender: d.Source, Dropped: true})
		default:
			r.note(now, Note{Reason: drop.String(), Sender: d.Source, Detail: detail(d, drop), Dropped: true})
		}
		return a, false
	}
	differences := r.expect.Mismatches(a)
	r.counters.Count(drop, differences...)
	for _, m := range differences {
		r.note(now, Note{Reason: m.String(), Sender: d.Source, Detail: mismatchDetail(a, m)})
	}
	return a, true
}

// own tells our own advertisement, which a network may bring back, from that of
// another router with our address: we must have sent one with this priority lately.
func (r *Router) own(now time.Duration, d vrrpcompat.Datagram) string {
	if r.said.ok && now-r.said.at < r.machine.Interval/2 && len(d.Payload) > 2 && d.Payload[2] == r.said.priority {
		return ReasonLooped
	}
	return ReasonSameAddress
}

func (r *Router) note(now time.Duration, n Note) {
	if !r.notes.add(now, n) {
		return
	}
	r.say(slog.LevelWarn, "odd VRRP packet", "reason", n.Reason, "sender", n.Sender.String(), "detail", n.Detail, "dropped", n.Dropped)
	r.notify()
}
