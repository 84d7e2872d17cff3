package guard

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/raftvip/raftvip/internal/boottime"
)

// crash lets go of everything that the kernel takes from a dead process, and of
// nothing else.
func crash(t *testing.T, g *Guard) {
	t.Helper()
	g.backend.abandon()
	g.release()
	g.lockFD, g.nl = -1, nil
}

func delVIPs(t *testing.T, ns *netNS) {
	t.Helper()
	in(t, ns, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range list {
			if ip, _ := netip.AddrFromSlice(a.IP); ip.Unmap() == vip4 || ip == vip6 {
				if err := netlink.AddrDel(l, &a); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// After a crash the addresses are still there. Whatever mechanism the next process
// uses, at no instant are they answered, and what the dead one left goes.
func TestAdoptionAfterCrash(t *testing.T) {
	needKernel(t)
	kinds := []Kind{BPFTCX, BPFClsact, NFT}
	for _, from := range kinds {
		for _, to := range kinds {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				pins := newBPFFS(t)
				w := newWire(t)
				g, err := tryOpen(w.node, Options{Kind: from, PinDir: pins})
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Arm(1, vips); err != nil {
					t.Fatal(err)
				}
				if err := addVIPs(w.node); err != nil {
					t.Fatal(err)
				}
				p := newProber(t, w, time.Millisecond)
				shut := boottime.Now()
				crash(t, g)
				time.Sleep(30 * time.Millisecond)

				g = open(t, w.node, Options{Kind: to, PinDir: pins})
				if err := g.Check(); err != nil {
					t.Fatal(err)
				}
				p.checkSilent(t, shut)
				s := g.Status()
				s.Warnings = slices.DeleteFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, "clocksource") }) // of this machine
				if s.Inherited != 2 || s.Repairs != 0 || len(s.Warnings) > 0 && from == BPFTCX && to == BPFTCX {
					t.Errorf("status after adoption: %+v", s)
				}

				// The old addresses go; then nothing is kept shut any more.
				delVIPs(t, w.node)
				if err := g.Check(); err != nil {
					t.Fatal(err)
				}
				if n := g.Status().Armed; n != 0 {
					t.Errorf("%d addresses still armed after they have gone", n)
				}

				// And the new process can own them.
				start(t, g)
				if err := g.Arm(2, vips); err != nil {
					t.Fatal(err)
				}
				g.SetDeadline(2, boottime.Now()+time.Hour)
				if err := addVIPs(w.node); err != nil {
					t.Fatal(err)
				}
				p.waitAnswered(t)
				delVIPs(t, w.node)
				if err := g.Close(); err != nil {
					t.Fatal(err)
				}
				if left := leftovers(t, w.node, pins); left != "" {
					t.Errorf("left behind:\n%s", left)
				}
			})
		}
	}
}

// A process that attaches nothing leaves the dead one's guard until its addresses
// are gone.
func TestCrashThenLifetime(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g, err := tryOpen(w.node, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		p := newProber(t, w, time.Millisecond)
		shut := boottime.Now()
		crash(t, g)
		g = open(t, w.node, Options{Kind: Lifetime, PinDir: opts.PinDir, Recheck: 10 * time.Millisecond})
		start(t, g)
		p.checkSilent(t, shut)
		delVIPs(t, w.node)
		eventually(t, "old guard removed", func() bool { return leftovers(t, w.node, opts.PinDir) == "" })
	})
}

// An inherited address may be armed again while it is still on the interface.
func TestArmInherited(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		opts.Leftovers = []netip.Addr{vip4, vip6, netip.MustParseAddr("10.9.9.9")}
		g := open(t, w.node, opts)
		start(t, g)
		if s := g.Status(); s.Inherited != 2 || s.Armed != 2 {
			t.Errorf("leftovers: %+v", s)
		}
		p := newProber(t, w, 2*time.Millisecond)
		p.checkSilent(t, boottime.Now())
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		g.SetDeadline(1, boottime.Now()+time.Hour)
		p.waitAnswered(t)
		if s := g.Status(); s.Inherited != 0 || s.Armed != 2 {
			t.Errorf("after arming: %+v", s)
		}
	})
}

// A namespace that is gone leaves pins that nobody will ever open again.
func TestCleanupOfDeadNamespace(t *testing.T) {
	needKernel(t)
	pins := newBPFFS(t)
	func() {
		ns := newNS(t)
		g, err := tryOpen(ns, Options{Kind: BPFTCX, PinDir: pins})
		if err != nil {
			t.Fatal(err)
		}
		other := newNS(t)
		in(t, other, func() error { return Cleanup(Options{PinDir: pins}) })
		if leftovers(t, ns, pins) == "" {
			t.Error("cleanup in one namespace removed the guard of another")
		}
		crash(t, g)
		ns.close()
	}()
	ns := newNS(t)
	eventually(t, "dead namespace cleaned", func() bool {
		in(t, ns, func() error { return Cleanup(Options{PinDir: pins}) })
		return leftovers(t, ns, pins) == ""
	})
}

func TestCleanup(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		clean := func(o Options) (err error) {
			in(t, w.node, func() error { err = Cleanup(o); return nil })
			return err
		}
		if err := clean(Options{PinDir: opts.PinDir}); err != nil {
			t.Fatalf("nothing to clean: %v", err)
		}
		opts.Instance = "dead"
		dead, err := tryOpen(w.node, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := dead.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		// The guard of a running process, even a stopped one, must stay.
		if err := clean(Options{PinDir: opts.PinDir}); !errors.Is(err, ErrInUse) {
			t.Errorf("running instance: %v, want ErrInUse", err)
		}
		if leftovers(t, w.node, opts.PinDir) == "" {
			t.Error("the guard of a running process was removed")
		}
		crash(t, dead)
		if err := clean(Options{PinDir: opts.PinDir, Instance: "another"}); err != nil {
			t.Error(err)
		}
		if leftovers(t, w.node, opts.PinDir) == "" {
			t.Error("another instance was removed")
		}
		if err := clean(Options{PinDir: opts.PinDir}); err != nil {
			t.Error(err)
		}
		if left := leftovers(t, w.node, opts.PinDir); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}
