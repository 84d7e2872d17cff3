package vip

import (
	"net/netip"
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
	items map[T]*burstItem[T] // those with some left
	turn  int
}

type burstLane[T comparable] struct {
	fresh []*burstItem[T] // not announced yet in this burst
	again []*burstItem[T]
	live  int           // items of the two with some left
	at    time.Duration // no frame before this instant
}

type burstItem[T comparable] struct {
	x    T
	gap  time.Duration
	left int // 0 for one that was dropped and is passed over
	lane *burstLane[T]
}

func newBurstQueue[T comparable]() *burstQueue[T] {
	return &burstQueue[T]{byKey: map[lane]*burstLane[T]{}, items: map[T]*burstItem[T]{}}
}

// start asks for n announcements of x. An x that has some left already gets no
// more than n in all, so that several reasons at once do not add up.
func (q *burstQueue[T]) start(l lane, x T, n int, gap time.Duration) {
	if n <= 0 {
		return
	}
	if it := q.items[x]; it != nil {
		it.left = max(it.left, n)
		return
	}
	bl := q.byKey[l]
	if bl == nil {
		bl = &burstLane[T]{}
		q.byKey[l] = bl
		q.lanes = append(q.lanes, bl)
	}
	it := &burstItem[T]{x: x, gap: gap, left: n, lane: bl}
	bl.fresh = append(bl.fresh, it)
	bl.live++
	q.items[x] = it
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
		it := bl.take(freshOnly)
		if it == nil {
			continue
		}
		bl.at = now + it.gap
		if it.left--; it.left > 0 {
			bl.again = append(bl.again, it)
		} else {
			q.forget(it)
		}
		return it.x, true
	}
	return x, false
}

// take takes the next item off the lane, or returns nil.
func (bl *burstLane[T]) take(freshOnly bool) *burstItem[T] {
	for _, list := range []*[]*burstItem[T]{&bl.fresh, &bl.again} {
		for len(*list) > 0 {
			it := (*list)[0]
			*list = (*list)[1:]
			if it.left > 0 {
				return it
			}
		}
		if freshOnly {
			break
		}
	}
	return nil
}

// forget removes an item that is in no list, or is to be passed over.
func (q *burstQueue[T]) forget(it *burstItem[T]) {
	it.left = 0
	it.lane.live--
	delete(q.items, it.x)
}

// pause keeps the lane silent until at and asks for x once more: the frame could
// not be sent just now.
func (q *burstQueue[T]) pause(l lane, x T, gap, at time.Duration) {
	n := 1
	if it := q.items[x]; it != nil {
		n += it.left
	}
	q.start(l, x, n, gap)
	if bl := q.byKey[l]; bl != nil {
		bl.at = at
	}
}

// wake returns the instant of the next announcement, and false if none is left.
func (q *burstQueue[T]) wake() (at time.Duration, ok bool) {
	for _, bl := range q.lanes {
		if bl.live > 0 && (!ok || bl.at < at) {
			at, ok = bl.at, true
		}
	}
	return at, ok
}

// drop forgets the announcements of x.
func (q *burstQueue[T]) drop(x T) {
	if it := q.items[x]; it != nil {
		q.forget(it)
	}
}

// dropAll forgets the announcements of all of xs.
func (q *burstQueue[T]) dropAll(xs []T) {
	if len(q.items) == 0 {
		return
	}
	for _, x := range xs {
		q.drop(x)
	}
	if len(q.items) == 0 {
		for _, bl := range q.lanes {
			bl.fresh, bl.again, bl.live = nil, nil, 0
		}
	}
}
