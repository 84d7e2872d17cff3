package vip_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// TestFormFollowsTheLink: what covers an address decides about its form whenever it
// changes, and the address is there all the time.
func TestFormFollowsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.7.0.5/24", "fd07::5/64")
		for i := range w.Addresses {
			w.Addresses[i].Link = "eth1"
		}
		b.h.Set(w)
		synctest.Wait()
		b.expectTrace("arm 10.7.0.5,fd07::5", "add 10.7.0.5/24 eth1", "announce 10.7.0.5 eth1", "add fd07::5/64 eth1", "announce fd07::5 eth1")

		// The machine's own addresses come, as after a network restart.
		b.host.Configure("eth1", "10.7.0.1/24")
		synctest.Wait()
		b.expectTrace("add 10.7.0.5/32 eth1", "delete 10.7.0.5/24 eth1")
		b.host.Configure("eth1", "fd07::1/64")
		synctest.Wait()
		b.expectTrace("refresh fd07::5/64 eth1") // IPv6 has each IP once: only its route goes
		if a, _ := b.host.Address("eth1", "fd07::5/64"); !a.NoPrefixRoute {
			t.Errorf("it still brings a route: %+v", a)
		}
		for _, ip := range []string{"10.7.0.5", "fd07::5"} {
			b.expectState(ip, vip.StatePresent)
		}

		// And go.
		b.host.Unconfigure("eth1", "10.7.0.1/24")
		synctest.Wait()
		b.expectTrace("add 10.7.0.5/24 eth1", "delete 10.7.0.5/32 eth1")
		b.host.Unconfigure("eth1", "fd07::1/64")
		synctest.Wait()
		b.expectTrace("refresh fd07::5/64 eth1")
		if a, _ := b.host.Address("eth1", "fd07::5/64"); a.NoPrefixRoute {
			t.Errorf("it brings no route: %+v", a)
		}

		// A single own address with its gateway on the link, in the subnet as written.
		b.host.Configure("eth1", "10.7.0.1/32")
		synctest.Wait()
		b.expectTrace("add 10.7.0.5/32 eth1", "delete 10.7.0.5/24 eth1")
		b.host.Configure("eth1", "10.7.0.5/16") // a copy says nothing about it
		synctest.Wait()
		b.expectTrace()

		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses()
	})
}

// TestFormChangeThatFails: the old form stays and is there until the new one works.
func TestFormChangeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.host.Unconfigure("eth0", "10.0.0.1/24")
		synctest.Wait()
		b.own("10.0.0.5/24")
		b.expectTrace("arm 10.0.0.5", "add 10.0.0.5/24 eth0", "announce 10.0.0.5 eth0")
		fails := 1
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if fails--; op == "add" && fails >= 0 {
				return errors.New("no buffer space")
			}
			return nil
		})
		b.host.Configure("eth0", "10.0.0.1/24")
		synctest.Wait()
		b.expectState("10.0.0.5", vip.StatePresent)
		b.expectAddresses("10.0.0.5/24")
		time.Sleep(time.Second)
		synctest.Wait()
		b.expectTrace("add 10.0.0.5/32 eth0", "delete 10.0.0.5/24 eth0")

		// While the lease is not valid nothing is touched.
		b.gate.Shut()
		b.host.Unconfigure("eth0", "10.0.0.1/24")
		synctest.Wait()
		b.expectTrace()
		b.expectState("10.0.0.5", vip.StatePresent)
	})
}

// TestStandsBehindTheMachinesOwn: the first fitting address of a link is the source
// of what the machine sends, so that ours stands behind one that came later.
func TestStandsBehindTheMachinesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24", "fd00::5/64")
		b.trace.Take()
		b.host.Configure("eth0", "192.0.2.1/32")
		b.host.Configure("eth0", "fd00::2/64") // IPv6 knows a better rule
		synctest.Wait()
		requeued := []string{"add 10.0.0.5/31 eth0", "delete 10.0.0.5/32 eth0", "add 10.0.0.5/32 eth0", "delete 10.0.0.5/31 eth0"}
		b.expectTrace(requeued...)
		b.expectState("10.0.0.5", vip.StatePresent)

		// Not more than once a second, whatever others do.
		for range 3 {
			b.host.Configure("eth0", "192.0.2.2/32")
			synctest.Wait()
			b.host.Unconfigure("eth0", "192.0.2.2/32")
			synctest.Wait()
		}
		b.host.Configure("eth0", "192.0.2.3/32")
		synctest.Wait()
		b.expectTrace()
		time.Sleep(time.Second)
		synctest.Wait()
		b.expectTrace(requeued...)

		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses("192.0.2.1/32", "192.0.2.3/32", "fd00::2/64")
	})
}

// TestRemovedBeforeItIsKnown: somebody removes an address between the kernel's adding
// it and the keeper's noting that.
func TestRemovedBeforeItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 100 * time.Microsecond
		var b *bench
		removed := ""
		b = newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.Delay = each
			b.host.BeforeBatch = func(changes []vip.Change) {
				if removed == "" && len(changes) > 2 && changes[0].Kind == vip.AddAddress {
					removed = changes[0].Address.Prefix.String()
					go func() {
						time.Sleep(each + each/2)
						b.host.Unconfigure("eth0", removed)
					}()
				}
			}
		})
		addrs := []string{"10.0.0.5/32", "10.0.0.6/32", "10.0.0.7/32", "10.0.0.8/32", "10.0.0.9/32"}
		b.own(addrs...)
		time.Sleep(time.Second)
		synctest.Wait()
		if removed == "" {
			t.Fatal("no batch of several addresses")
		}
		b.expectAddresses(addrs...)
	})
}
