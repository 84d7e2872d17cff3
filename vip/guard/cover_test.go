package guard

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// setGroup opens or shuts group 1 and, with nft, waits until the kernel knows.
func setGroup(t *testing.T, g *Guard, open bool) {
	t.Helper()
	d := time.Duration(0)
	if open {
		d = boottime.Now() + time.Hour
	}
	g.SetDeadline(1, d)
	if b, ok := g.backend.(*nftBackend); ok {
		eventually(t, "deadline in the kernel", func() bool { return b.lockedLeft(t, 1) > 0 == open })
	}
}

// dialTCP connects from one namespace to an address that a server in another has.
func dialTCP(t *testing.T, server, client *netNS, a netip.Addr) error {
	t.Helper()
	var ln net.Listener
	in(t, server, func() (err error) {
		ln, err = net.Listen("tcp", "[::]:0")
		return err
	})
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in(t, client, func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", net.JoinHostPort(a.String(), port), 300*time.Millisecond); err == nil {
			c.Close()
		}
		return nil
	})
	return err
}

// A local client writing to an address that this host no longer owns is split brain
// as well.
func TestLoopback(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		setGroup(t, g, true)
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		dial := func(a netip.Addr) error { return dialTCP(t, w.node, w.node, a) }
		for _, a := range vips { // A new IPv6 address takes a moment to be usable.
			eventually(t, "lease valid: dial "+a.String(), func() bool { return dial(a) == nil })
		}
		setGroup(t, g, false)
		for _, a := range vips {
			if dial(a) == nil {
				t.Errorf("lease over: %s still reached through the loopback", a)
			}
		}
		for _, a := range []string{"127.0.0.1", "::1", "10.0.0.1"} {
			if err := dial(netip.MustParseAddr(a)); err != nil {
				t.Errorf("lease over: dial %s: %v", a, err)
			}
		}
	})
}

// The kernel answers for its addresses on every interface.
func TestSecondInterface(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		other := newNS(t)
		in(t, w.node, func() error {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "p1", PeerNamespace: netlink.NsFd(other.file.Fd())}); err != nil {
				return err
			}
			l, err := netlink.LinkByName("eth1")
			if err != nil {
				return err
			}
			a, _ := netlink.ParseAddr("10.7.0.1/24")
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		})
		var mac net.HardwareAddr
		in(t, other, func() error {
			l, err := netlink.LinkByName("p1")
			if err != nil {
				return err
			}
			mac = l.Attrs().HardwareAddr
			return netlink.LinkSetUp(l)
		})
		fd := packetSocket(t, other, "p1")
		defer unix.Close(fd)
		asked := func() int {
			n := 0
			for range 3 {
				unix.Send(fd, arpFrame(mac, netip.MustParseAddr("10.7.0.2"), vip4, false), 0)
			}
			n = heard(fd)
			return n
		}
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		setGroup(t, g, true)
		eventually(t, "answer on the second interface", func() bool { return asked() > 0 })
		setGroup(t, g, false)
		if n := asked(); n != 0 {
			t.Errorf("lease over: %d answers on the second interface", n)
		}
	})
}

// The kernel takes the tag of a priority-tagged frame off and answers it.
func TestPriorityTag(t *testing.T) {
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
		fd := packetSocket(t, w.probe, "p0")
		defer unix.Close(fd)
		frame := arpFrame(w.probeMAC, netip.MustParseAddr("10.0.0.2"), vip4, false)
		for name, f := range map[string][]byte{"one tag": tagged(frame, prioTag), "two tags": tagged(frame, prioTag, prioTag)} {
			setGroup(t, g, true)
			eventually(t, name+" answered", func() bool { unix.Send(fd, f, 0); return heard(fd) > 0 })
			setGroup(t, g, false)
			for range 3 {
				unix.Send(fd, f, 0)
			}
			if n := heard(fd); n != 0 {
				t.Errorf("lease over: %d answers to frames with %s", n, name)
			}
		}
	})
}

// A standby whose gate is shut still reaches the owner and learns its announcement.
func TestStandbyReachesOwner(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g := open(t, w.node, opts)
		if err := g.Arm(1, vips); err != nil { // Armed, shut, and the address elsewhere.
			t.Fatal(err)
		}
		in(t, w.probe, func() error {
			l, err := netlink.LinkByName("p0")
			if err != nil {
				return err
			}
			a, _ := netlink.ParseAddr(vip4.String() + "/32")
			return netlink.AddrAdd(l, a)
		})
		// ARP is left to the kernel: the request goes out, the reply comes from the VIP.
		if err := dialTCP(t, w.probe, w.node, vip4); err != nil {
			t.Errorf("standby cannot reach the owner: %v", err)
		}
		if n := g.Status().Drops.Total; n != 0 {
			t.Errorf("%d packets dropped on a standby", n)
		}
	})
}

// On a device with a virtual MAC nothing leaves after the deadline, whatever it is.
func TestVMACDevice(t *testing.T) {
	for _, k := range []Kind{BPFTCX, BPFClsact} {
		t.Run(string(k), func(t *testing.T) {
			needKernel(t)
			opts := kernelKinds(t)[k]
			w := newWire(t)
			vmac := net.HardwareAddr{0, 0, 0x5e, 0, 1, 51}
			var ifindex int
			in(t, w.node, func() error {
				l, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				m := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "vrrp.51", ParentIndex: l.Attrs().Index, HardwareAddr: vmac}, Mode: netlink.MACVLAN_MODE_PRIVATE}
				if err := netlink.LinkAdd(m); err != nil {
					return err
				}
				ifindex = m.Attrs().Index
				return netlink.LinkSetUp(m)
			})
			g := open(t, w.node, opts)
			if err := g.SetVMAC(ifindex, 1); err != nil {
				t.Fatal(err)
			}
			out := packetSocket(t, w.node, "vrrp.51")
			defer unix.Close(out)
			back := packetSocket(t, w.probe, "p0")
			defer unix.Close(back)
			fromVMAC := func() int {
				for range 3 { // No address in it at all.
					unix.Send(out, ether(broadcast, vmac, 0x88b5, make([]byte, 46)), 0)
				}
				n, buf := 0, make([]byte, 2048)
				for {
					l, _, err := unix.Recvfrom(back, buf, 0)
					if err != nil {
						return n
					}
					if l > 14 && binary.BigEndian.Uint16(buf[12:]) == 0x88b5 {
						n++
					}
				}
			}
			if n := fromVMAC(); n != 0 {
				t.Errorf("no lease: %d frames left", n)
			}
			setGroup(t, g, true)
			if n := fromVMAC(); n != 3 {
				t.Errorf("lease valid: %d of 3 frames left", n)
			}
			setGroup(t, g, false)
			if n := fromVMAC(); n != 0 {
				t.Errorf("lease over: %d frames left", n)
			}
			if err := g.Check(); err != nil || g.Status().Repairs != 0 {
				t.Errorf("check: %v, %+v", err, g.Status())
			}
		})
	}
}
