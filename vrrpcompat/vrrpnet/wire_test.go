package vrrpnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A seen is a VRRP packet as it was on the wire.
type seen struct {
	at       time.Time // of the kernel
	from, to net.HardwareAddr
	ip       []byte // the packet with its IP header
	src, dst netip.Addr
	payload  []byte
}

func (s seen) vrid() uint8     { return s.payload[1] }
func (s seen) priority() uint8 { return s.payload[2] }

// A wire records the VRRP packets that pass an interface, in either direction.
// With multicast the observer sees those of all hosts.
type wire struct {
	t    *testing.T
	fd   int
	done chan struct{}
	mu   sync.Mutex
	all  []seen
}

// watchWire records on an interface of the host until the end of the test.
func watchWire(t *testing.T, h *testnet.Host, dev string) *wire {
	t.Helper()
	w := &wire{t: t, done: make(chan struct{})}
	err := h.Do(func() error {
		link, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// IPv4 or IPv6 with protocol 112; no VLAN tags in the lab.
		err = attachFilter(w.fd, []bpf.Instruction{
			bpf.LoadAbsolute{Off: 12, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 2},
			bpf.LoadAbsolute{Off: 23, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: vrrpcompat.Protocol, SkipTrue: 3, SkipFalse: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipFalse: 3},
			bpf.LoadAbsolute{Off: 20, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: vrrpcompat.Protocol, SkipFalse: 1},
			bpf.RetConstant{Val: 1 << 16},
			bpf.RetConstant{Val: 0},
		})
		tv := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
		return errors.Join(err,
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8}))
	})
	if err != nil {
		t.Fatalf("watch %s of %s: %v", dev, h, err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(w.done)
		buf, control := make([]byte, 1<<16), make([]byte, 256)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, oobn, _, _, err := unix.Recvmsg(w.fd, buf, control, 0)
			if err == nil {
				w.record(append([]byte(nil), buf[:n]...), control[:oobn])
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-w.done
		_ = unix.Close(w.fd)
	})
	return w
}

func (w *wire) record(b, control []byte) {
	s := seen{at: time.Now(), to: b[:6], from: b[6:12], ip: b[14:]}
	if msgs, err := unix.ParseSocketControlMessage(control); err == nil && len(msgs) == 1 && len(msgs[0].Data) >= 16 {
		s.at = time.Unix(int64(binary.NativeEndian.Uint64(msgs[0].Data)), int64(binary.NativeEndian.Uint64(msgs[0].Data[8:])))
	}
	if b[12] == 0x08 {
		var ok bool
		if s.src, s.dst, _, s.payload, ok = parseIPv4(s.ip); !ok {
			return
		}
	} else {
		s.src, s.dst = netip.AddrFrom16([16]byte(s.ip[8:])), netip.AddrFrom16([16]byte(s.ip[24:]))
		s.payload = s.ip[40:]
	}
	if len(s.payload) < 8 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, s)
}

// of returns the packets of a virtual router so far; from any source if src is not
// valid.
func (w *wire) of(vrid uint8, src netip.Addr) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []seen
	for _, s := range w.all {
		if s.vrid() == vrid && (!src.IsValid() || s.src == src) {
			out = append(out, s)
		}
	}
	return out
}

// first waits for a packet that satisfies ok.
func (w *wire) first(vrid uint8, src netip.Addr, what string, ok func(seen) bool) seen {
	w.t.Helper()
	var found seen
	testnet.MustWait(w.t, 20*time.Second, what, func() error {
		for _, s := range w.of(vrid, src) {
			if ok(s) {
				found = s
				return nil
			}
		}
		return fmt.Errorf("not among %d of %v", len(w.of(vrid, src)), src)
	})
	return found
}

// settle waits until one router alone speaks for the virtual router: for four
// intervals none other did.
func (w *wire) settle(vrid uint8, src netip.Addr, interval time.Duration) {
	w.t.Helper()
	testnet.MustWait(w.t, 30*time.Second, fmt.Sprintf("%v alone to be master of router %d", src, vrid), func() error {
		return w.alone(vrid, src, interval)
	})
}

func (w *wire) alone(vrid uint8, src netip.Addr, interval time.Duration) error {
	from := time.Now().Add(-4 * interval)
	n := 0
	for _, s := range w.of(vrid, netip.Addr{}) {
		if s.at.Before(from) {
			continue
		}
		if s.src != src {
			return fmt.Errorf("%v speaks with priority %d", s.src, s.priority())
		}
		n++
	}
	if n < 3 {
		return fmt.Errorf("heard %d times", n)
	}
	return nil
}
