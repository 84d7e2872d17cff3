package guard

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

var vips = []netip.Addr{vip4, vip6}

// tcxCount returns the number of tcx programs on a device of the current namespace.
func tcxCount(t testing.TB, ifindex int, dir direction) int {
	t.Helper()
	q, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(dir)})
	if err != nil {
		t.Fatal(err)
	}
	return len(q.Programs)
}

func attachedTo(g *Guard, name string) bool {
	for _, i := range g.Status().Interfaces {
		if i.Name == name {
			return i.Attached
		}
	}
	return false
}

func indexOf(t testing.TB, ns *netNS, name string) (index int) {
	t.Helper()
	in(t, ns, func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	})
	return index
}

func TestLinkAppearsLater(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		ns := newNS(t)
		opts.Recheck = time.Hour // Only events can find it.
		g := open(t, ns, opts)
		start(t, g)
		eventually(t, "first check", func() bool { return g.Status().Checked > 0 })
		time.Sleep(50 * time.Millisecond) // Let the subscription settle; the periodic check covers the rest.
		if g.Covers(999) == nil || len(g.Attached([]int{999})) != 1 {
			t.Error("an interface that is not there is covered")
		}
		addDevice(t, ns, "late0")
		t.Logf("attached after %v", eventually(t, "attached to late0", func() bool { return attachedTo(g, "late0") }))
		late := indexOf(t, ns, "late0")
		if err := g.Covers(late); err != nil {
			t.Errorf("late0 is not covered: %v", err)
		}
		if bad := g.Attached([]int{late}); len(bad) != 0 {
			t.Errorf("late0 is not attached to: %v", bad)
		}
		in(t, ns, func() error {
			l, err := netlink.LinkByName("late0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		})
		eventually(t, "late0 forgotten", func() bool {
			for _, i := range g.Status().Interfaces {
				if i.Name == "late0" {
					return false
				}
			}
			return true
		})
		if s := g.Status(); s.Repairs != 0 || !attachedTo(g, "lo") {
			t.Errorf("after a link has come and gone: %+v", s)
		}
	})
}

func TestRenamedLinkStaysGuarded(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		in(t, w.node, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetDown(l); err != nil {
				return err
			}
			if err := netlink.LinkSetName(l, "wan"); err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		})
		eventually(t, "attached to wan", func() bool { return attachedTo(g, "wan") })
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		p := newProber(t, w, 2*time.Millisecond)
		p.checkSilent(t, boottime.Now())
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g, err := tryOpen(w.node, opts)
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		g.SetDeadline(1, boottime.Now()+time.Minute)
		if leftovers(t, w.node, opts.PinDir) == "" {
			t.Fatal("nothing found while it is open: the test sees nothing")
		}
		stop()
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, w.node, opts.PinDir); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
		g.SetDeadline(1, 0)
		if err := g.Arm(1, vips); err == nil {
			t.Error("arm after close: no error")
		}
		if g.Status().Kind != opts.Kind || g.Close() != nil {
			t.Error("status or second close after close")
		}
	})
}

func TestNoLocal(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		ns := newNS(t)
		opts.NoLocal = true
		g := open(t, ns, opts)
		for range 2 {
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
			if n := len(g.Status().Interfaces); n != 0 {
				t.Errorf("%d interfaces attached", n)
			}
			if out := leftovers(t, ns, ""); strings.Contains(out, "lo: ") || strings.Contains(out, "\"lo\"") {
				t.Errorf("attached to the loopback:\n%s", out)
			}
		}
	})
}

// A clsact qdisc of somebody else, and its filters, stay.
func TestForeignQdiscStays(t *testing.T) {
	needKernel(t)
	ns := newNS(t)
	addDevice(t, ns, "d0")
	run(t, ns, "tc", "qdisc", "add", "dev", "d0", "clsact")
	g := open(t, ns, Options{Kind: BPFClsact})
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, ns, "tc", "qdisc", "show", "dev", "d0"); !strings.Contains(out, "clsact") {
		t.Errorf("foreign qdisc was deleted: %s", out)
	}
	// Ours goes, but not while somebody else has a filter on it.
	g = open(t, ns, Options{Kind: BPFClsact})
	foreign := passProgram(t)
	in(t, ns, func() error { return foreignFilter(1, foreign, egress, 7) })
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, ns, "tc", "filter", "show", "dev", "lo", "egress"); !strings.Contains(out, "foreign") {
		t.Errorf("foreign filter was deleted: %s", out)
	}
}

// passProgram is somebody else's program, which ends the chain.
func passProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := loadProgram("foreign", asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func foreignFilter(ifindex int, p *ebpf.Program, dir direction, prio uint16) error {
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: clsactParent(dir), Handle: 1, Protocol: unix.ETH_P_ALL, Priority: prio},
		Fd:          p.FD(), Name: "foreign", DirectAction: true,
	})
}

func TestOvertakenIsRepaired(t *testing.T) {
	needKernel(t)
	overtake := map[Kind]func(t *testing.T, w *wire){
		BPFTCX: func(t *testing.T, w *wire) {
			p := passProgram(t)
			for _, dir := range []direction{ingress, egress} {
				in(t, w.node, func() error {
					lk, err := link.AttachTCX(link.TCXOptions{Interface: w.ifindex, Program: p, Attach: tcxAttachType(dir), Anchor: link.Head()})
					if err == nil {
						t.Cleanup(func() { lk.Close() })
					}
					return err
				})
			}
		},
		BPFClsact: func(t *testing.T, w *wire) {
			p := passProgram(t)
			for _, dir := range []direction{ingress, egress} {
				in(t, w.node, func() error { return foreignFilter(w.ifindex, p, dir, 1) })
			}
		},
	}
	forKinds(t, func(t *testing.T, opts Options) {
		if overtake[opts.Kind] == nil {
			t.Skip("netdev chains cannot end the hook for others")
		}
		w := newWire(t)
		g := open(t, w.node, opts)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		overtake[opts.Kind](t, w)
		p := newProber(t, w, 2*time.Millisecond)
		p.waitAnswered(t) // The damage is real.
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		p.checkSilent(t, boottime.Now())
		if s := g.Status(); s.Repairs != 1 {
			t.Errorf("repairs %d, want 1", s.Repairs)
		}
		if err := g.Check(); err != nil || g.Status().Repairs != 1 {
			t.Errorf("second check: %v, repairs %d", err, g.Status().Repairs)
		}
	})
}

func TestRemovedIsRepaired(t *testing.T) {
	remove := map[Kind]func(t *testing.T, w *wire, g *Guard){
		BPFTCX: func(t *testing.T, w *wire, g *Guard) {
			if err := removePinnedLinks(g.Status().PinDir, func(string) bool { return true }); err != nil {
				t.Fatal(err)
			}
		},
		BPFClsact: func(t *testing.T, w *wire, _ *Guard) { run(t, w.node, "tc", "qdisc", "del", "dev", "eth0", "clsact") },
		NFT:       func(t *testing.T, w *wire, _ *Guard) { run(t, w.node, "nft", "flush", "ruleset") },
	}
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		opts.Recheck = 100 * time.Millisecond
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		g.SetDeadline(1, boottime.Now()+time.Hour)
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		p := newProber(t, w, 2*time.Millisecond)
		p.waitAnswered(t)
		remove[opts.Kind](t, w, g)
		t.Logf("repaired after %v", eventually(t, "repair", func() bool {
			s := g.Status()
			for _, i := range s.Interfaces {
				if i.Name == "eth0" && i.Repairs > 0 {
					return true
				}
			}
			return opts.Kind == NFT && s.Repairs > 0
		}))
		p.waitAnswered(t) // The lease is back as well.
		g.SetDeadline(1, 0)
		if opts.Kind == NFT {
			waitShut(t, g, 1)
		}
		p.checkSilent(t, boottime.Now())
	})
}

// waitShut waits until the kernel has no lease of the group, with nft.
func waitShut(t *testing.T, g *Guard, group uint32) {
	t.Helper()
	b := g.backend.(*nftBackend)
	d := eventually(t, "lease gone", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		left, err := b.leaseLeft(group)
		return err == nil && left == 0
	})
	t.Logf("shut after %v", d)
}

func TestInstances(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		ns := newNS(t)
		opts.Instance = "one"
		a := open(t, ns, opts)
		if g, err := tryOpen(ns, opts); err == nil {
			g.Close()
			t.Error("the same instance twice: no error")
		}
		opts.Instance = "two"
		b := open(t, ns, opts)
		for range 3 {
			if err := a.Check(); err != nil {
				t.Fatal(err)
			}
			if err := b.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if n := a.Status().Repairs + b.Status().Repairs; n != 0 {
			t.Errorf("two instances overtake each other: %d repairs", n)
		}
		other := open(t, newNS(t), opts) // Same name, other namespace, same interface number.
		for _, g := range []*Guard{a, b, other} {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		if left := leftovers(t, ns, opts.PinDir); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

// Repeated announcements of a daemon that was stopped between taking over and
// announcing must not leave.
func TestLateAnnouncementDoesNotLeave(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		out := packetSocket(t, w.node, "eth0")
		defer unix.Close(out)
		back := packetSocket(t, w.probe, "p0")
		defer unix.Close(back)
		na := ether(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, w.nodeMAC, unix.ETH_P_IPV6,
			ndPacket(136, vip6, netip.MustParseAddr("ff02::1"), vip6, w.nodeMAC))
		announce := func() {
			for range 3 {
				unix.Send(out, arpFrame(w.nodeMAC, vip4, vip4, false), 0)
				unix.Send(out, na, 0)
			}
		}
		g.SetDeadline(1, boottime.Now()+time.Hour)
		if opts.Kind == NFT {
			eventually(t, "lease", func() bool { announce(); return heard(back) > 0 })
		}
		announce()
		if n := heard(back); n < 6 {
			t.Errorf("lease valid: %d of 6 announcements left", n)
		}
		g.SetDeadline(1, 0)
		if opts.Kind == NFT {
			waitShut(t, g, 1)
		}
		before := g.Status().Drops.Total
		announce()
		if n := heard(back); n != 0 {
			t.Errorf("lease over: %d announcements left", n)
		}
		if d := g.Status().Drops.Total - before; d < 6 {
			t.Errorf("%d drops counted, want at least 6", d)
		}
	})
}

// heard counts the announcements that have come in until a pause of 20 ms.
func heard(fd int) int {
	buf := make([]byte, 2048)
	n := 0
	for {
		l, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return n
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		arp := l >= 42 && buf[12] == 8 && buf[13] == 6 && netip.AddrFrom4([4]byte(buf[28:32])) == vip4
		na := l >= 78 && buf[20] == 58 && buf[54] == 136 && netip.AddrFrom16([16]byte(buf[62:78])) == vip6
		if arp || na {
			n++
		}
	}
}

// Maps and programs are locked memory to Linux before 5.11: there a limit that root
// may not raise rules eBPF out, and nftables, which locks nothing, is next.
func TestNoLockedMemory(t *testing.T) {
	needKernel(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
			t.Error(err)
		}
	})
	s := open(t, newNS(t), Options{PinDir: newBPFFS(t)}).Status()
	if s.Kind != BPFTCX && (s.Kind != NFT || len(s.Refused) == 0) {
		t.Errorf("without locked memory: %+v", s)
	}
}

func TestAutoAndRefusals(t *testing.T) {
	needKernel(t)
	pins := newBPFFS(t)
	g := open(t, newNS(t), Options{PinDir: pins})
	if s := g.Status(); s.Kind != BPFTCX || len(s.Refused) != 0 || !strings.HasPrefix(s.PinDir, pins) {
		t.Errorf("auto with a bpffs: %+v", s)
	}
	// A wrong clock, as in a time namespace, rules eBPF out but not nftables.
	off := func() time.Duration { return boottime.Now() + 1000*time.Second }
	g = open(t, newNS(t), Options{PinDir: pins, Now: off})
	if s := g.Status(); s.Kind != NFT || len(s.Refused) != 2 || !strings.Contains(s.Refused[0].Reason, "self-test") {
		t.Errorf("auto with a wrong clock: %+v", s)
	}
	if _, err := tryOpen(newNS(t), Options{Kind: BPF, Now: off}); err == nil || !strings.Contains(err.Error(), "time namespace") {
		t.Errorf("bpf with a wrong clock: %v", err)
	}
	ns := newNS(t)
	if _, err := tryOpen(ns, Options{Kind: BPFTCX, Now: off, PinDir: pins}); err == nil {
		t.Error("tcx with a wrong clock: no error")
	}
	if left := leftovers(t, ns, ""); left != "" {
		t.Errorf("a refused guard left:\n%s", left)
	}
	if entries, _ := filepath.Glob(pins + "/*@*"); len(entries) != 1 { // that of the first
		t.Errorf("pins left: %v", entries)
	}
}

// BenchmarkHold is what a take pays for knowing that its interface is guarded.
func BenchmarkHold(b *testing.B) {
	needKernel(b)
	for kind, opts := range kernelKinds(b) {
		b.Run(string(kind), func(b *testing.B) {
			w := newWire(b)
			g := open(b, w.node, opts)
			for b.Loop() {
				if bad := g.Attached([]int{w.ifindex}); len(bad) > 0 {
					b.Fatal(bad)
				}
			}
		})
	}
}
