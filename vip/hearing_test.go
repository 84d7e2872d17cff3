package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// air is where the listeners of a test hear something.
type air struct {
	mu        sync.Mutex
	listening map[int]chan struct{}
	failures  int
}

func (a *air) listen(ctx context.Context, l Link, ask netip.Addr) error {
	a.mu.Lock()
	if a.failures > 0 {
		a.failures--
		a.mu.Unlock()
		return errors.New("not permitted")
	}
	ch := make(chan struct{})
	a.listening[l.Index] = ch
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.listening, l.Index)
		a.mu.Unlock()
	}()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *air) links() (out []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.listening {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

func (a *air) frame(link int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.listening[link])
}

// eventHost is a Host of which only the events count.
type eventHost struct {
	Host
	sink chan func(Event)
}

func (h eventHost) Watch(ctx context.Context, sink func(Event)) error {
	h.sink <- sink
	<-ctx.Done()
	return nil
}

func TestHearing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &air{listening: map[int]chan struct{}{}}
		start := time.Now()
		h := NewHearing(nil)
		h.listen, h.now = a.listen, func() time.Duration { return time.Since(start) }
		var told []int
		h.Tell(func(link int) { told = append(told, link) })
		host := eventHost{sink: make(chan func(Event), 1)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx, host) }()
		sink := <-host.sink
		link := func(i int, running bool) Link {
			return Link{Index: i, Name: fmt.Sprintf("eth%d", i), MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, Up: true, Running: running}
		}
		step := 0
		expect := func(listening []int, heard map[int]bool, settling string, tells ...int) {
			t.Helper()
			step++
			synctest.Wait()
			if got := a.links(); !slices.Equal(got, listening) {
				t.Errorf("step %d: listening on %v, want %v", step, got, listening)
			}
			for i, want := range heard {
				if got := h.Heard(i); got != want {
					t.Errorf("step %d: eth%d heard: %v", step, i, got)
				}
			}
			if got := h.Settling(); got != settling {
				t.Errorf("step %d: settling %q, want %q", step, got, settling)
			}
			if !slices.Equal(told, tells) {
				t.Errorf("step %d: told of %v, want %v", step, told, tells)
			}
			told = nil
		}
		const up0 = "has heard nobody yet on eth0, which has just come up"

		sink(Event{Kind: Snapshot, Links: []Link{link(0, true), link(1, true), {Index: 2, Name: "tun0", Up: true, Running: true}}})
		expect(nil, map[int]bool{0: true, 1: true, 2: true, 9: true}, "") // nobody asks
		h.Follow(map[string]netip.Addr{"eth0": netip.MustParseAddr("10.0.0.5"), "tun0": netip.MustParseAddr("10.0.0.6"), "eth9": {}})
		expect([]int{0}, map[int]bool{0: false, 1: true, 2: true}, up0)
		a.frame(0)
		expect(nil, map[int]bool{0: true}, "", 0)

		// Down and up again: nothing that was heard before counts.
		sink(Event{Kind: LinkChanged, Link: link(0, false)})
		expect(nil, map[int]bool{0: false}, up0) // it may be up again, and that event late
		time.Sleep(time.Minute)
		sink(Event{Kind: LinkChanged, Link: link(0, true)})
		expect([]int{0}, map[int]bool{0: false}, up0)
		time.Sleep(Settle)
		expect([]int{0}, map[int]bool{0: false}, "") // it is a silent network
		a.frame(0)
		expect(nil, map[int]bool{0: true}, "", 0)

		// Somebody else has seen it begin to run.
		h.Forget(0)
		expect([]int{0}, map[int]bool{0: false}, up0)
		sink(Event{Kind: LinkRemoved, Link: link(0, false)})
		expect(nil, map[int]bool{0: true}, up0)

		// It cannot be listened for at first.
		a.failures = 2
		sink(Event{Kind: LinkChanged, Link: link(0, true)})
		expect(nil, map[int]bool{0: false}, up0)
		time.Sleep(2 * time.Second)
		expect([]int{0}, map[int]bool{0: false}, up0)
		h.Follow(nil)
		expect(nil, map[int]bool{0: true}, "")
		h.Follow(map[string]netip.Addr{"eth0": {}})
		expect([]int{0}, map[int]bool{0: false}, "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
