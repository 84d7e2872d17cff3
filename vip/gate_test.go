package vip

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// storeGuard remembers the deadline as the kernel would see it.
type storeGuard struct {
	NoGuard
	mu       sync.Mutex
	deadline time.Duration
	stores   int
}

func (g *storeGuard) SetDeadline(_ uint32, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = d
	g.stores++
}

func (g *storeGuard) get() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline
}

func TestGate(t *testing.T) {
	type op struct {
		do    string
		term  uint64
		until time.Duration
		ok    bool
		want  time.Duration // stored deadline afterwards
	}
	tests := []struct {
		name string
		ops  []op
	}{
		{"renewals before the first open are ignored", []op{
			{do: "renew", term: 1, until: 150},
		}},
		{"open alone stores no deadline", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
		}},
		{"the deadline only moves forward", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
			{do: "renew", term: 1, until: 140, want: 150},
			{do: "renew", term: 1, until: 150, want: 150},
			{do: "renew", term: 1, until: 160, ok: true, want: 160},
		}},
		{"a renewal after shut is ignored", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
			{do: "shut"},
			{do: "renew", term: 1, until: 160},
		}},
		{"a renewal of an older or a later term is ignored", []op{
			{do: "open", term: 2, ok: true},
			{do: "renew", term: 1, until: 150},
			{do: "renew", term: 3, until: 150},
		}},
		{"another term starts from nothing", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
			{do: "open", term: 2, ok: true},
			{do: "renew", term: 2, until: 140, ok: true, want: 140},
		}},
		{"opening the open term again keeps the deadline", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
			{do: "open", term: 1, ok: true, want: 150},
		}},
		{"the same term may be opened again after shut", []op{
			{do: "open", term: 1, ok: true},
			{do: "shut"},
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 150, ok: true, want: 150},
		}},
		{"an older term is refused", []op{
			{do: "open", term: 2, ok: true},
			{do: "shut"},
			{do: "open", term: 1},
			{do: "renew", term: 1, until: 150},
		}},
		{"a thawed process stores the past, and is not valid", []op{
			{do: "open", term: 1, ok: true},
			{do: "renew", term: 1, until: 50, ok: true, want: 50},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Duration(100)
			g := &storeGuard{deadline: -1}
			gate := NewGate(g, 7, func() time.Duration { return now })
			if g.get() != 0 {
				t.Fatalf("NewGate stored %d, want 0", g.get())
			}
			for i, o := range tt.ops {
				ok := o.ok
				switch o.do {
				case "open":
					ok = gate.Open(o.term)
				case "renew":
					ok = gate.Renew(o.term, o.until)
				case "shut":
					gate.Shut()
				}
				if ok != o.ok || g.get() != o.want || gate.Deadline() != o.want {
					t.Fatalf("op %d %+v: ok %v, stored %d, Deadline %d", i, o, ok, g.get(), gate.Deadline())
				}
				if valid := gate.Valid(now); valid != (o.want > now) {
					t.Fatalf("op %d %+v: Valid %v", i, o, valid)
				}
			}
		})
	}
}

// A renewal in flight must not re-open the gate: whatever the other goroutines do,
// after Shut has returned the stored deadline is 0 until the next Open.
func TestGateShutAgainstRenewals(t *testing.T) {
	g := &storeGuard{}
	gate := NewGate(g, 1, func() time.Duration { return 1 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var until sync.Mutex
	next := time.Duration(10)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				until.Lock()
				next++
				u := next
				until.Unlock()
				gate.Renew(uint64(1+rand.IntN(4)), u)
			}
		})
	}
	for range 3000 {
		gate.Open(uint64(1 + rand.IntN(4)))
		gate.Shut()
		for range 5 {
			if d := g.get(); d != 0 {
				t.Errorf("deadline %d stored after Shut", d)
			}
			if gate.Valid(1) {
				t.Error("valid after Shut")
			}
		}
	}
	close(stop)
	wg.Wait()
}

func TestGateSignalsOnlyTurningValid(t *testing.T) {
	now := time.Duration(100)
	gate := NewGate(nil, 1, func() time.Duration { return now })
	signals := 0
	gate.onValid(func() { signals++ })
	signalled := func() bool {
		n := signals
		signals = 0
		return n > 0
	}
	gate.Open(1)
	if signalled() {
		t.Error("signalled by Open")
	}
	gate.Renew(1, 150)
	if !signalled() {
		t.Error("not signalled by the first renewal")
	}
	gate.Renew(1, 160)
	if signalled() {
		t.Error("signalled by a renewal of a valid lease")
	}
	now = 170
	gate.Renew(1, 180)
	if _, n := gate.state(now); !signalled() || n != 2 {
		t.Errorf("not signalled after a lapse, or %d openings, want 2", n)
	}
}
