package vip_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// eth0Index is the number of eth0 on the bench.
const eth0Index = 2

var errAway = errors.New("the guard is not attached")

// Nothing goes onto a link before the guard is attached to it, and then at once.
func TestWaitsForTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.guard.Detach(eth0Index, errAway)
		b.own("10.0.0.5/24")
		time.Sleep(time.Second)
		synctest.Wait()
		b.expectAddresses()
		if a := b.expectState("10.0.0.5", vip.StateWaiting); !strings.Contains(a.Why, "not guarded") {
			t.Errorf("why: %q", a.Why)
		}
		b.guard.Detach(eth0Index, nil)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		b.expectAddresses("10.0.0.5/32")
		b.expectState("10.0.0.5", vip.StatePresent)
		if n := b.ann.Trace.Count("announce"); n == 0 {
			t.Error("not announced")
		}
	})
}

// What was added while the guard was lost is taken off again.
func TestGuardLostWhileAdding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := false
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.BeforeBatch = func(changes []vip.Change) {
				if changes[0].Kind == vip.AddAddress && !lost {
					lost = true
					b.guard.Detach(eth0Index, errAway)
				}
			}
		})
		b.own("10.0.0.5/24", "fd00::5/64")
		time.Sleep(time.Second)
		synctest.Wait()
		if !lost {
			t.Fatal("nothing was added: this proves nothing")
		}
		b.expectAddresses()
		b.expectState("10.0.0.5", vip.StateWaiting)
		b.guard.Detach(eth0Index, nil)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		b.expectAddresses("10.0.0.5/32", "fd00::5/128")
	})
}

// The lifetime of an address is not prolonged where the guard is not attached.
func TestNoRefreshWithoutGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ *bench, cfg *vip.KeeperConfig) { cfg.Lifetime = 30 * time.Second })
		b.own("10.0.0.5/24")
		b.guard.Detach(eth0Index, errAway)
		before := b.trace.Count("refresh")
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if n := b.trace.Count("refresh") - before; n > 0 {
			t.Errorf("refreshed %d times without a guard", n)
		}
		b.guard.Detach(eth0Index, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.trace.Count("refresh") == before {
			t.Error("not refreshed when the guard is back")
		}
	})
}

// Shut waits for the kernel, and whether the gate is valid can be asked meanwhile.
func TestShutWaitsForTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		kernel := make(chan struct{})
		b.guard.OnSettle(func(uint32) { <-kernel })
		shut := make(chan struct{})
		go func() { b.gate.Shut(); close(shut) }()
		synctest.Wait()
		select {
		case <-shut:
			t.Error("it has not waited for the kernel")
		default:
		}
		if b.gate.Valid(b.now()) || b.guard.Deadline(3) != 0 {
			t.Error("still valid while it waits")
		}
		if b.gate.Renew(1, b.now()+2*time.Hour) {
			t.Error("renewed while it waits")
		}
		close(kernel)
		<-shut
		b.guard.OnSettle(nil)
	})
}
