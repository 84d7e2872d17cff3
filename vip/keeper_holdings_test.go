package vip_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// A half is one of several Holdings of a bench.
type half struct {
	*vip.Holding
	b    *bench
	gate *vip.Gate
}

// second returns another Holding of the bench, of group 4.
func (b *bench) second() half {
	gate := vip.NewGate(b.guard, 4, b.now)
	return half{b.keeper.Hold(gate), b, gate}
}

func (b *bench) first() half { return half{b.h, b, b.gate} }

// open gives the half a lease of an hour in a term, or shuts its gate.
func (h half) open(open bool, term uint64) {
	if !open {
		h.gate.Shut()
		return
	}
	h.gate.Open(term)
	h.gate.Renew(term, h.b.now()+time.Hour)
}

func (h half) want(own bool, addrs ...string) {
	h.Set(h.b.wanted(own, 1, addrs...))
	synctest.Wait()
}

func (h half) state(ip string) vip.State {
	for _, a := range h.Status().Addresses {
		if a.Prefix.Addr().String() == ip {
			return a.State
		}
	}
	return -1
}

// TestOneWatch: however many Holdings there are, the kernel is watched once.
func TestOneWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for i := range 5 {
			h := half{b.keeper.Hold(vip.NewGate(b.guard, uint32(10+i), b.now)), b, nil}
			h.want(false, "10.0.0.5/24")
		}
		if n := b.host.Watches(); n != 1 {
			t.Errorf("watched %d times", n)
		}
	})
}

// TestHoldingsAreIndependent: what befalls one Holding is nothing to another.
func TestHoldingsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Lifetime = 30 * time.Second })
		one, two := b.first(), b.second()
		for _, h := range []half{one, two} {
			h.open(true, 1)
		}
		one.want(true, "10.0.0.5/24")
		two.want(true, "10.0.0.6/24")
		b.expectTrace("arm 10.0.0.5", "add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0",
			"arm 10.0.0.6", "add 10.0.0.6/32 eth0", "announce 10.0.0.6 eth0")
		for ip, group := range map[string]uint32{"10.0.0.5": 3, "10.0.0.6": 4} {
			if got, ok := b.guard.Group(netip.MustParseAddr(ip)); !ok || got != group {
				t.Errorf("%s is armed for group %d", ip, got)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.expectTrace("refresh 10.0.0.5/32 eth0", "refresh 10.0.0.6/32 eth0")

		// A doubt about one.
		one.Announce("test")
		synctest.Wait()
		b.expectTrace("announce 10.0.0.5 eth0")
		// The lease of one lapses: neither announced nor refreshed.
		one.open(false, 1)
		b.host.ChangeLink("eth0", func(l *vip.Link) { l.MAC = net.HardwareAddr{2, 0, 0, 0, 9, 9} })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.expectTrace("announce 10.0.0.6 eth0", "refresh 10.0.0.6/32 eth0")
		if eth0 := 2; b.keeper.Serves(eth0, netip.MustParseAddr("10.0.0.5")) || !b.keeper.Serves(eth0, netip.MustParseAddr("10.0.0.6")) {
			t.Error("served is what has a lease")
		}
		one.open(true, 1)
		synctest.Wait()
		b.expectTrace("refresh 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		// One is released, in one Set with another list for the other.
		vip.SetAll(vip.Want{Holding: one.Holding, Wanted: b.wanted(false, 1, "10.0.0.5/24")}, vip.Want{Holding: two.Holding, Wanted: b.wanted(true, 1, "10.0.0.6/24", "10.0.0.7/24")})
		if err := one.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		b.expectTrace("delete 10.0.0.5/32 eth0", "arm 10.0.0.7", "add 10.0.0.7/32 eth0", "announce 10.0.0.7 eth0", "disarm 10.0.0.5")
		if err := two.WaitReleased(t.Context()); !errors.Is(err, vip.ErrOwned) {
			t.Errorf("%v", err)
		}
		if all := b.keeper.Status(); len(all) != 2 || all[0].Group != 3 || all[0].Own || all[1].Group != 4 || !all[1].Own || all[1].Added != 2 {
			t.Errorf("%+v", all)
		}
	})
}

// TestGuardRefusesOne: a group whose addresses cannot be armed holds up no other.
func TestGuardRefusesOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		b.guard.FailArmGroup(3, errors.New("no room"))
		one.open(true, 1)
		two.open(true, 1)
		vip.SetAll(vip.Want{Holding: one.Holding, Wanted: b.wanted(true, 1, "10.0.0.5/24")}, vip.Want{Holding: two.Holding, Wanted: b.wanted(true, 1, "10.0.0.6/24")})
		synctest.Wait()
		if one.state("10.0.0.5") != vip.StateFailed || two.state("10.0.0.6") != vip.StatePresent {
			t.Errorf("%v, %v", one.state("10.0.0.5"), two.state("10.0.0.6"))
		}
		if err := one.Status().Err; err == nil || two.Status().Err != nil {
			t.Errorf("%v, %v", err, two.Status().Err)
		}
		b.guard.FailArmGroup(3, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if one.state("10.0.0.5") != vip.StatePresent || one.Status().Err != nil {
			t.Errorf("%v, %v", one.state("10.0.0.5"), one.Status().Err)
		}
	})
}

// TestAddressMoves: an address that another Holding lists from now on is that one's at
// once: it stays on the kernel where that one owns it, obeys its gate alone from the
// first moment, and goes where it does not own.
func TestAddressMoves(t *testing.T) {
	const x = "10.0.0.5/24"
	ip := netip.MustParseAddr("10.0.0.5")
	for name, tt := range map[string]struct {
		before, after bool // the gates are valid
		own           bool // by the one that gets it
		trace         []string
		state         vip.State
	}{
		"valid to valid":         {true, true, true, []string{"move 3 4 10.0.0.5", "announce 10.0.0.5 eth0"}, vip.StatePresent},
		"valid to shut":          {true, false, true, []string{"move 3 4 10.0.0.5"}, vip.StatePresent},
		"valid to not owned":     {true, false, false, []string{"move 3 4 10.0.0.5", "delete 10.0.0.5/32 eth0", "disarm 10.0.0.5"}, vip.StateAbsent},
		"shut to valid":          {false, true, true, []string{"move 3 4 10.0.0.5", "announce 10.0.0.5 eth0"}, vip.StatePresent},
		"shut to shut":           {false, false, true, []string{"move 3 4 10.0.0.5"}, vip.StatePresent},
		"shut to not owned":      {false, false, false, []string{"move 3 4 10.0.0.5", "delete 10.0.0.5/32 eth0", "disarm 10.0.0.5"}, vip.StateAbsent},
		"valid to valid, unseen": {true, true, false, []string{"move 3 4 10.0.0.5", "delete 10.0.0.5/32 eth0", "disarm 10.0.0.5"}, vip.StateAbsent},
	} {
		t.Run(name, func(t *testing.T) {
			for _, listed := range []bool{false, true} { // by both for a while
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
						b.host.BeforeBatch = func(changes []vip.Change) {
							for _, c := range changes {
								group, armed := b.guard.Group(ip)
								if c.Kind == vip.DeleteAddress && (!armed || group != 4) {
									t.Errorf("deleted before it obeys the other gate: armed %v for group %d", armed, group)
								}
							}
						}
					})
					one, two := b.first(), b.second()
					one.open(true, 1)
					one.want(true, x)
					one.open(tt.before, 1)
					two.open(tt.after, 1)
					two.want(tt.own)
					b.trace.Take()
					if listed {
						two.want(tt.own, x)
						b.expectTrace()
						if got := two.state("10.0.0.5"); tt.own && got != vip.StateWaiting || !tt.own && got != vip.StateAbsent {
							t.Errorf("while another group has it: %v", got)
						}
						one.want(true)
					} else {
						vip.SetAll(vip.Want{Holding: one.Holding, Wanted: b.wanted(true, 1)}, vip.Want{Holding: two.Holding, Wanted: b.wanted(tt.own, 1, x)})
						synctest.Wait()
					}
					b.expectTrace(tt.trace...)
					if got := two.state("10.0.0.5"); got != tt.state || one.state("10.0.0.5") != -1 {
						t.Errorf("%v, and for the one before %v", got, one.state("10.0.0.5"))
					}
					if group, armed := b.guard.Group(ip); armed != (tt.state == vip.StatePresent) || armed && group != 4 {
						t.Errorf("armed %v for group %d", armed, group)
					}
					// It comes to life with the gate of the one that has it.
					one.open(true, 1)
					synctest.Wait()
					b.expectTrace()
					if tt.state == vip.StatePresent {
						two.open(false, 1)
						two.open(true, 2)
						synctest.Wait()
						b.expectTrace("announce 10.0.0.5 eth0")
					}
				})
			}
		})
	}
}

// TestBothList: of two Holdings that list and own an address the one that has it keeps
// it until it has let go, of the guard entry, too.
func TestBothList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		two.want(true, "10.0.0.5/24")
		one.want(true, "10.0.0.5/24", "10.0.0.6/24")
		b.trace.Take()
		if one.state("10.0.0.5") != vip.StateWaiting || two.state("10.0.0.5") != vip.StatePresent {
			t.Errorf("%v, %v", one.state("10.0.0.5"), two.state("10.0.0.5"))
		}
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "delete" {
				return errors.New("busy")
			}
			return nil
		})
		two.want(false, "10.0.0.5/24")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		b.expectTrace()
		if one.state("10.0.0.5") != vip.StateWaiting || two.state("10.0.0.5") != vip.StateRemoving {
			t.Errorf("while it cannot be deleted: %v, %v", one.state("10.0.0.5"), two.state("10.0.0.5"))
		}
		b.host.Fail(nil)
		if err := two.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		b.expectTrace("delete 10.0.0.5/32 eth0", "disarm 10.0.0.5", "arm 10.0.0.5", "add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		if one.state("10.0.0.5") != vip.StatePresent || two.state("10.0.0.5") != vip.StateAbsent {
			t.Errorf("%v, %v", one.state("10.0.0.5"), two.state("10.0.0.5"))
		}
		// Then it is the other way round.
		two.want(true, "10.0.0.5/24")
		b.expectTrace()
		one.want(false, "10.0.0.6/24")
		b.expectTrace("move 3 4 10.0.0.5", "delete 10.0.0.6/32 eth0", "disarm 10.0.0.6", "announce 10.0.0.5 eth0")
	})
}

// TestBothFail: of two Holdings that list and own an address that neither can put up, one
// goes on trying.
func TestBothFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "add" {
				return errors.New("no room")
			}
			return nil
		})
		one.want(true, "10.0.0.5/24")
		two.want(true, "10.0.0.5/24")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.expectTrace("arm 10.0.0.5")
		if one.state("10.0.0.5") != vip.StateFailed || two.state("10.0.0.5") != vip.StateWaiting {
			t.Errorf("%v, %v", one.state("10.0.0.5"), two.state("10.0.0.5"))
		}
	})
}

// TestRefreshedTogether: lifetimes whose refreshes are due at about the same time are
// refreshed at once from then on.
func TestRefreshedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Lifetime = 30 * time.Second })
		one, two := b.first(), b.second()
		for _, h := range []half{one, two} {
			h.open(true, 1)
		}
		one.want(true, "10.0.0.5/24")
		time.Sleep(4 * time.Second)
		two.want(true, "10.0.0.6/24")
		b.trace.Take()
		for range 3 {
			time.Sleep(6 * time.Second)
			synctest.Wait()
			b.expectTrace("refresh 10.0.0.5/32 eth0", "refresh 10.0.0.6/32 eth0")
			time.Sleep(4 * time.Second)
		}
	})
}

// TestBeside: a Holding tells of the changes of those beside it, and of no others.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		beside := half{b.h.Beside(vip.NewGate(b.guard, 5, b.now)), b, nil}
		other := b.second()
		synctest.Wait()
		told := func(c <-chan struct{}) bool {
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		main, any := b.h.Changed(), b.keeper.Changed()
		other.want(false, "10.0.0.5/24")
		if told(main) || !told(any) {
			t.Errorf("another one's change: told %v, by the keeper %v", told(main), told(any))
		}
		any = b.keeper.Changed()
		beside.want(false, "10.0.0.6/24")
		if !told(main) || !told(any) {
			t.Errorf("the change of one beside it: told %v, by the keeper %v", told(main), told(any))
		}
	})
}

// TestMoveRefused: what the guard does not move is let go by the one and taken by the
// other, and is under the guard all the time.
func TestMoveRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		one.want(true, "10.0.0.5/24")
		two.want(true, "10.0.0.5/24")
		b.trace.Take()
		b.guard.FailMove(errors.New("no room"))
		one.want(true)
		b.expectTrace("delete 10.0.0.5/32 eth0", "disarm 10.0.0.5", "arm 10.0.0.5", "add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		if err := two.Status().Err; err != nil || two.state("10.0.0.5") != vip.StatePresent {
			t.Errorf("%v, %v", two.state("10.0.0.5"), err)
		}
	})
}

// TestMoveToAnotherLink: an address whose next group has it on another link goes from
// the one before it comes to the other.
func TestMoveToAnotherLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		one.want(true, "10.0.0.5/24")
		b.trace.Take()
		other := b.wanted(true, 1, "10.0.0.5/24")
		other.Addresses[0].Link = "eth1"
		vip.SetAll(vip.Want{Holding: one.Holding, Wanted: b.wanted(true, 1)}, vip.Want{Holding: two.Holding, Wanted: other})
		synctest.Wait()
		b.expectTrace("move 3 4 10.0.0.5", "delete 10.0.0.5/32 eth0", "add 10.0.0.5/24 eth1", "announce 10.0.0.5 eth1")
		b.expectAddresses()
	})
}

// TestGivenAwayIsNotReleased: what a Holding gave to one that does not own it is released
// when it is off the kernel, and no sooner: there may be no guard.
func TestGivenAwayIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		one.want(true, "10.0.0.5/24")
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "delete" {
				return errors.New("busy")
			}
			return nil
		})
		one.open(false, 1)
		vip.SetAll(vip.Want{Holding: one.Holding, Wanted: b.wanted(false, 1)}, vip.Want{Holding: two.Holding, Wanted: b.wanted(false, 1, "10.0.0.5/24")})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := one.WaitReleased(ctx); err == nil || !strings.Contains(err.Error(), "10.0.0.5") {
			t.Errorf("released: %v", err)
		}
		b.host.Fail(nil)
		if err := one.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectAddresses()
	})
}

// TestCopyMoves: someone else's copy that is silent on a standby serves as soon as
// another group, which lists the address as well, owns it.
func TestCopyMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) {
			c.Unguarded = func(string, netip.Addr) string { return "" }
		})
		one, two := b.first(), b.second()
		b.host.Configure("eth0", "10.0.0.5/24")
		one.want(false, "10.0.0.5/24")
		two.want(false, "10.0.0.5/24")
		b.expectTrace("arm 10.0.0.5")
		if one.state("10.0.0.5") != vip.StateForeign {
			t.Errorf("%v", one.state("10.0.0.5"))
		}
		two.open(true, 1)
		two.want(true, "10.0.0.5/24")
		b.expectTrace("move 3 4 10.0.0.5", "announce 10.0.0.5 eth0")
		if two.state("10.0.0.5") != vip.StateBorrowed || one.state("10.0.0.5") != vip.StateAbsent {
			t.Errorf("%v, %v", two.state("10.0.0.5"), one.state("10.0.0.5"))
		}
	})
}

// TestClose: a Holding that has been closed leaves nothing on the kernel and in the
// guard, and its gate does nothing any more to the number, which may be another's.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		one.want(true, "10.0.0.5/24")
		two.want(true, "10.0.0.6/24", "10.0.0.7/24")
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "delete" {
				return errors.New("busy")
			}
			return nil
		})
		b.trace.Take()
		one.want(true, "10.0.0.5/24", "10.0.0.7/24")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := two.Close(ctx); err == nil || !strings.Contains(err.Error(), "10.0.0.6") || strings.Contains(err.Error(), "10.0.0.7") {
			t.Errorf("closed with an address on the kernel: %v", err)
		}
		if two.gate.Open(2) || b.guard.Deadline(4) != 0 {
			t.Error("its gate can be opened")
		}
		b.host.Fail(nil)
		if err := two.Close(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectTrace("move 4 3 10.0.0.7", "announce 10.0.0.7 eth0", "delete 10.0.0.6/32 eth0", "disarm 10.0.0.6")
		if n := len(b.keeper.Status()); n != 1 {
			t.Errorf("%d Holdings", n)
		}
		// The number is another's.
		three := b.second()
		three.open(true, 1)
		three.want(true, "10.0.0.6/24")
		deadline := b.guard.Deadline(4)
		two.gate.Shut()
		two.gate.Renew(1, b.now()+2*time.Hour)
		two.want(true, "10.0.0.8/24")
		if got := b.guard.Deadline(4); got != deadline || got == 0 {
			t.Errorf("a gate that has ended stored %v", got)
		}
		b.expectTrace("arm 10.0.0.6", "add 10.0.0.6/32 eth0", "announce 10.0.0.6 eth0")
		if err := two.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := b.end(); err != nil {
			t.Error(err)
		}
		if err := one.Close(t.Context()); err == nil {
			t.Error("closed by a keeper that has ended")
		}
	})
}

// TestNoHoldingWaitsForAnother: while a thousand addresses of one are added, the release
// of another is done before the next batch, and what another takes comes first in it.
func TestNoHoldingWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			batches [][]vip.Change
			during  func()
		)
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.BeforeBatch = func(changes []vip.Change) {
				batches = append(batches, slices.Clone(changes))
				if len(batches) == 2 && during != nil {
					during()
				}
			}
		})
		one, two := b.first(), b.second()
		one.open(true, 1)
		two.open(true, 1)
		two.want(true, "10.0.0.5/24")
		for _, tt := range []struct {
			name string
			own  bool
			kind vip.ChangeKind
		}{{"release", false, vip.DeleteAddress}, {"take", true, vip.AddAddress}} {
			batches = nil
			during = func() { two.Set(b.wanted(tt.own, 1, "10.0.0.5/24")) }
			one.want(true, many(1000)...)
			if len(batches) < 4 {
				t.Fatalf("%d batches", len(batches))
			}
			if c := batches[2][0]; c.Kind != tt.kind || c.Address.Prefix.Addr().String() != "10.0.0.5" {
				t.Errorf("%s: after the batch in which it was asked for comes %v of %v", tt.name, c.Kind, c.Address.Prefix)
			}
			n := 0
			for _, batch := range batches {
				n += len(batch)
			}
			if n != 1001 {
				t.Errorf("%s: %d changes", tt.name, n)
			}
			during = nil
			one.want(false, many(1000)...)
		}
	})
}
