package vip

import (
	"net/netip"
	"slices"
	"time"
)

// A lane is what one gap (garp_interval, gna_interval) is kept on: a link and a
// family.
type lane struct {
	link int
	is6  bool
}

func laneOf(link int, addr netip.Addr) lane { return lane{link: link, is6: addr.Is6()} }

// A burstQueue holds the announcements that are still to be sent, in the order in
// which they go out: the first of every address before the second of any (round
// robin), lanes taking turns, gaps kept per lane. It is pure: it takes now and
// sends nothing.
type burstQueue[T comparable] struct {
	lanes []*burstLane[T]
	byKey map[lane]*burstLane[T]
	left  map[T]int
	turn  int
}

type burstLane[T comparable] struct {
	fresh []burstItem[T] // not announced yet in this burst
	again []burstItem[T]
	at    time.Duration // no frame before this instant
}

type burstItem[T comparable] struct {
	x   T
	gap time.Duration
}

func newBurstQueue[T comparable]() *burstQueue[T] {
	return &burstQueue[T]{byKey: map[lane]*burstLane[T]{}, left: map[T]int{}}
}

// start asks for n announcements of x. An x that has some left already gets no
// more than n in all, so that several reasons at once do not add up.
func (q *burstQueue[T]) start(l lane, x T, n int, gap time.Duration) {
	if n <= 0 {
		return
	}
	if have, ok := q.left[x]; ok {
		q.left[x] = max(have, n)
		return
	}
	bl := q.byKey[l]
	if bl == nil {
		bl = &burstLane[T]{}
		q.byKey[l] = bl
		q.lanes = append(q.lanes, bl)
	}
	bl.fresh = append(bl.fresh, burstItem[T]{x, gap})
	q.left[x] = n
}

// next takes the next announcement to be sent at now, and false if there is none.
// With freshOnly it leaves repetitions for later.
func (q *burstQueue[T]) next(now time.Duration, freshOnly bool) (x T, ok bool) {
	for range q.lanes {
		bl := q.lanes[q.turn%len(q.lanes)]
		q.turn++
		if now < bl.at {
			continue
		}
		var it burstItem[T]
		switch {
		case len(bl.fresh) > 0:
			it, bl.fresh = bl.fresh[0], bl.fresh[1:]
		case len(bl.again) > 0 && !freshOnly:
			it, bl.again = bl.again[0], bl.again[1:]
		default:
			continue
		}
		bl.at = now + it.gap
		if q.left[it.x]--; q.left[it.x] > 0 {
			bl.again = append(bl.again, it)
		} else {
			delete(q.left, it.x)
		}
		return it.x, true
	}
	return x, false
}

// pause keeps the lane silent until at and asks for x once more: the frame could
// not be sent just now.
func (q *burstQueue[T]) pause(l lane, x T, gap, at time.Duration) {
	q.start(l, x, q.left[x]+1, gap)
	if bl := q.byKey[l]; bl != nil {
		bl.at = at
	}
}

// wake returns the instant of the next announcement, and false if none is left.
func (q *burstQueue[T]) wake() (at time.Duration, ok bool) {
	for _, bl := range q.lanes {
		if len(bl.fresh)+len(bl.again) > 0 && (!ok || bl.at < at) {
			at, ok = bl.at, true
		}
	}
	return at, ok
}

// drop forgets the announcements of x.
func (q *burstQueue[T]) drop(x T) {
	if _, ok := q.left[x]; !ok {
		return
	}
	delete(q.left, x)
	is := func(it burstItem[T]) bool { return it.x == x }
	for _, bl := range q.lanes {
		bl.fresh = slices.DeleteFunc(bl.fresh, is)
		bl.again = slices.DeleteFunc(bl.again, is)
	}
}

// clear forgets all announcements.
func (q *burstQueue[T]) clear() {
	if len(q.left) == 0 {
		return
	}
	clear(q.left)
	for _, bl := range q.lanes {
		bl.fresh, bl.again = nil, nil
	}
}
