package vip_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
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
		if n := b.trace.Count("add "); n > 0 {
			t.Errorf("added %d times, if only for a moment", n)
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

// A process that is short of descriptors cannot tell whether the guard is attached. It
// was, and what was added stays.
func TestShortWhileAdding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.BeforeBatch = func([]vip.Change) { b.guard.Detach(eth0Index, fmt.Errorf("ask: %w", syscall.EMFILE)) }
		})
		b.own("10.0.0.5/24")
		time.Sleep(time.Second)
		synctest.Wait()
		b.expectAddresses("10.0.0.5/32")
		b.expectState("10.0.0.5", vip.StatePresent)
		if n := b.trace.Count("delete"); n > 0 {
			t.Errorf("deleted %d times", n)
		}
	})
}

// What is to be taken off again and cannot be deleted is not let be.
func TestGuardLostAndNotDeletable(t *testing.T) {
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
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "delete" {
				return errors.New("no")
			}
			return nil
		})
		b.own("10.0.0.5/24")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if a := b.expectState("10.0.0.5", vip.StateRemoving); a.DeleteFailures < 5 {
			t.Errorf("tried %d times", a.DeleteFailures)
		}
		b.host.Fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.expectAddresses()
		if a := b.expectState("10.0.0.5", vip.StateWaiting); !a.Unguarded {
			t.Errorf("%+v", a)
		}
		b.guard.Detach(eth0Index, nil)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		b.expectAddresses("10.0.0.5/32")
		b.expectState("10.0.0.5", vip.StatePresent)
	})
}

// Neither a refresh of lifetimes nor a place further back leaves an address where the
// guard was lost meanwhile: both put it there, whether it was there or not.
func TestGuardLostWhilePutting(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"refresh": func(*bench) { time.Sleep(11 * time.Second) },
		"requeue": func(b *bench) { b.host.Configure("eth0", "10.0.0.2/24"); time.Sleep(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lost, armed atomic.Bool
				b := newBench(t, func(b *bench, cfg *vip.KeeperConfig) {
					cfg.Lifetime = 30 * time.Second
					b.host.BeforeBatch = func([]vip.Change) {
						if armed.Load() && !lost.Swap(true) {
							b.guard.Detach(eth0Index, errAway)
						}
					}
				})
				b.own("10.0.0.5/24")
				armed.Store(true)
				change(b)
				synctest.Wait()
				if !lost.Load() {
					t.Fatal("nothing was put: this proves nothing")
				}
				if slices.Contains(b.host.Has("eth0"), "10.0.0.5/32") {
					t.Error("left there without the guard")
				}
				b.expectState("10.0.0.5", vip.StateWaiting)
				b.guard.Detach(eth0Index, nil)
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				b.expectState("10.0.0.5", vip.StatePresent)
			})
		})
	}
}

// An address is not put further back while the guard is not attached, and then it is.
func TestNoRequeueWithoutGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24")
		b.guard.Detach(eth0Index, errAway)
		b.trace.Take()
		b.host.Configure("eth0", "10.0.0.2/24")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := b.trace.Count("add "); n > 0 {
			t.Errorf("put there %d times without a guard", n)
		}
		b.guard.Detach(eth0Index, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.trace.Count("add 10.0.0.5/32") == 0 {
			t.Error("not put further back when the guard is back")
		}
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
