package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// many returns n addresses of eth0's subnet.
func many(n int) []string {
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200))
	}
	return addrs
}

// states counts the addresses in each state.
func (b *bench) states() map[vip.State]int {
	n := map[vip.State]int{}
	for _, a := range b.h.Status().Addresses {
		n[a.State]++
	}
	return n
}

// manyBench is a bench on which nothing covers many, so that they are put as
// written. hook is called before the n-th request to the kernel, from 1.
func manyBench(t *testing.T, hook func(b *bench, n int, changes []vip.Change)) *bench {
	n := 0
	var b *bench
	b = newBench(t, func(nb *bench, _ *vip.KeeperConfig) {
		b = nb
		b.host.BeforeBatch = func(changes []vip.Change) {
			n++
			hook(b, n, changes)
		}
	})
	return b
}

// The batches of an undisturbed take: 1, 4, 16, 64, 256 and the rest, the first
// announcements of each before the next.
func TestManyAreAddedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		b := manyBench(t, func(b *bench, n int, changes []vip.Change) {
			sizes = append(sizes, len(changes))
			if b.gate.Valid(b.now()) && b.trace.Count("announce") != b.trace.Count("add") {
				t.Errorf("batch %d: %d addresses were added and %d announced", n, b.trace.Count("add"), b.trace.Count("announce"))
			}
		})
		b.own(many(1000)...)
		if want := []int{1, 4, 16, 64, 256, 256, 256, 147}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %d, want %d", sizes, want)
		}
		if n := b.trace.Count("arm"); n != 1 {
			t.Errorf("armed %d times", n)
		}
		if n := b.states()[vip.StatePresent]; n != 1000 {
			t.Errorf("%d are present", n)
		}
		sizes = nil
		b.gate.Shut()
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if want := []int{16, 64, 256, 256, 256, 152}; !slices.Equal(sizes, want) {
			t.Errorf("deleted in batches of %d, want %d", sizes, want)
		}
		b.expectAddresses()
	})
}

// A slow kernel gets small batches: what a release waits for.
func TestSlowKernelGetsSmallBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		largest := 0
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.Delay = 100 * time.Microsecond
			b.host.BeforeBatch = func(changes []vip.Change) {
				if changes[0].Kind == vip.AddAddress {
					largest = max(largest, len(changes))
				}
			}
		})
		b.own(many(1000)...)
		time.Sleep(time.Second)
		if n := b.states()[vip.StatePresent]; n != 1000 || largest != 10 {
			t.Errorf("%d present, the largest batch took %d addresses of 100 us, want 10", n, largest)
		}
	})
}

func TestOneOfABatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		fails := func(op string, _ int, p netip.Prefix) error {
			if op != "links" && p.Addr().As4()[3]%10 == 0 { // 100 of 1000
				return errors.New("rtnl is on fire")
			}
			return nil
		}
		b.host.Fail(fails)
		b.own(many(1000)...)
		if s := b.states(); s[vip.StatePresent] != 900 || s[vip.StateFailed] != 100 {
			t.Errorf("states %v", s)
		}
		for _, line := range b.trace.Take() {
			if strings.HasPrefix(line, "announce") && strings.Contains(line, "0 eth0") {
				t.Errorf("%s, and it is not there", line)
			}
		}
		b.host.Fail(nil)
		time.Sleep(time.Second)
		if s := b.states(); s[vip.StatePresent] != 1000 {
			t.Errorf("states %v", s)
		}
		if n := b.trace.Count("announce"); n != 100 {
			t.Errorf("%d announcements of the last 100", n)
		}

		b.host.Fail(fails)
		b.trace.Take()
		b.gate.Shut()
		b.h.Set(b.wanted(false, 1, many(1000)...))
		synctest.Wait()
		if st := b.h.Status(); st.NotRemoved != 100 || len(b.guard.Armed()) != 100 {
			t.Errorf("%d not removed, %d armed, want 100", st.NotRemoved, len(b.guard.Armed()))
		}
		b.host.Fail(nil)
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses()
		synctest.Wait()
		if n := len(b.guard.Armed()); n != 0 {
			t.Errorf("%d armed", n)
		}
	})
}

// Someone configures some of the addresses, and the kernel says so in the middle of
// a batch.
func TestForeignWithinABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := manyBench(t, func(b *bench, n int, changes []vip.Change) {
			if n == 3 {
				b.host.ConfigureAs("eth0", changes[3].Address.Prefix.String(), 0)
				b.host.ConfigureAs("eth0", changes[7].Address.Prefix.String(), vip.AddrProtocol)
			}
		})
		b.host.Configure("eth0", "10.0.0.2/16") // covers them all
		synctest.Wait()
		b.own(many(100)...)
		if s := b.states(); s[vip.StatePresent] != 99 || s[vip.StateForeign] != 1 {
			t.Errorf("states %v", s)
		}
		b.expectState("10.0.1.9", vip.StateForeign) // 1 + 4 + 4th of the third
		if b.trace.Count("announce 10.0.1.9 ") != 0 || b.trace.Count("refresh 10.0.1.13/") != 1 || b.trace.Count("announce 10.0.1.13 ") != 1 {
			t.Error("the address of someone else was announced, or that of our own not adopted")
		}
		b.gate.Shut()
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses("10.0.0.2/16", "10.0.1.9/32")
	})
}

// A release in the middle of a take waits for one batch, not for the others.
func TestReleaseDuringABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := manyBench(t, func(b *bench, n int, _ []vip.Change) {
			if n == 3 {
				b.gate.Shut()
				b.h.Set(b.wanted(false, 1, many(1000)...))
			}
		})
		b.own(many(1000)...)
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		if add, ann, del := b.trace.Count("add"), b.trace.Count("announce"), b.trace.Count("delete"); add != 21 || ann != 5 || del != 21 {
			t.Errorf("%d added, %d announced, %d deleted; want 21, 5, 21", add, ann, del)
		}
		b.expectAddresses()
	})
}

// And a take in the middle of a release.
func TestTakeDuringABatchOfDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deletions := 0
		b := manyBench(t, func(b *bench, _ int, changes []vip.Change) {
			if changes[0].Kind == vip.DeleteAddress {
				if deletions++; deletions == 2 {
					b.gate.Open(2)
					b.gate.Renew(2, b.now()+time.Hour)
					b.h.Set(b.wanted(true, 2, many(1000)...))
				}
			}
		})
		b.own(many(1000)...)
		b.gate.Shut()
		b.trace.Take()
		b.h.Set(b.wanted(false, 1, many(1000)...))
		synctest.Wait()
		if add, ann, del := b.trace.Count("add"), b.trace.Count("announce"), b.trace.Count("delete"); add != 80 || ann != 1000 || del != 80 {
			t.Errorf("%d added, %d announced, %d deleted; want 80, 1000, 80", add, ann, del)
		}
		if s := b.h.Status(); b.states()[vip.StatePresent] != 1000 || s.Readded != 0 {
			t.Errorf("states %v, %d lost", b.states(), s.Readded)
		}
	})
}

// The lease ends between two batches: what has been asked of the kernel is done,
// and nothing after it.
func TestLapseBetweenBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := manyBench(t, func(b *bench, n int, _ []vip.Change) {
			if n == 3 {
				time.Sleep(2 * time.Second)
			}
		})
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Second)
		b.h.Set(b.wanted(true, 1, many(1000)...))
		time.Sleep(10 * time.Second)
		if add, ann := b.trace.Count("add"), b.trace.Count("announce"); add != 21 || ann != 5 {
			t.Errorf("%d added, %d announced; want 21, 5", add, ann)
		}
		if s := b.states(); s[vip.StatePresent] != 21 || s[vip.StateWaiting] != 979 {
			t.Errorf("states %v", s)
		}
		b.gate.Renew(1, b.now()+time.Hour)
		synctest.Wait()
		if add, ann := b.trace.Count("add"), b.trace.Count("announce"); add != 1000 || ann != 5+1000 {
			t.Errorf("%d added, %d announced; want 1000, 1005", add, ann)
		}
	})
}

// Everything at once, for the race detector; at the end nothing is left.
func TestManyRace(t *testing.T) {
	trace := &viptest.Trace{}
	host := viptest.NewHost(trace, "eth0")
	guard := &viptest.Guard{Trace: trace}
	gate := vip.NewGate(guard, 1, nil)
	k := vip.NewKeeper(vip.KeeperConfig{Host: host, Announcer: &viptest.Announcer{Trace: trace}, Guard: guard})
	h := k.Hold(gate)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	addrs := many(300)
	w := func(own bool, term uint64, n int) vip.Wanted {
		w := vip.Wanted{Own: own, Term: term, Schedule: vip.Schedule{Repeat: 2}}
		for _, a := range addrs[:n] {
			w.Addresses = append(w.Addresses, addr(a))
		}
		return w
	}
	end := time.Now().Add(500 * time.Millisecond)
	var wg sync.WaitGroup
	wg.Go(func() {
		for term := uint64(1); time.Now().Before(end); term++ {
			gate.Open(term)
			gate.Renew(term, 1<<60)
			h.Set(w(true, term, 300-int(term%3)*50))
			time.Sleep(time.Duration(term%5) * time.Millisecond)
			gate.Shut()
			h.Set(w(false, term, 300))
			if term%4 == 0 {
				if err := h.WaitReleased(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Go(func() {
		for i := 0; time.Now().Before(end); i++ {
			p := addrs[i*7%300]
			host.Unconfigure("eth0", p)
			h.Announce("test")
			h.Status()
			k.Status()
			time.Sleep(100 * time.Microsecond)
		}
	})
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if has := host.Has("eth0"); len(has) != 0 {
		t.Errorf("%d addresses are left", len(has))
	}
	if n := len(guard.Armed()); n != 0 {
		t.Errorf("%d are armed", n)
	}
}
