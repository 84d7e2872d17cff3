//go:build linux

package vip_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A stopwatch notes when announcements had been handed to the kernel.
type stopwatch struct {
	vip.Announcer
	mu   sync.Mutex
	at   []time.Time
	want int
	done chan struct{}
}

// expect starts anew and returns what is closed after n announcements.
func (s *stopwatch) expect(n int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.want, s.done = make([]time.Time, 0, n), n, make(chan struct{})
	return s.done
}

func (s *stopwatch) Announce(link vip.Link, addr netip.Addr) error {
	err := s.Announcer.Announce(link, addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at = append(s.at, time.Now()); len(s.at) == s.want {
		close(s.done)
	}
	return err
}

// BenchmarkTakeover measures takes and releases of many addresses on a real
// kernel:
//
//	RAFTVIP_NETNS=1 go test -run '^$' -bench Takeover -benchtime 10x ./vip
//
// In "fresh" the link never had the addresses, in "again" it lost them just before,
// of which the kernel keeps traces for IPv6. The columns are medians in
// microseconds from Set: the first, the middle and the last announcement, the first
// answer of the last address to a neighbour that asks every 200 us, and the end of
// the release. "guard" has the real guard in front of the addresses, "long" has
// them without a covering address of someone else, and in "shared" they have the
// last 24 bits in common, and so one solicited-node group. "best" is the least instead of
// the median, "cpu" what the process used up to the last announcement, the neighbour
// and the reader of changes included: what a busy machine tells about a quiet one.
func BenchmarkTakeover(b *testing.B) {
	for _, family := range []string{"v4", "v6"} {
		for _, n := range []int{1, 100, 1000} {
			for _, kind := range []string{"fresh", "again", "guard", "long", "shared"} {
				if kind == "shared" && family == "v4" {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/%s", family, n, kind), func(b *testing.B) { benchmarkTakeover(b, family, n, kind) })
			}
		}
	}
}

func benchmarkTakeover(b *testing.B, family string, n int, kind string) {
	var prefixes []string
	for i := range n {
		switch {
		case family == "v6" && kind == "long":
			prefixes = append(prefixes, fmt.Sprintf("fd01::1:%x/64", i+1))
		case kind == "shared":
			prefixes = append(prefixes, fmt.Sprintf("fd00::%x:0:1/64", i+1))
		case family == "v6":
			prefixes = append(prefixes, fmt.Sprintf("fd00::1:%x/64", i+1))
		case kind == "long":
			prefixes = append(prefixes, fmt.Sprintf("10.8.%d.%d/16", 1+i/200, 1+i%200))
		default:
			prefixes = append(prefixes, fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200))
		}
	}
	addrs := v0(prefixes...)
	last := addrs[n-1].Prefix.Addr()
	columns := map[string][]time.Duration{}
	note := func(column string, d time.Duration) { columns[column] = append(columns[column], d) }
	round := func(l *lab, k *vip.Holding, gate *vip.Gate, watch *stopwatch, term uint64) {
		gate.Open(term)
		gate.Renew(term, boottime.Now()+time.Hour)
		done := watch.expect(n)
		answer := l.answer(last)
		cpu, start := cpuTime(), time.Now()
		k.Set(vip.Wanted{Own: true, Term: term, Addresses: addrs, Schedule: quick})
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			b.Fatal("not announced within 20 s")
		}
		note("cpu", cpuTime()-cpu)
		note("first", watch.at[0].Sub(start))
		note("mid", watch.at[n/2].Sub(start))
		note("last", watch.at[n-1].Sub(start))
		if at := <-answer; kind != "long" || family == "v6" {
			note("answer", at.Sub(start))
		}
		time.Sleep(5 * time.Millisecond) // the end of the pass
		start = time.Now()
		gate.Shut()
		k.Set(vip.Wanted{Term: term, Addresses: addrs, Schedule: quick})
		l.must(k.WaitReleased(b.Context()))
		note("released", time.Since(start))
	}
	ready := func() (*lab, *vip.Holding, *vip.Gate, *stopwatch) {
		l := newLab(b)
		l.ip("addr add 10.0.0.9/16 dev v0")
		watch := &stopwatch{}
		var with vip.Guard = vip.NoGuard{}
		if kind == "guard" {
			with = l.guard()
		}
		k, gate := l.keeper(30*time.Second, func(c *vip.KeeperConfig) {
			watch.Announcer = c.Announcer
			c.Announcer = watch
			c.Guard = with
		})
		k.Set(vip.Wanted{Term: 1, Addresses: addrs, Schedule: quick})
		l.must(k.WaitReleased(b.Context()))
		follow(b, k)
		return l, k, gate, watch
	}
	if kind == "fresh" {
		for b.Loop() {
			l, k, gate, watch := ready()
			round(l, k, gate, watch, 2)
			l.close()
		}
	} else {
		l, k, gate, watch := ready()
		round(l, k, gate, watch, 2)
		clear(columns)
		for term := uint64(3); b.Loop(); term++ {
			round(l, k, gate, watch, term)
		}
	}
	b.ReportMetric(0, "ns/op")
	for column, d := range columns {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), column+"-us")
		if column == "last" || column == "released" {
			b.ReportMetric(float64(d[0].Microseconds()), column+"-best")
		}
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// follow reads the status at every change, as the daemon does.
func follow(b *testing.B, k *vip.Holding) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			changed := k.Changed()
			k.Status()
			select {
			case <-changed:
			case <-b.Context().Done():
				return
			}
		}
	})
	b.Cleanup(wg.Wait)
}

// guard attaches the real guard.
func (l *lab) guard() vip.Guard {
	l.t.Helper()
	g, err := guard.Open(guard.Options{Kind: "bpf", Instance: fmt.Sprintf("bench-%d", os.Getpid())})
	if err != nil {
		l.t.Fatal(err)
	}
	l.atClose(func() { _ = g.Close() })
	return g
}

// answer asks from the other side until addr answers, and then sends the instant.
func (l *lab) answer(addr netip.Addr) <-chan time.Time {
	l.t.Helper()
	var fd int
	var ask []byte
	var to unix.SockaddrLinklayer
	l.atPeer(func() {
		link, err := netlink.LinkByName("p0")
		l.must(err)
		mac := link.Attrs().HardwareAddr
		proto := uint16(unix.ETH_P_ARP)
		if addr.Is6() {
			proto = unix.ETH_P_IPV6
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(proto)))
		l.must(err)
		ask = question(mac, addr)
		to = unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: htons(proto), Halen: 6}
	})
	at := make(chan time.Time, 1)
	go func() {
		defer func() { _ = unix.Close(fd) }()
		buf := make([]byte, 2048)
		for begin := time.Now(); time.Since(begin) < 20*time.Second; {
			_ = unix.Sendto(fd, ask, 0, &to)
			time.Sleep(200 * time.Microsecond)
			for {
				n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
				if err != nil {
					break
				}
				if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype == unix.PACKET_HOST && isAnswer(buf[:n], addr) {
					at <- time.Now()
					return
				}
			}
		}
		at <- time.Now()
	}()
	return at
}

// question is an ARP request or a neighbour solicitation for addr.
func question(mac net.HardwareAddr, addr netip.Addr) []byte {
	if addr.Is4() {
		ip := addr.As4()
		f := append([]byte("\xff\xff\xff\xff\xff\xff"+string(mac)+"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"+string(mac)), 10, 0, 0, 2)
		return append(append(f, 0, 0, 0, 0, 0, 0), ip[:]...)
	}
	ip, from := addr.As16(), netip.MustParseAddr("fd00::2").As16()
	group := [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: ip[13], 14: ip[14], 15: ip[15]}
	body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, ip[:]...)
	body = append(append(body, 1, 1), mac...)
	sum := 58 + len(body)
	for _, b := range [][]byte{from[:], group[:], body} {
		for i := 0; i < len(b); i += 2 {
			sum += int(b[i])<<8 | int(b[i+1])
		}
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	body[2], body[3] = byte(^sum>>8), byte(^sum)
	f := append([]byte{0x33, 0x33, 0xff, ip[13], ip[14], ip[15]}, mac...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	return append(append(append(f, from[:]...), group[:]...), body...)
}

// isAnswer reports whether f, received by the one who asked, is from addr.
func isAnswer(f []byte, addr netip.Addr) bool {
	if addr.Is4() {
		ip := addr.As4()
		return len(f) >= 42 && f[21] == 2 && strings.HasPrefix(string(f[28:]), string(ip[:]))
	}
	ip := addr.As16()
	return len(f) >= 78 && f[20] == 58 && f[54] == 136 && strings.HasPrefix(string(f[62:]), string(ip[:]))
}
