package group

import (
	"fmt"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

// fault makes one fault, most often where it hurts: at the leader.
func (s *sim) fault() {
	type kind struct {
		name   string
		weight int
		do     func(h *simHost)
	}
	kinds := []kind{
		{"cut", 10, s.cutLinks},
		{"delay", 14, s.delayLinks},
		{"loss", 5, s.loseMessages},
		{"freeze", 12, s.freeze},
		{"restart", 12, s.restart},
		{"forgetful", 8, s.forgetful},
		{"wipe", 2, s.wipe},
		{"transfer", 14, s.transfer},
		{"late-transfer", 10, s.lateTransfer},
		{"frozen-transfer", 6, s.frozenTransfer},
		{"member", 3, s.member},
		{"disk", 5, s.disk},
		{"heartbeat", 5, s.heartbeat},
	}
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	h := s.hosts[s.rng.IntN(len(s.hosts))]
	if l := s.leader(); l != nil && s.rng.IntN(3) > 0 {
		h = l
	}
	n := s.rng.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			s.stats.faults++
			s.stats.kinds[k.name]++
			k.do(h)
			s.check()
			return
		}
	}
}

// span draws a duration of up to so many heartbeat timeouts, more often short.
func (s *sim) span(heartbeats float64) time.Duration {
	x := s.rng.Float64()
	return time.Duration(x * x * heartbeats * float64(s.hb))
}

// others calls f for the hosts other than h, for each with the chance p.
func (s *sim) others(h *simHost, p float64, f func(o *simHost)) {
	for _, o := range s.hosts {
		if o != h && s.rng.Float64() < p {
			f(o)
		}
	}
}

// alter changes links and has them heal later.
func (s *sim) alter(from, to *simHost, d time.Duration, f func(*simLink)) {
	s.net.change(from.name, to.name, f)
	s.after(d, func() { s.net.change(from.name, to.name, (*simLink).heal) })
}

func (s *sim) cutLinks(h *simHost) {
	d, keep := s.span(12), s.rng.IntN(2) == 0
	p := []float64{0.4, 1}[s.rng.IntN(2)]
	in, out := s.rng.IntN(3) > 0, s.rng.IntN(3) > 0
	s.note("cut %s in=%v out=%v keep=%v p=%v for %v", h.name, in, out, keep, p, d)
	s.others(h, p, func(o *simHost) {
		if in || !out {
			s.alter(o, h, d, func(l *simLink) { l.cut(keep) })
		}
		if out {
			s.alter(h, o, d, func(l *simLink) { l.cut(keep) })
		}
	})
}

func (s *sim) delayLinks(h *simHost) {
	d, delay := s.span(12), s.span(4)
	in, out := s.rng.IntN(3) > 0, s.rng.IntN(2) > 0
	s.note("delay %s in=%v out=%v by up to %v for %v", h.name, in, out, delay, d)
	s.others(h, 0.8, func(o *simHost) {
		if in || !out {
			s.alter(o, h, d, func(l *simLink) { l.delay = delay })
		}
		if out {
			s.alter(h, o, d, func(l *simLink) { l.delay = delay })
		}
	})
}

func (s *sim) loseMessages(h *simHost) {
	d, loss := s.span(12), s.rng.Float64()
	s.note("lose %.2f of messages of %s for %v", loss, h.name, d)
	s.others(h, 0.8, func(o *simHost) {
		s.alter(o, h, d, func(l *simLink) { l.loss = loss })
		s.alter(h, o, d, func(l *simLink) { l.loss = loss })
	})
}

func (s *sim) freeze(h *simHost) {
	d := s.span(8)
	s.note("freeze %s for %v", h.name, d)
	h.freeze()
	s.after(d, h.thaw)
}

func (s *sim) restart(h *simHost) {
	if h.proc == nil {
		return
	}
	d := s.span(4)
	if s.rng.IntN(2) == 0 {
		d = time.Millisecond
	}
	s.note("kill %s, start after %v", h.name, d)
	h.kill()
	s.after(d, func() { s.note("start %s", h.name); h.boot() })
}

// forgetful restarts voters that a leader, cut off from the rest, depends on.
func (s *sim) forgetful(*simHost) {
	h := s.leader()
	if h == nil {
		return
	}
	d := 2*s.hb + s.span(6)
	var kept []*simHost
	for _, i := range s.rng.Perm(len(s.hosts)) {
		switch o := s.hosts[i]; {
		case o == h:
		case len(kept) < len(s.hosts)/2:
			kept = append(kept, o)
		default:
			s.note("cut %s from %s for %v", h.name, o.name, d)
			s.alter(h, o, d, func(l *simLink) { l.cut(false) })
		}
	}
	for range 3 {
		s.advance(s.hb/2 + s.span(1))
		o := kept[s.rng.IntN(len(kept))]
		late := s.span(1.5)
		s.alter(h, o, d, func(l *simLink) { l.delay = late })
		if o.proc != nil {
			s.note("kill and start %s", o.name)
			o.kill()
			o.boot()
		}
	}
}

// wipe loses a disk. The host comes back as a new node, as the product does. More
// than one at a time would lose the cluster, which no lease can help.
func (s *sim) wipe(h *simHost) {
	s.mu.Lock()
	stable := s.stable && len(s.want) == len(s.hosts) // of two voters none may be lost
	s.mu.Unlock()
	if h.proc == nil || !stable {
		s.restart(h)
		return
	}
	d := s.span(4)
	s.note("kill %s, lose its disk, start after %v", h.name, d)
	h.kill()
	s.wanted(h, false)
	h.store, h.snaps = newMemStore(), &memSnapshots{}
	h.mu.Lock()
	h.cache = store.Cache{Heartbeat: state.HeartbeatSetting{Current: s.hb, Previous: s.hb}}
	h.mu.Unlock()
	h.id = fmt.Sprintf("%s.%d", h.name, h.lives)
	s.wanted(h, true)
	s.after(d, func() { s.note("start %s", h.id); h.boot() })
}

func (s *sim) transfer(*simHost) {
	h := s.leader()
	if h == nil {
		return
	}
	to := s.hosts[s.rng.IntN(len(s.hosts))]
	unset := s.rng.IntN(3) == 0
	s.note("transfer from %s to %s, unset=%v", h.name, to.name, unset)
	h.proc.move(to.id, to.name+":7355", unset)
}

// lateTransfer is a transfer while the old leader hears the others late.
func (s *sim) lateTransfer(*simHost) {
	h := s.leader()
	if h == nil {
		return
	}
	d, delay := s.span(8), s.span(6)
	s.note("delay to %s by up to %v for %v", h.name, delay, d)
	s.others(h, 1, func(o *simHost) { s.alter(o, h, d, func(l *simLink) { l.delay = delay }) })
	s.transfer(h)
	if s.rng.IntN(2) == 0 {
		s.advance(s.span(1))
		s.restart(s.hosts[s.rng.IntN(len(s.hosts))])
	}
}

// frozenTransfer is a transfer with somebody frozen or gone in the middle of it.
func (s *sim) frozenTransfer(*simHost) {
	h := s.hosts[s.rng.IntN(len(s.hosts))]
	s.transfer(h)
	s.advance(s.span(0.1))
	if s.rng.IntN(2) == 0 {
		s.freeze(h)
	} else {
		s.restart(h)
	}
	s.advance(s.span(2))
	s.transfer(h)
}

func (s *sim) member(h *simHost) {
	s.mu.Lock()
	ok := s.stable && len(s.want) == len(s.hosts)
	s.mu.Unlock()
	if !ok {
		return
	}
	d := s.span(40)
	s.note("remove %s, add it after %v", h.id, d)
	s.wanted(h, false)
	id := h.id
	s.after(d, func() {
		if h.id == id {
			s.wanted(h, true)
		}
	})
}

func (s *sim) disk(h *simHost) {
	d := s.span(8)
	s.note("disk of %s hangs for %v", h.name, d)
	h.hangDisk()
	s.after(d, h.freeDisk)
}

// heartbeat changes the heartbeat timeout, up or down.
func (s *sim) heartbeat(*simHost) {
	d := s.hb
	if s.rng.IntN(3) > 0 {
		d = time.Duration([]float64{0.2, 0.5, 1.5, 3, 5}[s.rng.IntN(5)] * float64(s.hb))
	}
	s.note("heartbeat timeout %v", d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wantHB = max(d, 20*time.Millisecond)
}
