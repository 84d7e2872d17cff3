package vip_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// guarded is a bench whose guard silences what others have configured on eth0.
func guarded(t *testing.T) *bench {
	return newBench(t, func(_ *bench, c *vip.KeeperConfig) {
		c.Unguarded = func(link string, addr netip.Addr) string {
			switch {
			case link != "eth0":
				return "the guard is not on " + link
			case addr == netip.MustParseAddr("10.0.0.9"):
				return "a member is reached at it"
			}
			return ""
		}
	})
}

// A copy that someone else has configured answers only under the lease: it is
// silent on a standby, serves on the owner, and is silent again after it.
func TestForeignAddressUnderTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guarded(t)
		b.host.Configure("eth0", "10.0.0.5/24")
		b.h.Set(b.wanted(false, 0, "10.0.0.5/24", "10.0.0.6/24"))
		synctest.Wait()
		b.expectTrace("arm 10.0.0.5")
		if s := b.expectState("10.0.0.5", vip.StateForeign); !s.Silent || s.Up() || s.Foreign.String() != "10.0.0.5/24" || !strings.Contains(s.Why, "ip address del 10.0.0.5/24 dev eth0") {
			t.Errorf("standby: %+v", s)
		}

		b.own("10.0.0.5/24", "10.0.0.6/24")
		b.expectTrace("arm 10.0.0.6", "add 10.0.0.6/32 eth0", "announce 10.0.0.5 eth0", "announce 10.0.0.6 eth0")
		if s := b.expectState("10.0.0.5", vip.StateBorrowed); !s.Up() || s.Present || !s.Silent {
			t.Errorf("owner: %+v", s)
		}
		b.h.Announce("a doubt")
		synctest.Wait()
		b.expectTrace("announce 10.0.0.5 eth0", "announce 10.0.0.6 eth0")

		b.gate.Shut()
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectTrace("delete 10.0.0.6/32 eth0", "disarm 10.0.0.6")
		b.h.Announce("nothing is announced by who does not own")
		synctest.Wait()
		b.expectTrace()
		b.expectAddresses("10.0.0.5/24")
		if s := b.expectState("10.0.0.5", vip.StateForeign); !s.Silent {
			t.Errorf("after the release: %+v", s)
		}

		// The operator takes it away.
		b.host.Unconfigure("eth0", "10.0.0.5/24")
		synctest.Wait()
		b.expectTrace("disarm 10.0.0.5")
	})
}

func TestForeignThatServesIsReplacedWhenItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guarded(t)
		b.host.Configure("eth0", "10.0.0.5/32") // just as ours would be
		b.own("10.0.0.5/24")
		b.expectTrace("arm 10.0.0.5", "announce 10.0.0.5 eth0")
		b.host.Unconfigure("eth0", "10.0.0.5/32")
		synctest.Wait()
		b.expectTrace("add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		b.expectState("10.0.0.5", vip.StatePresent)
	})
}

// The lease is not valid: nothing is announced, and the copy is armed all the same.
func TestForeignIsArmedBeforeTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guarded(t)
		b.host.Configure("eth0", "10.0.0.5/24")
		b.gate.Open(1)
		b.h.Set(b.wanted(true, 1, "10.0.0.5/24"))
		synctest.Wait()
		b.expectTrace("arm 10.0.0.5")
		b.expectState("10.0.0.5", vip.StateWaiting)
		b.gate.Renew(1, b.now()+time.Second)
		synctest.Wait()
		b.expectTrace("announce 10.0.0.5 eth0")
		b.expectState("10.0.0.5", vip.StateBorrowed)
		time.Sleep(time.Minute)
		if s := b.expectState("10.0.0.5", vip.StateBorrowed); s.Announced != 1 {
			t.Errorf("announced %d times", s.Announced)
		}
	})
}

// What cannot be silenced, or not without silencing what is the operator's, is left
// alone and said with the command that removes it.
func TestForeignThatMustNotBeGuarded(t *testing.T) {
	for name, c := range map[string]struct{ addr, link, elsewhere, why string }{
		"also elsewhere":        {"10.0.0.5/24", "eth0", "lo", "without silencing the same address on lo"},
		"of a member":           {"10.0.0.9/24", "eth0", "", "a member is reached at it"},
		"guard is not attached": {"10.0.0.5/24", "eth1", "", "the guard is not on eth1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := guarded(t)
				ip, _, _ := strings.Cut(c.addr, "/")
				b.host.Configure(c.link, c.addr)
				if c.elsewhere != "" {
					b.host.Configure(c.elsewhere, ip+"/32")
				}
				w := b.wanted(false, 0, c.addr)
				w.Addresses[0].Link = c.link
				b.h.Set(w)
				synctest.Wait()
				b.expectTrace()
				s := b.expectState(ip, vip.StateForeign)
				if s.Silent || !strings.Contains(s.Why, c.why) || !strings.Contains(s.Why, "ip address del "+c.addr+" dev "+c.link) {
					t.Errorf("%+v", s)
				}
				b.gate.Open(1)
				b.gate.Renew(1, b.now()+time.Hour)
				w.Own, w.Term = true, 1
				b.h.Set(w)
				synctest.Wait()
				b.expectTrace()
				if s := b.expectState(ip, vip.StateForeign); s.Up() {
					t.Errorf("%+v", s)
				}
			})
		})
	}
	t.Run("on another link only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := guarded(t)
			b.host.Configure("lo", "10.0.0.5/32")
			b.h.Set(b.wanted(false, 0, "10.0.0.5/24"))
			synctest.Wait()
			b.expectTrace()
			b.expectState("10.0.0.5", vip.StateAbsent)
		})
	})
}

func TestForeignThatTheGuardRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guarded(t)
		b.guard.FailArm(errors.New("map full"))
		b.host.Configure("eth0", "10.0.0.5/24")
		b.h.Set(b.wanted(false, 0, "10.0.0.5/24"))
		synctest.Wait()
		if s := b.expectState("10.0.0.5", vip.StateForeign); s.Silent || !strings.Contains(s.Why, "map full") {
			t.Errorf("%+v", s)
		}
		b.guard.FailArm(nil)
		time.Sleep(2 * time.Second)
		if s := b.expectState("10.0.0.5", vip.StateForeign); !s.Silent {
			t.Errorf("%+v", s)
		}
	})
}

// An address that is taken from the list is the operator's own again: at once where
// it was owned, after a while where another node may still own it.
func TestForeignIsFreedWhenItIsNoLongerListed(t *testing.T) {
	for _, own := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := guarded(t)
			b.host.Configure("eth0", "10.0.0.5/24")
			synctest.Wait()
			if own {
				b.own("10.0.0.5/24")
			} else {
				b.h.Set(b.wanted(false, 0, "10.0.0.5/24"))
				synctest.Wait()
			}
			b.trace.Take()
			b.h.Set(b.wanted(own, 1))
			synctest.Wait()
			if !own {
				b.expectTrace()
				time.Sleep(6 * time.Second)
				synctest.Wait()
			}
			b.expectTrace("disarm 10.0.0.5")
			if n := len(b.h.Status().Addresses); n != 0 {
				t.Errorf("%d addresses are still known", n)
			}
		})
	}
}

// A copy that is under the guard stays there when its link is renamed: it is the same
// address on the same network, and nobody else silences it.
func TestForeignOnARenamedLink(t *testing.T) {
	rename := func(b *bench, from, to string) {
		synctest.Wait()
		b.host.ChangeLink(from, func(l *vip.Link) { l.Name = to })
		synctest.Wait()
	}
	armed := func(b *bench) []netip.Addr { synctest.Wait(); return b.guard.Armed() }
	ip := []netip.Addr{netip.MustParseAddr("10.0.0.5")}
	for name, owns := range map[string]bool{"standby": false, "owner": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := guarded(t)
				b.host.Configure("eth0", "10.0.0.5/24")
				if owns {
					b.own("10.0.0.5/24")
				} else {
					b.h.Set(b.wanted(false, 0, "10.0.0.5/24"))
				}
				rename(b, "eth0", "wan0")
				if owns {
					b.gate.Shut()
					if err := b.h.Release(t.Context()); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Minute)
				if got := armed(b); !slices.Equal(got, ip) {
					t.Errorf("armed: %v", got)
				}
				// An other link gets the name.
				b.host.AddLink("eth0")
				time.Sleep(time.Minute)
				if got := armed(b); !slices.Equal(got, ip) {
					t.Errorf("with another link of that name, armed: %v", got)
				}
				b.host.Unconfigure("wan0", "10.0.0.5/24")
				if got := armed(b); len(got) > 0 {
					t.Errorf("armed when it is gone: %v", got)
				}
			})
		})
	}
	t.Run("not listed any more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := guarded(t)
			b.host.Configure("eth0", "10.0.0.5/24")
			b.h.Set(b.wanted(false, 0, "10.0.0.5/24"))
			rename(b, "eth0", "wan0")
			b.h.Set(b.wanted(false, 0))
			if got := armed(b); !slices.Equal(got, ip) {
				t.Errorf("at once: armed %v", got)
			}
			time.Sleep(6 * time.Second)
			if got := armed(b); len(got) > 0 {
				t.Errorf("it is the operator's again: armed %v", got)
			}
		})
	})
}
