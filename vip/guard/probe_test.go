package guard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// probe kinds.
const (
	probeARP = iota
	probeNS
	probePing
	probeKinds
)

var probeNames = [probeKinds]string{"ARP", "NS", "ping"}

const probeRing = 256

// A prober asks for the virtual addresses over and over and knows, for every
// answer, when the question was sent. So a late answer is found without relying on
// when anything was received.
type prober struct {
	w    *wire
	fd   int
	stop chan struct{}
	wg   sync.WaitGroup

	sent     [probeKinds][probeRing]atomic.Int64
	count    [probeKinds]atomic.Int64 // questions
	lastSent [probeKinds]atomic.Int64
	mu       sync.Mutex
	answered [probeKinds][]time.Duration // send times of questions that were answered
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func newProber(t testing.TB, w *wire, every time.Duration) *prober {
	t.Helper()
	p := &prober{w: w, stop: make(chan struct{})}
	p.fd = packetSocket(t, w.probe, "p0")
	p.wg.Add(2)
	go p.send(every)
	go p.receive()
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(p.stop); p.wg.Wait(); unix.Close(p.fd) }) })
	return p
}

// packetSocket opens a raw socket on a device.
func packetSocket(t testing.TB, ns *netNS, dev string) int {
	t.Helper()
	var fd int
	in(t, ns, func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000})
	})
	return fd
}

func (p *prober) send(every time.Duration) {
	defer p.wg.Done()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		i := byte(n)
		for kind, f := range [probeKinds][]byte{
			arpFrame(p.w.probeMAC, netip.AddrFrom4([4]byte{10, 0, 128, i}), vip4, false),
			nsFrame(p.w.probeMAC, netip.MustParseAddr(fmt.Sprintf("fd00::5:%x", n%probeRing)), vip6),
			pingFrame(p.w.probeMAC, p.w.nodeMAC, netip.MustParseAddr("10.0.0.2"), vip4, uint16(i)),
		} {
			now := boottime.Now()
			p.sent[kind][i].Store(int64(now))
			if err := unix.Send(p.fd, f, 0); err == nil {
				p.count[kind].Add(1)
				p.lastSent[kind].Store(int64(now))
			}
		}
	}
}

func (p *prober) receive() {
	defer p.wg.Done()
	buf := make([]byte, 2048)
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if kind, i, ok := answer(buf[:n]); ok {
			p.mu.Lock()
			p.answered[kind] = append(p.answered[kind], time.Duration(p.sent[kind][i].Load()))
			p.mu.Unlock()
		}
	}
}

// answer says which question a frame answers.
func answer(f []byte) (kind int, i byte, ok bool) {
	if len(f) < 42 {
		return 0, 0, false
	}
	src4, src6 := vip4.As4(), vip6.As16()
	switch binary.BigEndian.Uint16(f[12:]) {
	case unix.ETH_P_ARP:
		return probeARP, f[41], binary.BigEndian.Uint16(f[20:]) == 2 && [4]byte(f[28:32]) == src4
	case unix.ETH_P_IP:
		return probePing, f[41], f[23] == 1 && f[34] == 0 && [4]byte(f[26:30]) == src4
	case unix.ETH_P_IPV6:
		return probeNS, f[53], len(f) >= 78 && f[20] == 58 && f[54] == 136 && [16]byte(f[62:78]) == src6
	}
	return 0, 0, false
}

// answersSince counts answers to questions sent at or after an instant.
func (p *prober) answersSince(since time.Duration) (n [probeKinds]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind := range p.answered {
		for _, at := range p.answered[kind] {
			if at >= since {
				n[kind]++
			}
		}
	}
	return n
}

// waitAnswered waits until every kind of question sent from now on is answered.
func (p *prober) waitAnswered(t testing.TB) {
	t.Helper()
	since := boottime.Now()
	eventually(t, "all kinds of probes answered", func() bool {
		for _, n := range p.answersSince(since) {
			if n == 0 {
				return false
			}
		}
		return true
	})
}

// checkSilent probes until some time after the deadline and fails for each answer to
// a question sent after it.
func (p *prober) checkSilent(t testing.TB, deadline time.Duration) {
	t.Helper()
	eventually(t, "probes after the deadline", func() bool {
		for kind := range p.lastSent {
			if time.Duration(p.lastSent[kind].Load()) < deadline+150*time.Millisecond {
				return false
			}
		}
		return true
	})
	time.Sleep(30 * time.Millisecond) // Answers on their way.
	for kind, n := range p.answersSince(deadline) {
		if n > 0 {
			t.Errorf("%d %s probes sent after the deadline were answered", n, probeNames[kind])
		}
	}
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func ether(dst, src net.HardwareAddr, typ uint16, payload []byte) []byte {
	f := append(append([]byte{}, dst...), src...)
	f = binary.BigEndian.AppendUint16(f, typ)
	return append(f, payload...)
}

func arpFrame(mac net.HardwareAddr, spa, tpa netip.Addr, reply bool) []byte {
	op := byte(1)
	if reply {
		op = 2
	}
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, mac...), spa.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), tpa.AsSlice()...)
	return ether(broadcast, mac, unix.ETH_P_ARP, b)
}

func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func ip4Packet(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h, 0))
	return append(h, payload...)
}

func pingFrame(src, dst net.HardwareAddr, from, to netip.Addr, seq uint16) []byte {
	icmp := []byte{8, 0, 0, 0, 0x72, 0x76, byte(seq >> 8), byte(seq)}
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, 0))
	return ether(dst, src, unix.ETH_P_IP, ip4Packet(from, to, 1, icmp))
}

func ip6Packet(src, dst netip.Addr, next byte, payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 6<<4, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

// ndPacket makes a neighbour solicitation (135) or advertisement (136).
func ndPacket(kind byte, src, dst, target netip.Addr, mac net.HardwareAddr) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	opt := byte(1)
	if kind == 136 {
		opt, b[4] = 2, 0x20
	}
	b = append(b, target.AsSlice()...)
	b = append(append(b, opt, 1), mac...)
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(b)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(b[2:], checksum(append(pseudo, b...), 0))
	return ip6Packet(src, dst, 58, b)
}

func nsFrame(mac net.HardwareAddr, src, target netip.Addr) []byte {
	a := target.As16()
	dst := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
	return ether(net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]}, mac, unix.ETH_P_IPV6, ndPacket(135, src, dst, target, mac))
}
