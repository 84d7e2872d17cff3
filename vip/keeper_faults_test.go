package vip_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

func TestFailedDeleteIsRetriedAndStaysArmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24", "10.0.0.6/24")
		b.trace.Take()
		fails := 5
		b.host.Fail(func(op string, _ int, p netip.Prefix) error {
			if op == "delete" && p.Addr() == netip.MustParseAddr("10.0.0.5") && fails > 0 {
				fails--
				return errors.New("rtnl is on fire")
			}
			return nil
		})
		b.gate.Shut()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		err := b.h.Release(ctx)
		if err == nil || !strings.Contains(err.Error(), "10.0.0.5/24 dev eth0") {
			t.Errorf("Release: %v", err)
		}
		b.expectTrace("delete 10.0.0.6/32 eth0", "disarm 10.0.0.6")
		s := b.expectState("10.0.0.5", vip.StateRemoving)
		if s.Err == nil || !s.Present || b.h.Status().DeleteFailures == 0 {
			t.Errorf("status %+v", s)
		}
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		b.expectTrace("delete 10.0.0.5/32 eth0", "disarm 10.0.0.5")
		if n := b.h.Status().DeleteFailures; n != 5 {
			t.Errorf("%d failures counted, want 5", n)
		}
	})
}

// An errorLog counts the lines at error level, and the others from info.
type errorLog struct {
	slog.Handler
	errors, rest int
}

func (l *errorLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler       { return l }

func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		l.errors++
	} else if r.Level >= slog.LevelInfo {
		l.rest++
	}
	return nil
}

func TestDeleteThatKeepsFailingIsReportedOnce(t *testing.T) {
	for _, end := range []string{"works", "someone else", "wanted again"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, tries := &errorLog{}, 0
				b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Logger = slog.New(log) })
				b.own("10.0.0.5/24")
				b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
					if op != "delete" {
						return nil
					}
					tries++
					return fmt.Errorf("rtnl is on fire, try %d", tries) // another text each time
				})
				b.gate.Shut()
				b.h.Set(b.wanted(false, 1, "10.0.0.5/24"))
				synctest.Wait()
				*log = errorLog{errors: log.errors}
				began := b.expectState("10.0.0.5", vip.StateRemoving)
				changed := b.h.Changed()
				time.Sleep(10 * time.Second)
				s := b.expectState("10.0.0.5", vip.StateRemoving)
				if log.errors != 1 || log.rest != 0 {
					t.Errorf("%d lines at error level and %d others, want 1 and 0", log.errors, log.rest)
				}
				// 10, 20, ... 640 ms, then each second.
				if tries < 14 || tries > 17 || s.DeleteFailures != tries {
					t.Errorf("%d tries in 10 s, %d in status", tries, s.DeleteFailures)
				}
				if st := b.h.Status(); st.NotRemoved != 1 || st.DeleteFailures != uint64(tries) || s.Err == nil || s.Since != began.Since {
					t.Errorf("status %+v", st)
				}
				select {
				case <-changed:
					t.Error("each try was told as a change")
				default:
				}
				want := vip.StateAbsent
				switch end {
				case "works":
					b.host.Fail(nil)
				case "someone else":
					b.host.Unconfigure("eth0", "10.0.0.5/32")
				case "wanted again":
					b.own("10.0.0.5/24")
					want = vip.StatePresent
				}
				time.Sleep(time.Second)
				s = b.expectState("10.0.0.5", want)
				if b.h.Status().NotRemoved != 0 || s.DeleteFailures != 0 || s.Err != nil || log.errors != 1 || log.rest == 0 {
					t.Errorf("after it: %+v, log %+v", s, log)
				}
				b.host.Fail(nil)
			})
		})
	}
}

// What fails is tried each second; a release does not wait for that.
func TestReleaseDoesNotWaitForABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24")
		b.host.Fail(func(string, int, netip.Prefix) error { return errors.New("no") })
		// To another link: neither can the new place be taken nor the old one left.
		w := b.wanted(true, 1, "10.0.0.5/24")
		w.Addresses[0].Link = "eth1"
		b.h.Set(w)
		time.Sleep(10*time.Second + 300*time.Millisecond)
		b.expectState("10.0.0.5", vip.StateFailed)
		if n := b.h.Status().NotRemoved; n != 1 {
			t.Errorf("%d addresses not removed, want 1", n)
		}
		b.host.Fail(nil)
		start := time.Now()
		if err := b.h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("release took %v", d)
		}
		b.expectAddresses()
	})
}

func TestRunDeletesBeforeItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24", "fd00::5/64")
		if err := b.end(); err != nil {
			t.Error(err)
		}
		b.expectAddresses()
		if n := len(b.guard.Armed()); n != 0 {
			t.Errorf("%d addresses armed", n)
		}
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRunGivesUpDeletingAfterABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24")
		b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
			if op == "delete" {
				return errors.New("no")
			}
			return nil
		})
		start := time.Now()
		err := b.end()
		if err == nil || !strings.Contains(err.Error(), "10.0.0.5/24 dev eth0") {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(start); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("gave up after %v", d)
		}
		if n := len(b.guard.Armed()); n != 1 {
			t.Errorf("%d addresses armed, want the one that is still there", n)
		}
		if err := b.h.WaitReleased(t.Context()); err == nil {
			t.Error("released")
		}
	})
}

func TestGuardRefusesNothingIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.guard.FailArm(errors.New("map is full"))
		b.own("10.0.0.5/24")
		time.Sleep(5 * time.Second)
		b.expectTrace()
		b.expectAddresses()
		b.expectState("10.0.0.5", vip.StateFailed)
		if err := b.h.Status().Err; err == nil {
			t.Error("no error in status")
		}
		b.guard.FailArm(nil)
		time.Sleep(2 * time.Second)
		b.expectTrace("arm 10.0.0.5", "add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
		if err := b.h.Status().Err; err != nil {
			t.Error(err)
		}
	})
}

// thousand returns a list that takes a second to add at 1 ms each.
func thousand() (addrs []string) {
	for i := range 1000 {
		addrs = append(addrs, fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200))
	}
	return addrs
}

func TestReleaseDoesNotWaitForALongTake(t *testing.T) {
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprintf("failing=%v", failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
					b.host.Delay = time.Millisecond
					b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
						if op == "add" {
							if tries++; failing {
								return errors.New("no")
							}
						}
						return nil
					})
				})
				addrs := thousand()
				b.gate.Open(1)
				b.gate.Renew(1, b.now()+time.Hour)
				b.h.Set(b.wanted(true, 1, addrs...))
				time.Sleep(10500 * time.Microsecond)
				if !failing { // the gate alone stops it as well
					b.gate.Shut()
				}
				b.h.Set(b.wanted(false, 1, addrs...))
				start := time.Now()
				if err := b.h.WaitReleased(t.Context()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if tries > 11 {
					t.Errorf("%d addresses were added or tried", tries)
				}
				if d := time.Since(start); d > 15*time.Millisecond {
					t.Errorf("release took %v", d)
				}
			})
		})
	}
}

func TestNothingIsAddedOnceTheGateIsShut(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"shut":   func(b *bench) { time.Sleep(10500 * time.Microsecond); b.gate.Shut() },
		"lapsed": func(*bench) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(b *bench, _ *vip.KeeperConfig) { b.host.Delay = time.Millisecond })
				b.gate.Open(1)
				b.gate.Renew(1, b.now()+10500*time.Microsecond)
				b.h.Set(b.wanted(true, 1, thousand()...))
				end(b)
				time.Sleep(time.Minute)
				if n, m := b.trace.Count("add"), b.trace.Count("announce"); n > 11 || m > 10 {
					t.Errorf("%d addresses added, %d announcements", n, m)
				}
				b.trace.Take()
				b.gate.Open(2)
				b.gate.Renew(2, b.now()+time.Hour)
				time.Sleep(2 * time.Second)
				if n, m := b.trace.Count("add"), b.trace.Count("announce"); n < 989 || m != 1000 {
					t.Errorf("after the gate is open again: %d addresses added, %d announcements", n, m)
				}
			})
		})
	}
}

func TestLifetimeIsRefreshedOnlyWhileValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ *bench, c *vip.KeeperConfig) { c.Lifetime = 30 * time.Second })
		b.own("10.0.0.5/24")
		b.trace.Take()
		time.Sleep(65 * time.Second)
		if n := b.trace.Count("refresh"); n != 6 {
			t.Errorf("%d refreshes in 65 s, want 6", n)
		}
		b.gate.Shut()
		b.trace.Take()
		time.Sleep(time.Minute)
		b.expectTrace("expire 10.0.0.5/32 eth0")
		b.gate.Open(2)
		b.gate.Renew(2, b.now()+time.Hour)
		synctest.Wait()
		// The refresh was due since before the lapse, and follows the add.
		b.expectTrace("add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0", "refresh 10.0.0.5/32 eth0")
	})
}

func TestListChangesWhileOwning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.own("10.0.0.5/24", "10.0.0.6/24")
		b.trace.Take()
		b.h.Set(b.wanted(true, 1, "10.0.0.6/24", "10.0.0.7/24"))
		synctest.Wait()
		b.expectTrace("delete 10.0.0.5/32 eth0",
			"arm 10.0.0.7", "add 10.0.0.7/32 eth0", "announce 10.0.0.7 eth0", "disarm 10.0.0.5")
		if n := len(b.h.Status().Addresses); n != 2 {
			t.Errorf("%d addresses in status, want 2", n)
		}
		// Another label cannot be had in place.
		w := b.wanted(true, 1, "10.0.0.6/24", "10.0.0.7/24")
		w.Addresses[0].Label = "eth0:vip"
		b.h.Set(w)
		synctest.Wait()
		b.expectTrace("delete 10.0.0.6/32 eth0", "add 10.0.0.6/32 eth0", "announce 10.0.0.6 eth0")
		if a, _ := b.host.Address("eth0", "10.0.0.6/32"); a.Label != "eth0:vip" || a.Protocol != vip.AddrProtocol {
			t.Errorf("added as %+v", a)
		}
		// Another link.
		w.Addresses[0].Link = "eth1"
		b.h.Set(w)
		synctest.Wait()
		b.expectTrace("delete 10.0.0.6/32 eth0", "add 10.0.0.6/24 eth1", "announce 10.0.0.6 eth1")
	})
}

func TestAnnounceErrorsAreReportedAndRetriedBySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Pointer[error]
		var tries atomic.Int32
		set := func(err error) { fail.Store(&err) }
		set(nil)
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.ann.Hook = func(vip.Link, netip.Addr) error { tries.Add(1); return *fail.Load() }
		})
		set(errors.New("network is down"))
		b.gate.Open(1)
		b.gate.Renew(1, b.now()+time.Hour)
		w := b.wanted(true, 1, "10.0.0.5/24")
		w.Schedule = vip.Schedule{Repeat: 2, Delay: time.Second}
		b.h.Set(w)
		synctest.Wait()
		s := b.expectState("10.0.0.5", vip.StatePresent)
		if s.AnnounceErr == nil || tries.Load() != 2 || b.h.Status().AnnounceErrors != 2 {
			t.Errorf("%d tries, status %+v", tries.Load(), s)
		}
		set(nil)
		time.Sleep(2 * time.Second)
		if s := b.expectState("10.0.0.5", vip.StatePresent); s.AnnounceErr != nil || s.Announced != 2 {
			t.Errorf("status %+v", s)
		}
		// A full queue is not an error: the same frame goes out a moment later.
		set(fmt.Errorf("announce: %w", vip.ErrBusy))
		b.h.Announce("test")
		time.Sleep(10 * time.Millisecond)
		set(nil)
		time.Sleep(10 * time.Millisecond)
		if s := b.expectState("10.0.0.5", vip.StatePresent); s.AnnounceErr != nil || s.Announced != 4 {
			t.Errorf("status after a full queue %+v", s)
		}
	})
}

func TestListingFailsAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench, _ *vip.KeeperConfig) {
			b.host.Fail(func(op string, _ int, _ netip.Prefix) error { return errors.New("no netlink") })
		})
		if err := b.h.WaitReleased(t.Context()); err != nil {
			t.Error(err)
		}
		b.host.Fail(nil)
		b.own("10.0.0.5/24")
		b.expectAddresses("10.0.0.5/32")
	})
}

// A lateHost delivers a first Snapshot that it took before the test's addresses.
type lateHost struct {
	*viptest.Host
	deliver chan struct{}
}

func (h lateHost) Watch(ctx context.Context, sink func(vip.Event)) error {
	links, err := h.Links()
	if err != nil {
		return err
	}
	<-h.deliver
	sink(vip.Event{Kind: vip.Snapshot, Links: links})
	time.Sleep(time.Second)
	return h.Host.Watch(ctx, sink)
}

// A listing that another goroutine began before an add says nothing about it.
func TestSnapshotOlderThanAnAddIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deliver := make(chan struct{})
		b := newBench(t, func(b *bench, c *vip.KeeperConfig) { c.Host = lateHost{b.host, deliver} })
		b.own("10.0.0.5/24", "fd00::5/64")
		b.trace.Take()
		close(deliver)
		synctest.Wait()
		b.expectTrace()
		b.expectState("10.0.0.5", vip.StatePresent)
		if n := b.h.Status().Readded; n != 0 {
			t.Errorf("%d addresses lost and put back", n)
		}
		time.Sleep(2 * time.Second)
		b.host.Unconfigure("eth0", "10.0.0.5/32")
		synctest.Wait()
		b.expectTrace("add 10.0.0.5/32 eth0", "announce 10.0.0.5 eth0")
	})
}

func TestJournalAndLeftovers(t *testing.T) {
	for _, noMarks := range []bool{false, true} {
		t.Run(fmt.Sprintf("noMarks=%v", noMarks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "addresses.json")
				b := newBench(t, func(b *bench, c *vip.KeeperConfig) {
					b.host.NoMarks = noMarks
					b.host.Fail(func(op string, _ int, _ netip.Prefix) error {
						if op == "add" && noMarks {
							if _, err := os.Stat(path); err != nil {
								return fmt.Errorf("not in the journal before the add: %w", err)
							}
						}
						return nil
					})
					c.Journal = vip.NewJournal(path)
				})
				b.own("10.0.0.5/24", "10.0.0.6/24")
				b.gate.Shut()
				b.host.Unconfigure("eth0", "10.0.0.6/32")
				synctest.Wait()

				// As after kill -9: the next run knows only the kernel and the file.
				b.host.Configure("eth0", "10.0.0.9/32")
				removed, err := vip.RemoveLeftovers(b.host, path, nil)
				if err != nil {
					t.Error(err)
				}
				want := []vip.Leftover{{Link: "eth0", Prefix: netip.MustParsePrefix("10.0.0.5/32")}}
				if !slices.Equal(removed, want) {
					t.Errorf("removed %v, want %v", removed, want)
				}
				b.expectAddresses("10.0.0.9/32")
				if left, _ := filepath.Glob(path); len(left) > 0 {
					t.Error("the journal is still there")
				}
				removed, err = vip.RemoveLeftovers(b.host, path, nil)
				if err != nil || len(removed) != 0 {
					t.Errorf("again: %v, %v", removed, err)
				}
			})
		})
	}
}

func TestLeftoversWithoutDataDir(t *testing.T) {
	trace := &viptest.Trace{}
	h := viptest.NewHost(trace, "eth0", "eth1")
	h.Configure("eth0", "10.0.0.1/24")
	h.ConfigureAs("eth0", "10.0.0.5/32", vip.AddrProtocol)
	h.ConfigureAs("eth1", "10.0.0.6/32", vip.AddrProtocol)
	h.ConfigureAs("eth1", "fd00::9/64", 2) // the kernel's, from a router advertisement
	tries := 0
	h.Fail(func(op string, link int, _ netip.Prefix) error {
		if tries++; op == "delete" && link == 1 && tries < 4 {
			return errors.New("busy")
		}
		return nil
	})
	removed, err := vip.RemoveLeftovers(h, "", nil)
	if err != nil || len(removed) != 2 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if got := append(h.Has("eth0"), h.Has("eth1")...); !slices.Equal(got, []string{"10.0.0.1/24", "fd00::9/64"}) {
		t.Errorf("left: %v", got)
	}
}
