package owner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// Revoke returns when the kernel is shut, also where somebody else has shut the gate
// before and is waiting for the kernel himself.
func TestRevokeWaitsForTheKernel(t *testing.T) {
	for name, before := range map[string]func(oneGate){
		"open":              func(oneGate) {},
		"shut by the owner": func(g oneGate) { go g.Shut() },
	} {
		kernel := &viptest.Guard{}
		gate := oneGate{vip.NewGate(kernel, 1, nil)}
		gate.Open(3)
		gate.Renew(3, boottime.Now()+time.Hour)
		var shut atomic.Bool
		obeys := make(chan struct{})
		kernel.OnSettle(func(uint32) { <-obeys })
		before(gate)
		for _, open := gate.Term(); open && name != "open"; _, open = gate.Term() {
			time.Sleep(time.Millisecond)
		}
		time.AfterFunc(30*time.Millisecond, func() { shut.Store(true); close(obeys) })
		NewSink(gate, 0).Revoke(3)
		if !shut.Load() {
			t.Errorf("%s: revoked while the kernel still answers", name)
		}
	}
}

// Where no guard silences the addresses, Revoke waits until they are deleted, and no
// longer than the lease lasts.
func TestRevokeWaitsForTheDeletion(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lease time.Duration
		says  []error // what release returns, in turn; the last for ever
		calls int32
		waits bool // until the end of the lease
	}{
		{"deleted", time.Hour, []error{nil}, 1, false},
		{"wanted again by who did not know yet", time.Hour, []error{vip.ErrOwned, vip.ErrOwned, nil}, 3, false},
		{"cannot be deleted", 80 * time.Millisecond, []error{errors.New("still present")}, 1, true},
		{"the lease is over", -time.Second, []error{errors.New("still present")}, 1, false},
	} {
		gate := oneGate{vip.NewGate(&viptest.Guard{}, 1, nil)}
		gate.Open(3)
		s := NewSink(gate, 0)
		var calls atomic.Int32
		until := boottime.Now() + tt.lease
		s.Release = func(ctx context.Context) error {
			// What it waits for may never come.
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > until-boottime.Now()+time.Second {
				t.Errorf("%s: it waits until %v, the lease ends in %v", tt.name, end, until-boottime.Now())
			}
			n := int(calls.Add(1))
			return tt.says[min(n, len(tt.says))-1]
		}
		s.Renew(3, until)
		s.Revoke(3)
		if n := calls.Load(); n != tt.calls {
			t.Errorf("%s: asked %d times, want %d", tt.name, n, tt.calls)
		}
		if over := boottime.Now() >= until; over != (tt.waits || tt.lease < 0) {
			t.Errorf("%s: the lease is over: %v", tt.name, over)
		}
	}
}

// Revoke of an older term does nothing to what is owned in a newer one.
func TestRevokeOfAnOlderTerm(t *testing.T) {
	gate := oneGate{vip.NewGate(&viptest.Guard{}, 1, nil)}
	gate.Open(3)
	s := NewSink(gate, 0)
	s.Release = func(context.Context) error { t.Error("addresses of a newer term deleted"); return nil }
	s.Renew(3, boottime.Now()+time.Hour)
	s.Revoke(2)
	if !gate.Valid(boottime.Now()) {
		t.Error("the gate of a newer term is shut")
	}
}
