package vip_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// A bench is a Keeper with one Holding on doubles, in a synctest bubble.
type bench struct {
	t      *testing.T
	trace  *viptest.Trace
	host   *viptest.Host
	guard  *viptest.Guard
	ann    *viptest.Announcer
	gate   *vip.Gate
	keeper *vip.Keeper
	h      *vip.Holding
	now    func() time.Duration
	stop   context.CancelFunc
	done   chan error
}

func newBench(t *testing.T, tune func(*bench, *vip.KeeperConfig)) *bench {
	t.Helper()
	start := time.Now()
	b := &bench{t: t, trace: &viptest.Trace{}, done: make(chan error, 1)}
	b.now = func() time.Duration { return time.Hour + time.Since(start) }
	b.host = viptest.NewHost(b.trace, "lo", "eth0", "eth1")
	b.host.Configure("eth0", "10.0.0.1/24")
	b.host.Configure("eth0", "fd00::1/64")
	b.guard = &viptest.Guard{Trace: b.trace}
	b.ann = &viptest.Announcer{Trace: b.trace}
	b.gate = vip.NewGate(b.guard, 3, b.now)
	cfg := vip.KeeperConfig{Host: b.host, Announcer: b.ann, Guard: b.guard, Now: b.now}
	if tune != nil {
		tune(b, &cfg)
	}
	b.keeper = vip.NewKeeper(cfg)
	b.h = b.keeper.Hold(b.gate)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() { b.done <- b.keeper.Run(ctx) }()
	t.Cleanup(func() { b.end() })
	synctest.Wait()
	return b
}

// end stops the Keeper and returns what Run returned.
func (b *bench) end() error {
	if b.stop == nil {
		return nil
	}
	b.stop()
	b.stop = nil
	return <-b.done
}

func addr(s string) vip.Address { return vip.Address{Prefix: netip.MustParsePrefix(s), Link: "eth0"} }

// quick is a schedule of one announcement and nothing after.
var quick = vip.Schedule{Repeat: 1}

func (b *bench) wanted(own bool, term uint64, addrs ...string) vip.Wanted {
	w := vip.Wanted{Own: own, Term: term, Schedule: quick}
	for _, a := range addrs {
		w.Addresses = append(w.Addresses, addr(a))
	}
	return w
}

// own takes the addresses with a lease of an hour.
func (b *bench) own(addrs ...string) {
	b.gate.Open(1)
	b.gate.Renew(1, b.now()+time.Hour)
	b.h.Set(b.wanted(true, 1, addrs...))
	synctest.Wait()
}

func (b *bench) expectTrace(want ...string) {
	b.t.Helper()
	if got := b.trace.Take(); !slices.Equal(got, want) {
		b.t.Errorf("trace:\n got %q\nwant %q", got, want)
	}
}

func (b *bench) expectAddresses(want ...string) {
	b.t.Helper()
	want = append(want, "10.0.0.1/24", "fd00::1/64")
	slices.Sort(want)
	if got := b.host.Has("eth0"); !slices.Equal(got, want) {
		b.t.Errorf("addresses of eth0: %q, want %q", got, want)
	}
}

func (b *bench) expectState(ip string, want vip.State) vip.AddressStatus {
	b.t.Helper()
	for _, a := range b.h.Status().Addresses {
		if a.Prefix.Addr().String() == ip {
			if a.State != want {
				b.t.Errorf("%s is %v (%s), want %v", ip, a.State, a.Why, want)
			}
			return a
		}
	}
	b.t.Errorf("no status of %s", ip)
	return vip.AddressStatus{}
}

func TestTakeAndReleaseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		w := b.wanted(true, 1, "10.0.0.5/24", "10.0.0.6/24", "fd00::5/64")
		w.Schedule = vip.Schedule{Repeat: 2}
		b.h.Set(w)
		synctest.Wait()
		b.expectTrace() // not a thing before the gate is valid
		b.gate.Open(1)
		synctest.Wait()
		b.expectTrace()
		b.expectState("10.0.0.5", vip.StateWaiting)

		b.gate.Renew(1, b.now()+time.Second)
		synctest.Wait()
		b.expectTrace(
			"arm 10.0.0.5,10.0.0.6,fd00::5",
			"add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0",
			"add 10.0.0.6/32 eth0", "add fd00::5/128 eth0", "announce 10.0.0.6 eth0", "announce fd00::5 eth0",
			"announce 10.0.0.5 eth0", "announce fd00::5 eth0", "announce 10.0.0.6 eth0")
		b.expectState("fd00::5", vip.StatePresent)

		b.gate.Shut()
		b.h.Set(b.wanted(false, 1, "10.0.0.5/24", "10.0.0.6/24", "fd00::5/64"))
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectTrace(
			"delete 10.0.0.6/32 eth0", "delete 10.0.0.5/32 eth0", "delete fd00::5/128 eth0",
			"disarm 10.0.0.5,10.0.0.6,fd00::5")
		b.expectAddresses()
		synctest.Wait()
		b.expectState("10.0.0.5", vip.StateAbsent)
	})
}

func TestLoneAddressKeepsItsLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.7.0.5/24", "10.7.0.6/24", "10.0.0.5/24")
		b.expectAddresses("10.7.0.5/24", "10.7.0.6/24", "10.0.0.5/32")
	})
}

func TestScheduleChecksGateBeforeEachAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		var b *bench
		b = newBench(t, func(b2 *bench, _ *vip.KeeperConfig) {
			b2.ann.Hook = func(vip.Link, netip.Addr) error {
				if !b.gate.Valid(b.now()) {
					t.Error("announced while the gate is not valid")
				}
				if sent++; sent == 3 {
					b.gate.Shut() // in the middle of a burst
				}
				return nil
			}
		})
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.0.0.5/24")
		w.Schedule = vip.DefaultSchedule()
		b.h.Set(w)
		time.Sleep(10 * time.Minute)
		if n := b.trace.Count("announce"); n != 3 {
			t.Errorf("%d announcements, want 3", n)
		}

		// The gate is opened again: a whole burst, and again after the delay.
		b.gate.Open(2)
		b.gate.Renew(2, b.now()+time.Hour)
		synctest.Wait()
		if n := b.trace.Count("announce"); n != 3+5 {
			t.Errorf("%d announcements after the gate is open again, want 8", n)
		}
		b.trace.Take()

		// keepalived's schedule: a second burst after 5 s, then refreshes.
		time.Sleep(4900 * time.Millisecond)
		b.expectTrace()
		time.Sleep(200 * time.Millisecond)
		if n := b.trace.Count("announce"); n != 5 {
			t.Errorf("%d announcements in the second burst, want 5", n)
		}
		b.trace.Take()
		time.Sleep(2 * time.Minute)
		b.expectTrace("announce 10.0.0.5 eth0", "announce 10.0.0.5 eth0")

		// The lease ends by itself: silence, and the address stays as it is.
		time.Sleep(time.Hour)
		b.trace.Take()
		time.Sleep(time.Hour)
		b.expectTrace()
		b.expectAddresses("10.0.0.5/32")

		// And is renewed: a doubt.
		b.gate.Renew(2, b.now()+time.Hour)
		synctest.Wait()
		if n := b.trace.Count("announce"); n != 5 {
			t.Errorf("%d announcements after a lapse, want 5", n)
		}
	})
}

func TestAnnouncementGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.ann.Hook = func(vip.Link, netip.Addr) error {
				at = append(at, b.now())
				return nil
			}
		})
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.0.0.5/24", "10.0.0.6/24")
		w.Schedule = vip.Schedule{Repeat: 2, Interval: 100 * time.Millisecond}
		b.h.Set(w)
		time.Sleep(time.Second)
		synctest.Wait()
		b.expectAddresses("10.0.0.5/32", "10.0.0.6/32")
		for i := 1; i < len(at); i++ {
			if d := at[i] - at[i-1]; d != 100*time.Millisecond {
				t.Errorf("gap %v", d)
			}
		}
		if len(at) != 4 {
			t.Errorf("%d announcements, want 4", len(at))
		}
	})
}

func TestDoubtsAnnounceAgain(t *testing.T) {
	for name, doubt := range map[string]func(b *bench){
		"asked":     func(b *bench) { b.h.Announce("a peer is back") },
		"new term":  func(b *bench) { b.h.Set(b.wanted(true, 2, "10.0.0.5/24")) },
		"carrier":   func(b *bench) { flap(b, func(l *vip.Link) { l.Running = false }) },
		"link down": func(b *bench) { flap(b, func(l *vip.Link) { l.Up, l.Running = false, false }) },
		"new MAC": func(b *bench) {
			b.host.ChangeLink("eth0", func(l *vip.Link) { l.MAC = []byte{2, 9, 9, 9, 9, 9} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.own("10.0.0.5/24")
				b.trace.Take()
				doubt(b)
				synctest.Wait()
				b.expectTrace("announce 10.0.0.5 eth0")
			})
		})
	}
}

func flap(b *bench, down func(*vip.Link)) {
	b.host.ChangeLink("eth0", down)
	synctest.Wait()
	b.expectTrace()
	b.host.ChangeLink("eth0", func(l *vip.Link) { l.Up, l.Running = true, true })
}

func TestRemovedBySomeoneElseComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24")
		b.trace.Take()
		b.host.Unconfigure("eth0", "10.0.0.5/32")
		synctest.Wait()
		b.expectTrace("add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		if s := b.h.Status(); s.Readded != 1 || s.Addresses[0].Readded != 1 || !s.Addresses[0].Present {
			t.Errorf("status %+v", s)
		}
		// Twice at once: a pause, under 100 ms.
		b.host.Unconfigure("eth0", "10.0.0.5/32")
		synctest.Wait()
		b.expectState("10.0.0.5", vip.StateFailed)
		time.Sleep(60 * time.Millisecond)
		b.expectAddresses("10.0.0.5/32")

		// Not while the gate is not valid.
		time.Sleep(time.Minute)
		b.gate.Shut()
		b.trace.Take()
		b.host.Unconfigure("eth0", "10.0.0.5/32")
		time.Sleep(time.Minute)
		b.expectTrace()
		b.expectAddresses()
	})
}

func TestIPv6ComesBackAfterLinkDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("fd00::5/64", "10.0.0.5/24")
		b.trace.Take()
		b.host.ChangeLink("eth0", func(l *vip.Link) { l.Up, l.Running = false, false })
		synctest.Wait()
		b.expectTrace()
		b.expectState("fd00::5", vip.StateNoLink)
		b.expectState("10.0.0.5", vip.StatePresent)
		b.host.ChangeLink("eth0", func(l *vip.Link) { l.Up, l.Running = true, true })
		synctest.Wait()
		// The kernel took the covering address as well, so it is put as written.
		b.expectTrace("add fd00::5/64 eth0", "announce 10.0.0.5 eth0", "announce fd00::5 eth0")
	})
}

func TestMissingLinkDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.0.0.5/24", "10.0.0.6/24")
		w.Addresses[0].Link = "bond0"
		b.h.Set(w)
		synctest.Wait()
		b.expectState("10.0.0.5", vip.StateNoLink)
		b.expectAddresses("10.0.0.6/32")
		b.trace.Take()

		b.host.AddLink("bond0")
		synctest.Wait()
		b.expectTrace("arm 10.0.0.5", "add 10.0.0.5/24 bond0", "announce 10.0.0.5 bond0")

		// Made anew under another index.
		b.host.RemoveLink("bond0")
		synctest.Wait()
		b.expectState("10.0.0.5", vip.StateNoLink)
		b.host.AddLink("bond0")
		synctest.Wait()
		b.expectTrace("add 10.0.0.5/24 bond0", "announce 10.0.0.5 bond0")
	})
}

func TestForeignAddressIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.host.Configure("eth0", "10.0.0.5/24")
		b.host.Configure("lo", "10.0.0.6/32") // elsewhere it is the operator's business
		synctest.Wait()
		b.own("10.0.0.5/24", "10.0.0.6/24")
		b.expectTrace("arm 10.0.0.6", "add 10.0.0.6/32 eth0", "announce 10.0.0.6 eth0")
		if s := b.expectState("10.0.0.5", vip.StateForeign); !strings.Contains(s.Why, "already configured on eth0 by someone else") {
			t.Errorf("why: %q", s.Why)
		}
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses("10.0.0.5/24")
		b.expectState("10.0.0.5", vip.StateForeign)

		// The operator takes it away: ours from now on.
		b.h.Set(b.wanted(true, 1, "10.0.0.5/24"))
		synctest.Wait()
		b.trace.Take()
		b.host.Unconfigure("eth0", "10.0.0.5/24")
		synctest.Wait()
		b.expectTrace("arm 10.0.0.5", "add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")

		// And puts it beside ours: ours stays, and after the release the guard stays
		// until nothing answers any more.
		b.host.Configure("eth0", "10.0.0.5/24")
		synctest.Wait()
		if s := b.expectState("10.0.0.5", vip.StatePresent); s.Why == "" {
			t.Error("nothing said about the second address")
		}
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectTrace("delete 10.0.0.5/32 eth0")
		b.expectAddresses("10.0.0.5/24")
		b.host.Unconfigure("eth0", "10.0.0.5/24")
		synctest.Wait()
		b.expectTrace("disarm 10.0.0.5")
	})
}

func TestExistingUnderTheSamePrefixIsJudged(t *testing.T) {
	// The mirror has not heard of the address yet when it is added.
	for name, protocol := range map[string]uint8{"foreign": 0, "ours": vip.AddrProtocol} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.host.BeforeAdd("eth0", "10.0.0.5/32", protocol)
				b.own("10.0.0.5/24")
				if name == "foreign" {
					b.expectState("10.0.0.5", vip.StateForeign)
					b.expectTrace("arm 10.0.0.5")
					return
				}
				b.expectState("10.0.0.5", vip.StatePresent)
				b.expectTrace("arm 10.0.0.5", "refresh 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
			})
		})
	}
}
