package vrrpnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
	"golang.org/x/sys/unix"
)

// mustOpen opens a Conn in the host; its sockets stay there.
func mustOpen(t *testing.T, h *testnet.Host, o Options) *Conn {
	t.Helper()
	var c *Conn
	if err := h.Do(func() (err error) { c, err = Open(o); return }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Do(c.Close) })
	return c
}

func receive(t *testing.T, c *Conn) vrrpcompat.Datagram {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d, err := c.Receive(ctx)
	if err != nil {
		t.Fatalf("receive on %v: %v", c.Source(), err)
	}
	return d
}

// nothing checks that nothing has arrived. What was sent earlier by the same host
// to another Conn of this one has arrived when that has received it.
func nothing(t *testing.T, c *Conn, why string) {
	t.Helper()
	if d, ok, err := c.next(); ok || err != nil {
		t.Errorf("%s: received %v, %v", why, d, err)
	}
}

func TestConn(t *testing.T) {
	l := testnet.ForTest(t, testnet.Options{Nodes: 2, PeerNetwork: true})
	a, b := l.Node(0), l.Node(1)
	for _, ipv6 := range []bool{false, true} {
		for _, unicast := range []bool{false, true} {
			t.Run(fmt.Sprintf("ipv6=%v unicast=%v", ipv6, unicast), func(t *testing.T) {
				at := func(h *testnet.Host) netip.Addr {
					switch {
					case !ipv6:
						return h.Addr4(testnet.Front)
					case unicast:
						return h.Addr6(testnet.Front)
					}
					return linkLocal(h)
				}
				options := func(vrid uint8, dev string, from, to *testnet.Host) Options {
					o := Options{Interface: dev, IPv6: ipv6, VRID: vrid, TTL: 77}
					if unicast {
						o.Peers = []netip.Addr{at(from), at(to)} // it is not its own peer
					}
					return o
				}
				from, to := mustOpen(t, a, options(9, "eth0", a, b)), mustOpen(t, b, options(9, "eth0", b, a))
				otherRouter := mustOpen(t, b, options(10, "eth0", b, a))
				o := options(9, "eth1", b, a)
				if unicast {
					o.Peers = []netip.Addr{netip.MustParseAddr("10.98.0.11")}
					if ipv6 {
						o.Peers = []netip.Addr{netip.MustParseAddr("fd00:98::11")}
					}
				}
				otherLink := mustOpen(t, b, o)

				if from.Source() != at(a) || to.Source() != at(b) {
					t.Fatalf("sources %v and %v, want %v and %v", from.Source(), to.Source(), at(a), at(b))
				}
				dst, ttl := at(b), 77
				if !unicast {
					dst, ttl = vrrpcompat.Group4, 255
					if ipv6 {
						dst = vrrpcompat.Group6
					}
				}
				if got := from.Destinations(); !slices.Equal(got, []netip.Addr{dst}) {
					t.Fatalf("destinations %v, want %v", got, dst)
				}
				var got []vrrpcompat.Datagram
				for prio := range uint8(3) {
					adv := vrrpcompat.Advertisement{Version: 3, VRID: 9, Priority: prio, Interval: time.Second, Addresses: []netip.Addr{virtual(l, 9, ipv6)}}
					if sent, err := from.Send(adv, vrrpcompat.ChecksumPseudoHeader); err != nil || sent != 1 {
						t.Fatalf("sent %d: %v", sent, err)
					}
					got = append(got, receive(t, to))
				}
				for i, d := range got { // each is a copy of its own
					want, err := (vrrpcompat.Advertisement{Version: 3, VRID: 9, Priority: uint8(i), Interval: time.Second, Addresses: []netip.Addr{virtual(l, 9, ipv6)}}).Append(nil, at(a), dst, vrrpcompat.ChecksumPseudoHeader)
					if err != nil || !bytes.Equal(d.Payload, want) || d.Source != at(a) || d.Destination != dst || d.TTL != ttl {
						t.Errorf("received %+v, want %x from %v to %v, TTL %d", d, want, at(a), dst, ttl)
					}
				}
				nothing(t, from, "its own")
				nothing(t, otherRouter, "of another router")
				nothing(t, otherLink, "on another interface")

				// Lengths that no router sends.
				for _, n := range []int{0, 1, 2, 7, 1400} {
					b := make([]byte, n)
					if n > 1 {
						b[1] = 9
					}
					if err := from.sendTo(b, dst); err != nil {
						t.Fatalf("send %d bytes: %v", n, err)
					}
				}
				for _, n := range []int{2, 7, 1400} { // shorter ones are nobody's
					if d := receive(t, to); len(d.Payload) != n {
						t.Errorf("received %d bytes, want %d", len(d.Payload), n)
					}
				}
				nothing(t, to, "too short to have a VRID")
				if err := from.sendTo(make([]byte, 1600), dst); !errors.Is(err, unix.EMSGSIZE) {
					t.Errorf("1600 bytes where 1500 fit: %v", err)
				}

				// A wait ends with its context, the next one works, Close ends it too.
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(10*time.Millisecond, cancel)
				if _, err := to.Receive(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				if err := from.sendTo([]byte{0, 9}, dst); err != nil {
					t.Fatal(err)
				}
				receive(t, to)
				if err := b.Do(to.Check); err != nil {
					t.Errorf("nothing has changed: %v", err)
				}
				closed := make(chan error)
				time.AfterFunc(10*time.Millisecond, func() { closed <- to.Close() })
				if _, err := to.Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
					t.Errorf("closed: %v", err)
				}
				if err := <-closed; err != nil {
					t.Errorf("close: %v", err)
				}
				if err := to.sendTo([]byte{0, 9}, dst); !errors.Is(err, net.ErrClosed) {
					t.Errorf("send when closed: %v", err)
				}
			})
		}
	}
}

// A peer that does not answer ARP holds packets up. Sending goes on at once, with an
// error when there is no room left.
func TestSendNeverWaits(t *testing.T) {
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	h := l.Node(0)
	mustExec(t, h, "sysctl -qw net.ipv4.neigh.eth0.unres_qlen_bytes=100000000")
	c := mustOpen(t, h, Options{Interface: "eth0", VRID: 1, Peers: []netip.Addr{l.VIP4(199), l.Node(1).Addr4(testnet.Front)}})
	adv := vrrpcompat.Advertisement{Version: 3, VRID: 1, Priority: 1, Interval: time.Second}
	for range 10000 {
		sent, err := c.Send(adv, vrrpcompat.ChecksumPlain)
		if err == nil && sent == 2 {
			continue
		}
		if !errors.Is(err, ErrQueueFull) || !strings.Contains(err.Error(), "send to 10.99.0.1") {
			t.Fatalf("sent %d: %v", sent, err)
		}
		return
	}
	t.Error("10000 packets were kept for a peer that is not there")
}

func TestOpenErrors(t *testing.T) {
	l := testnet.ForTest(t, testnet.Options{Nodes: 1})
	h := l.Node(0)
	mustExec(t, h, `ip link add name bare type bridge; ip link set bare up
		ip link add name down type bridge; ip addr add 10.1.1.1/24 dev down`)
	for _, x := range []struct {
		name string
		o    Options
		want error
	}{
		{"no such interface", Options{Interface: "none", VRID: 1}, ErrNoInterface},
		{"switched off", Options{Interface: "down", VRID: 1}, ErrNoInterface},
		{"without an address", Options{Interface: "bare", VRID: 1}, ErrNoSource},
		{"virtual addresses only", Options{Interface: "eth0", VRID: 1, Virtual: []netip.Addr{h.Addr4(testnet.Front)}}, ErrNoSource},
		{"foreign source", Options{Interface: "eth0", VRID: 1, Source: l.VIP4(1)}, ErrNoSource},
		{"invalid", Options{Interface: "eth0"}, errOptions},
	} {
		err := h.Do(func() error {
			c, err := Open(x.o)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
	}
	// No carrier is needed where that is asked for, and no interface where the source
	// says which.
	mustOpen(t, h, Options{Interface: "down", VRID: 1, IgnoreCarrier: true})
	c := mustOpen(t, h, Options{VRID: 1, Source: h.Addr4(testnet.Front), Peers: []netip.Addr{l.VIP4(1)}})
	if c.Interface() != "eth0" {
		t.Errorf("interface %q", c.Interface())
	}
}
