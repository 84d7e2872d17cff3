package guard

import (
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// newSocket makes a wire whose end at the node can be made anew: the probe has a
// bridge for the other end.
func newSocket(t *testing.T) *wire {
	t.Helper()
	w := &wire{node: newNS(t), probe: newNS(t), nodeMAC: net.HardwareAddr{2, 0, 0, 0, 1, 1}}
	in(t, w.probe, func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "p0", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 1, 2}}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		w.probeMAC = br.HardwareAddr
		for _, a := range []string{"10.0.0.2/16", "fd00::2/64"} {
			p, _ := netlink.ParseAddr(a)
			p.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(br, p); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(br)
	})
	w.plug(t, 0)
	return w
}

// plug makes the node's eth0 anew, with that number if it is not 0.
func (w *wire) plug(t *testing.T, index int) {
	t.Helper()
	in(t, w.node, func() error {
		if old, err := netlink.LinkByName("eth0"); err == nil {
			if err := netlink.LinkDel(old); err != nil {
				return err
			}
		}
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: index, HardwareAddr: w.nodeMAC},
			PeerName:  "q0", PeerNamespace: netlink.NsFd(w.probe.file.Fd()),
		})
	})
	in(t, w.probe, func() error {
		q, err := netlink.LinkByName("q0")
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName("p0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(q, br); err != nil {
			return err
		}
		return netlink.LinkSetUp(q)
	})
	in(t, w.node, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		w.ifindex = l.Attrs().Index
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		for _, a := range []string{"10.0.0.1/16", "fd00::1/64"} {
			p, _ := netlink.ParseAddr(a)
			p.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrReplace(l, p); err != nil {
				return err
			}
		}
		for _, ip := range []string{"10.0.0.2", "fd00::2"} {
			n := &netlink.Neigh{LinkIndex: w.ifindex, State: netlink.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: w.probeMAC}
			if err := netlink.NeighSet(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// An interface that is made anew gets its addresses only when the guard is attached
// to it: a daemon that freezes the moment they are there falls silent all the same.
func TestFrozenWhileInterfaceIsMadeAnew(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newSocket(t)
		// The more interfaces there are, the longer it takes the guard to find the new one.
		for i := range 30 {
			addDevice(t, w.node, fmt.Sprintf("other%d", i))
		}
		args := childArgs{Kind: opts.Kind, PinDir: opts.PinDir, File: filepath.Join(t.TempDir(), "deadline"), Lease: 300 * time.Millisecond}
		note, err := sharedDeadline(args.File)
		if err != nil {
			t.Fatal(err)
		}
		child := startChild(t, w.node, "keep", args)
		p := newProber(t, w, time.Millisecond)
		p.waitAnswered(t)
		nl, err := netlink.NewHandleAt(netns.NsHandle(w.node.file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer nl.Close()
		for trial := range 6 {
			index := 0
			if trial%2 == 1 {
				index = w.ifindex // the same number
			}
			w.plug(t, index)
			eventually(t, "the address on the new interface", func() bool {
				on, err := addressesOn(nl, linkByIndex(w.ifindex))
				return err == nil && on[vip4]
			})
			if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "frozen", func() bool { return processState(child.Process.Pid) == "T" })
			p.checkSilent(t, time.Duration(note.Load()))
			if err := child.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			p.waitAnswered(t)
		}
	})
}

// A guard does not leave a device that has an armed address, also when that became
// the port of a bridge, and Hold permits no new one there once it has left.
func TestPortWithAddress(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		opts.Recheck = time.Hour
		g := open(t, w.node, opts)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		hold := func() error {
			bad, release := g.Hold([]int{w.ifindex})
			defer release()
			return bad[w.ifindex]
		}
		if err := hold(); err != nil {
			t.Errorf("guarded interface: %v", err)
		}
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		addDevice(t, w.node, "br0")
		run(t, w.node, "ip", "link", "set", "eth0", "master", "br0")
		check := func() {
			t.Helper()
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
		}
		check()
		if err := hold(); err != nil {
			t.Errorf("the guard has left a port that has an armed address: %v", err)
		}
		delVIPs(t, w.node)
		check()
		if err := hold(); err == nil {
			t.Error("an address may be put onto a port, where frames are not judged")
		}
		run(t, w.node, "ip", "link", "set", "eth0", "nomaster")
		if err := hold(); err == nil {
			t.Error("an address may be put before the guard is attached again")
		}
		check()
		if err := hold(); err != nil {
			t.Errorf("guarded again: %v", err)
		}
		// By somebody else's hand, unknown to the guard.
		switch opts.Kind {
		case BPFClsact:
			run(t, w.node, "tc", "qdisc", "del", "dev", "eth0", "clsact")
		case NFT:
			run(t, w.node, "nft", "delete", "table", "netdev", nftTableName(defaultInstance))
		default:
			in(t, w.node, func() error {
				a := g.backend.(*bpfBackend).att.(*tcxAttacher)
				return a.held(hook{w.ifindex, egress}).link.(interface{ Detach() error }).Detach()
			})
		}
		if err := hold(); err == nil {
			t.Error("an address may be put where somebody has taken the guard away")
		}
		check()
		if err := hold(); err != nil {
			t.Errorf("repaired: %v", err)
		}
		since := boottime.Now()
		p := newProber(t, w, time.Millisecond)
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		p.checkSilent(t, since)
	})
}

// A process that takes over from a dead one stays on a device that has one of its
// addresses, although it would not want it otherwise.
func TestAdoptPortWithAddress(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g, _ := own(t, w, opts, 0)
		crash(t, g)
		addDevice(t, w.node, "br0")
		run(t, w.node, "ip", "link", "set", "eth0", "master", "br0")
		g = open(t, w.node, opts)
		check := func() {
			t.Helper()
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
		}
		check()
		if bad := g.Attached([]int{w.ifindex}); len(bad) > 0 {
			t.Errorf("the guard has left a port with an address of the dead process: %v", bad)
		}
		delVIPs(t, w.node)
		check()
		check() // The first disarms what has gone.
		if bad := g.Attached([]int{w.ifindex}); len(bad) == 0 {
			t.Error("the guard stays on a port without an address")
		}
	})
}
