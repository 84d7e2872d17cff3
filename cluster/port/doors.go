package port

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds on what connections may hold that have shown nothing yet. Anybody who can
// reach the port can open them, so a stranger's cost is bounded in all and by source,
// and what is said of strangers does not touch the addresses of members.
const (
	// HandshakeTimeout bounds how long an unauthenticated connection may exist.
	HandshakeTimeout = 5 * time.Second

	// strangerHandshakes and strangerPerSource are the handshakes that may be under way
	// from addresses that are no member's; memberHandshakes and memberPerSource, from
	// those of members.
	strangerHandshakes = 48
	strangerPerSource  = 8
	memberHandshakes   = 128
	memberPerSource    = 64

	// A handshake costs a signature: strangers get so many in a second.
	strangerRate, strangerBurst = 100, 100
	sourceRate, sourceBurst     = 20, 20

	// JoinConns and joinPerSource are the join connections that may be open.
	JoinConns     = 32
	joinPerSource = 4
	// JoinReadTimeout bounds the time for a newcomer's request to arrive, JoinTimeout
	// that until it is answered: the leader may have to be asked.
	JoinReadTimeout = 5 * time.Second
	JoinTimeout     = 20 * time.Second
	// MaxJoinBody and MaxJoinHeader bound a newcomer's request in bytes.
	MaxJoinBody   = 16 << 10
	MaxJoinHeader = 4 << 10

	// Joins that fail are for typing errors. GuessRate and GuessBurst are those of one
	// source, AllGuessRate and AllGuessBurst those of all.
	GuessRate, GuessBurst       = 0.5, 10
	AllGuessRate, AllGuessBurst = 5, 50

	// maxSources bounds how many sources are remembered.
	maxSources = 1024
)

// sourceOf returns whom a connection counts for: an IPv4 address or an IPv6 /64, as
// whoever has one address of that has all of them.
func sourceOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() && !ip.IsLinkLocalUnicast() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // an invalid address is the source of all of its kind
	return p
}

// addrOf returns the IP address of a connection's end.
func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// A place is what one connection holds of a bounded number.
type place struct {
	in     *places
	source netip.Prefix
	seq    uint64
	evict  func()
}

// places are a bounded number of places for connections. A newcomer is never turned
// away for want of one: the oldest connection of the most crowded source goes, so that
// connections which do nothing keep nobody out.
type places struct {
	total, perSource int

	mu    sync.Mutex
	seq   uint64
	count int
	held  map[netip.Prefix][]*place // oldest first
}

func newPlaces(total, perSource int) *places {
	return &places{total: total, perSource: perSource, held: make(map[netip.Prefix][]*place)}
}

// take gives a place to a connection; evict is called if it has to go.
func (p *places) take(source netip.Prefix, evict func()) *place {
	p.mu.Lock()
	var out *place
	switch {
	case len(p.held[source]) >= p.perSource:
		out = p.held[source][0]
	case p.count >= p.total:
		out = p.crowdedLocked()
	}
	if out != nil {
		p.dropLocked(out)
	}
	p.seq++
	pl := &place{in: p, source: source, seq: p.seq, evict: evict}
	p.held[source] = append(p.held[source], pl)
	p.count++
	p.mu.Unlock()
	if out != nil {
		out.evict()
	}
	return pl
}

// crowdedLocked returns the oldest place of the source that has most; of several such
// sources, the oldest of all.
func (p *places) crowdedLocked() *place {
	var out *place
	most := 0
	for _, list := range p.held {
		if n := len(list); n > most || n == most && list[0].seq < out.seq {
			out, most = list[0], n
		}
	}
	return out
}

func (p *places) dropLocked(pl *place) bool {
	list := p.held[pl.source]
	for i, other := range list {
		if other != pl {
			continue
		}
		if len(list) == 1 {
			delete(p.held, pl.source)
		} else {
			p.held[pl.source] = append(append([]*place{}, list[:i]...), list[i+1:]...)
		}
		p.count--
		return true
	}
	return false
}

// leave gives a place back. It may be called more than once, and on nil.
func (pl *place) leave() {
	if pl == nil {
		return
	}
	pl.in.mu.Lock()
	defer pl.in.mu.Unlock()
	pl.in.dropLocked(pl)
}

// A budget lets something happen at a rate per second, and a burst of it at once.
type budget struct {
	rate, burst float64
	spent       float64
	at          time.Time
}

func (b *budget) refill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.spent = max(b.spent-d.Seconds()*b.rate, 0)
		b.at = now
	}
}

func (b *budget) left(now time.Time) bool {
	b.refill(now)
	return b.spent+1 <= b.burst
}

func (b *budget) spend(now time.Time) {
	b.refill(now)
	b.spent = min(b.spent+1, b.burst)
}

// A Limiter bounds how often something happens by source and in all.
type Limiter struct {
	rate, burst float64
	// exempt: a source that has not spent anything is not held to the bound of all,
	// or one that spends it all would shut everybody else out.
	exempt bool

	mu      sync.Mutex
	all     budget
	sources map[netip.Prefix]*budget
}

func NewLimiter(rate, burst, allRate, allBurst float64, exempt bool) *Limiter {
	return &Limiter{rate: rate, burst: burst, exempt: exempt, all: budget{rate: allRate, burst: allBurst}, sources: make(map[netip.Prefix]*budget)}
}

// Allows tells whether the source may do it once more.
func (l *Limiter) Allows(source netip.Prefix, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.sources[source]
	if known && !b.left(now) {
		return false
	}
	fresh := !known || b.spent == 0
	return l.all.left(now) || l.exempt && fresh && (known || len(l.sources) < maxSources)
}

// Spend counts it.
func (l *Limiter) Spend(source netip.Prefix, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.spend(now)
	b, known := l.sources[source]
	if !known {
		if len(l.sources) >= maxSources {
			maps.DeleteFunc(l.sources, func(_ netip.Prefix, b *budget) bool { b.refill(now); return b.spent == 0 })
		}
		if len(l.sources) >= maxSources {
			return // the bound of all holds for them
		}
		b = &budget{rate: l.rate, burst: l.burst}
		l.sources[source] = b
	}
	b.spend(now)
}

type connKey struct{}

// LeaveDoor gives the place of the newcomer's connection that a request came by to
// another one: whoever was asked who may, may take time.
func LeaveDoor(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*Conn); ok {
		c.at.leave()
	}
}

// CallerFrom returns where the newcomer's connection that a request came by is from: the
// source that it is counted under, and the host.
func CallerFrom(ctx context.Context) (source netip.Prefix, host string) {
	c, ok := ctx.Value(connKey{}).(*Conn)
	if !ok {
		return netip.Prefix{}, ""
	}
	return sourceOf(addrOf(c.RemoteAddr())), hostOf(c.RemoteAddr())
}
