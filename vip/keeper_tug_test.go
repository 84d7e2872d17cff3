package vip_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// Someone deletes the address every 10 ms for a while: it comes back all the time,
// but neither the log nor the network is filled.
func TestTugOfWarIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &errorLog{}
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Logger = slog.New(log) })
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.0.0.5/24")
		w.Schedule = vip.Schedule{Repeat: 5}
		b.h.Set(w)
		synctest.Wait()
		b.trace.Take()
		*log = errorLog{}
		const lasts = 3 * time.Minute
		there := 0
		for range lasts / (10 * time.Millisecond) {
			time.Sleep(10 * time.Millisecond)
			if slices.Contains(b.host.Has("eth0"), "10.0.0.5/32") {
				there++
				b.host.Unconfigure("eth0", "10.0.0.5/32")
			}
		}
		synctest.Wait()
		s := b.h.Status().Addresses[0]
		if !s.Contested || !strings.Contains(s.Why, "removes it again and again: ") {
			t.Errorf("status %+v", s)
		}
		if adds := b.trace.Count("add"); adds < int(lasts/time.Second) || adds > int(lasts/(200*time.Millisecond))+20 {
			t.Errorf("%d re-adds in %v", adds, lasts)
		}
		if n := b.trace.Count("announce"); n < int(lasts/(2*time.Second)) || n > int(lasts/time.Second)+5*5 {
			t.Errorf("%d announcements in %v", n, lasts)
		}
		// Three losses and returns one by one, the beginning, and a line a minute.
		if lines := log.errors + log.rest; lines > 16 {
			t.Errorf("%d lines in the log (%d errors)", lines, log.errors)
		}
		b.h.Status() // the log is the keeper's again
		// It is over a minute after the last removal.
		time.Sleep(2 * time.Minute)
		if s := b.expectState("10.0.0.5", vip.StatePresent); s.Contested || s.Why != "" {
			t.Errorf("after it: %+v", s)
		}
	})
}

// An announcement that fails is tried again soon, and that it keeps failing is told.
func TestFailedAnnouncementsAreTriedAgain(t *testing.T) {
	for name, err := range map[string]error{"refused": errors.New("operation not permitted"), "no room, for ever": vip.ErrBusy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mended atomic.Bool
				var tries atomic.Int64
				b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
					b.ann.Hook = func(vip.Link, netip.Addr) error {
						if mended.Load() {
							return nil
						}
						tries.Add(1)
						return err
					}
				})
				changes := 0
				b.own("10.0.0.5/24")
				changed := b.h.Changed()
				for range 300 {
					time.Sleep(10 * time.Millisecond)
					select {
					case <-changed:
						changes++
						changed = b.h.Changed()
					default:
					}
				}
				s := b.expectState("10.0.0.5", vip.StatePresent)
				if s.AnnounceErr == nil || s.AnnounceFailures < 3 || changes != 1 {
					t.Errorf("%d failures in a row, %v, told %d times", s.AnnounceFailures, s.AnnounceErr, changes)
				}
				synctest.Wait()
				before := tries.Load()
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := tries.Load() - before; n < 12 || n > 20 {
					t.Errorf("%d tries in a minute", n)
				}
				mended.Store(true)
				time.Sleep(6 * time.Second)
				if s := b.expectState("10.0.0.5", vip.StatePresent); s.AnnounceErr != nil || s.AnnounceFailures != 0 || s.Announced == 0 {
					t.Errorf("after it: %+v", s)
				}
			})
		})
	}
}

// Claims of other machines are answered by one announcement each 10 s, however many
// they are, and only while the address is served here.
func TestDefendIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		ip := netip.MustParseAddr("10.0.0.5")
		b.keeper.Defend(2, ip)
		b.own("10.0.0.5/24")
		b.trace.Take()
		if !b.keeper.Serves(2, ip) || b.keeper.Serves(1, ip) || b.keeper.Serves(2, netip.MustParseAddr("10.0.0.6")) {
			t.Error("Serves is wrong")
		}
		b.keeper.Defend(2, ip)
		synctest.Wait()
		b.expectTrace("announce 10.0.0.5 eth0") // at once
		b.keeper.Defend(1, ip)                  // on another link: nothing
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			b.keeper.Defend(2, ip)
		}
		synctest.Wait()
		if n := b.trace.Count("announce"); n != 3 {
			t.Errorf("%d announcements in 30 s of claims, want 3", n)
		}
		b.trace.Take()
		time.Sleep(20 * time.Second)
		b.trace.Take() // the one that was due
		if s := b.expectState("10.0.0.5", vip.StatePresent); s.Defended < 4 || s.Defended > 5 {
			t.Errorf("%d answers counted, want 4 or 5", s.Defended)
		}
		b.gate.Shut()
		if b.keeper.Serves(2, ip) {
			t.Error("serves with the gate shut")
		}
		b.keeper.Defend(2, ip)
		time.Sleep(time.Minute)
		b.expectTrace()
	})
}
