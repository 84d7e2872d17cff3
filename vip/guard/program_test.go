package guard

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// gateFrames is the verdict table of DESIGN.md: what an expired address drops in
// each direction. Everything passes while it is not armed or its lease holds.
var gateFrames = func() []gateFrame {
	var (
		mac    = net.HardwareAddr{2, 0, 0, 0, 0, 1}
		own4   = netip.MustParseAddr("10.0.0.1")
		own6   = netip.MustParseAddr("fd00::1")
		other4 = netip.MustParseAddr("10.0.0.2")
		other6 = netip.MustParseAddr("fd00::2")
		nodes6 = netip.MustParseAddr("ff02::1")
		zero4  = netip.IPv4Unspecified()
		zero6  = netip.IPv6Unspecified()
	)
	v4 := func(src, dst netip.Addr) []byte {
		return ether(mac, mac, unix.ETH_P_IP, ip4Packet(src, dst, 17, make([]byte, 8)))
	}
	v6 := func(src, dst netip.Addr) []byte {
		return ether(mac, mac, unix.ETH_P_IPV6, ip6Packet(src, dst, 17, make([]byte, 8)))
	}
	nd := func(kind byte, src, dst, target netip.Addr) []byte {
		return ether(mac, mac, unix.ETH_P_IPV6, ndPacket(kind, src, dst, target, mac))
	}
	cut := func(f []byte, n int) []byte { return f[:n] }
	return []gateFrame{
		{"arp request for vip", arpFrame(mac, other4, vip4, false), true, false},
		{"arp probe for vip", arpFrame(mac, zero4, vip4, false), true, false},
		{"arp request from vip", arpFrame(mac, vip4, other4, false), false, true},
		{"arp reply from vip", arpFrame(mac, vip4, other4, true), false, true},
		{"arp reply to vip", arpFrame(mac, other4, vip4, true), true, false},
		{"garp request of vip", arpFrame(mac, vip4, vip4, false), false, true},
		{"garp reply of vip", arpFrame(mac, vip4, vip4, true), false, true},
		{"arp for other", arpFrame(mac, other4, own4, false), false, false},
		{"v4 to vip", v4(other4, vip4), true, false},
		{"v4 from vip", v4(vip4, other4), false, true},
		{"v4 vip to itself", v4(vip4, vip4), true, true},
		{"v4 of others", v4(own4, other4), false, false},
		{"v6 to vip", v6(other6, vip6), true, false},
		{"v6 from vip", v6(vip6, other6), false, true},
		{"v6 of others", v6(own6, other6), false, false},
		{"ns for vip", nd(135, other6, nodes6, vip6), true, false},
		{"ns dad for vip", nd(135, zero6, nodes6, vip6), true, false},
		{"ns unicast to vip", nd(135, other6, vip6, vip6), true, false},
		{"ns to vip for other", nd(135, other6, vip6, own6), true, false},
		{"ns from vip for other", nd(135, vip6, nodes6, other6), false, true},
		{"ns for other", nd(135, other6, nodes6, own6), false, false},
		{"na of vip from vip", nd(136, vip6, nodes6, vip6), false, true},
		{"na of vip from own", nd(136, own6, nodes6, vip6), false, true},
		{"na of vip to own", nd(136, other6, own6, vip6), false, true},
		{"na of other", nd(136, own6, nodes6, own6), false, false},
		{"truncated ethernet", cut(v4(other4, vip4), 15), false, false},
		{"truncated arp", cut(arpFrame(mac, other4, vip4, false), 14+20), false, false},
		{"truncated v4", cut(v4(vip4, vip4), 14+10), false, false},
		{"truncated v6", cut(v6(vip6, vip6), 14+20), false, false},
		{"truncated ns", cut(nd(135, other6, nodes6, vip6), 14+50), false, false},
		{"lldp", ether(mac, mac, 0x88cc, make([]byte, 46)), false, false},
	}
}()

type gateFrame struct {
	name    string
	frame   []byte
	in, out bool // dropped when expired
}

// tagged inserts VLAN tags, outermost first.
func tagged(f []byte, tags ...uint32) []byte {
	out := append([]byte{}, f[:12]...)
	for _, t := range tags {
		out = append(out, byte(t>>24), byte(t>>16), byte(t>>8), byte(t))
	}
	return append(out, f[12:]...)
}

const (
	prioTag  = 0x8100_a000 // 802.1Q, priority 5, VLAN 0
	prioSTag = 0x88a8_a000 // 802.1ad, VLAN 0
	vlanTag  = 0x8100_0005 // VLAN 5
)

func testPrograms(t testing.TB) *bpfBackend {
	t.Helper()
	needKernel(t)
	b, err := newBPFBackend(BPF, boottime.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.release)
	return b
}

// verdict runs a program over a frame. The kernel refuses to test a truncated IP
// packet (tested on Linux 6.18); behind a tag it does not look.
func verdict(t *testing.T, p *program, f []byte) uint32 {
	t.Helper()
	v, err := p.Run(&ebpf.RunOptions{Data: f})
	if errors.Is(err, unix.EINVAL) && len(f) < 14+40 {
		return refused
	}
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return v
}

// refused stands for a frame that the kernel would not test.
const refused = 0xbad

func TestVerdictTable(t *testing.T) {
	b := testPrograms(t)
	const group = 3
	vips := []netip.Addr{vip4, vip6}
	states := []struct {
		name    string
		set     func()
		expired bool
	}{
		{"not armed", func() { b.disarm(group, vips); b.setDeadline(group, 0) }, false},
		{"not armed, expired group", func() { b.setDeadline(group, boottime.Now()-time.Second) }, false},
		{"armed, no deadline", func() { b.arm(group, vips); b.setDeadline(group, 0) }, true},
		{"armed, valid", func() { b.setDeadline(group, boottime.Now()+time.Hour) }, false},
		{"armed, expired", func() { b.setDeadline(group, boottime.Now()-time.Microsecond) }, true},
		{"inherited", func() { b.arm(slotInherited, vips) }, true},
		{"armed, group has no slot", func() { b.arm(slots, vips); b.setDeadline(group, boottime.Now()+time.Hour) }, true},
	}
	tags := []struct {
		name   string
		tags   []uint32
		judged bool // looked through
		deep   bool // dropped always
	}{
		{"plain", nil, true, false},
		{"vlan 0", []uint32{prioTag}, true, false},
		{"vlan 0 twice", []uint32{prioSTag, prioTag}, true, false},
		{"vlan 0 four times", []uint32{prioTag, prioTag, prioTag, prioTag}, true, false},
		{"vlan 0 five times", []uint32{prioTag, prioTag, prioTag, prioTag, prioTag}, true, true},
		{"vlan 5", []uint32{vlanTag}, false, false},
		{"vlan 5 in vlan 0", []uint32{prioSTag, vlanTag}, false, false},
		{"vlan 0 in vlan 5", []uint32{vlanTag, prioTag}, false, false},
	}
	for _, st := range states {
		st.set()
		for _, tag := range tags {
			for _, f := range gateFrames {
				frame := tagged(f.frame, tag.tags...)
				for _, dir := range []direction{ingress, egress} {
					drop := st.expired && tag.judged && (dir == ingress && f.in || dir == egress && f.out)
					want := verdictPass
					if drop || tag.deep {
						want = verdictDrop
					}
					if got := verdict(t, b.progs[dir], frame); got != want && got != refused {
						t.Errorf("%s, %s, %s, %s: verdict %d, want %d", st.name, tag.name, f.name, dir, int32(got), int32(want))
					}
				}
			}
		}
	}
}

// Two groups are judged apart, also within one packet.
func TestVerdictTwoGroups(t *testing.T) {
	b := testPrograms(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	open6 := netip.MustParseAddr("fd00::ff:2")
	b.arm(1, []netip.Addr{vip6})
	b.arm(2, []netip.Addr{open6})
	b.setDeadline(2, boottime.Now()+time.Hour)
	f := ether(mac, mac, unix.ETH_P_IPV6, ndPacket(135, netip.MustParseAddr("fd00::2"), open6, vip6, mac))
	if got := verdict(t, b.progs[ingress], f); got != verdictDrop {
		t.Errorf("solicitation of a shut address sent to an open one: verdict %d, want drop", int32(got))
	}
	f = ether(mac, mac, unix.ETH_P_IPV6, ndPacket(135, netip.MustParseAddr("fd00::2"), open6, open6, mac))
	if got := verdict(t, b.progs[ingress], f); got != verdictPass {
		t.Errorf("solicitation of an open address: verdict %d, want pass", int32(got))
	}
}

func TestVMACProgramDropsEverything(t *testing.T) {
	b := testPrograms(t)
	p, err := b.egressProgram(device{name: "vrrp.1", vmac: true, group: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range []struct {
		deadline time.Duration
		want     uint32
	}{{0, verdictDrop}, {boottime.Now() + time.Hour, verdictPass}, {boottime.Now() - 1, verdictDrop}} {
		b.setDeadline(4, st.deadline)
		for _, f := range gateFrames {
			if got := verdict(t, p, f.frame); got != st.want && got != refused {
				t.Errorf("deadline %v, %s: verdict %d, want %d", st.deadline, f.name, int32(got), int32(st.want))
			}
		}
	}
}

func TestDropsAreCounted(t *testing.T) {
	b := testPrograms(t)
	b.arm(1, []netip.Addr{vip4})
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	before, err := b.drops()
	if err != nil {
		t.Fatal(err)
	}
	verdict(t, b.progs[egress], arpFrame(mac, vip4, vip4, false))
	verdict(t, b.progs[egress], arpFrame(mac, vip4, vip4, false))
	verdict(t, b.progs[ingress], arpFrame(mac, netip.MustParseAddr("10.0.0.2"), vip4, false))
	after, err := b.drops()
	if err != nil {
		t.Fatal(err)
	}
	if in, out := after.Ingress-before.Ingress, after.Egress-before.Egress; in != 1 || out != 2 {
		t.Errorf("drops in %d, out %d; want 1, 2", in, out)
	}
}

// The self-test is what stands between a time namespace and a gate that never shuts.
func TestSelfTestFindsAnotherClock(t *testing.T) {
	b := testPrograms(t)
	for _, off := range []time.Duration{time.Second, 1000 * time.Second, -10 * time.Second, -20 * time.Millisecond, 10 * time.Microsecond} {
		err := selfTest(b.maps, b.progs, func() time.Duration { return boottime.Now() + off })
		if err == nil {
			t.Errorf("clock off by %v: not found", off)
		} else if !strings.Contains(err.Error(), "self-test") {
			t.Errorf("clock off by %v: %v", off, err)
		}
	}
	if err := selfTest(b.maps, b.progs, boottime.Now); err != nil {
		t.Errorf("right clock: %v", err)
	}
}

func TestSetDeadlineAfterClose(t *testing.T) {
	b := testPrograms(t)
	b.setDeadline(1, time.Hour)
	b.maps.close()
	b.setDeadline(1, time.Hour) // Must not fault.
}

func BenchmarkSetDeadline(b *testing.B) {
	needKernel(b)
	ns := newNS(b)
	for k, opts := range kernelKinds(b) {
		b.Run(string(k), func(b *testing.B) {
			g := open(b, ns, opts)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				g.SetDeadline(1, time.Duration(i))
			}
			b.StopTimer()
			g.Close()
		})
	}
}

func BenchmarkProgram(b *testing.B) {
	be := testPrograms(b)
	be.arm(1, []netip.Addr{vip4})
	be.setDeadline(1, boottime.Now()+time.Hour)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for name, dst := range map[string]netip.Addr{"guarded": vip4, "other": netip.MustParseAddr("10.0.0.9")} {
		f := ether(mac, mac, unix.ETH_P_IP, ip4Packet(netip.MustParseAddr("10.0.0.2"), dst, 17, make([]byte, 8)))
		b.Run(name, func(b *testing.B) {
			_, d, err := be.progs[ingress].Benchmark(f, 1_000_000, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(d.Nanoseconds()), "ns/packet")
		})
	}
}
