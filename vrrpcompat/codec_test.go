package vrrpcompat

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	addr  = netip.MustParseAddr
	addrs = func(ss ...string) (all []netip.Addr) {
		for _, s := range ss {
			all = append(all, addr(s))
		}
		return all
	}
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Packets that keepalived sent, as captured.
var goldenPackets = []struct {
	name     string
	src, dst string
	sum      Checksum
	ad       Advertisement
	hex      string
}{
	{
		name: "version 2 multicast, keepalived 2.2.7", src: "10.99.0.2", dst: "224.0.0.18",
		ad:  Advertisement{Version: V2, VRID: 51, Priority: 103, Interval: time.Second, Addresses: addrs("10.99.0.100")},
		hex: "2133 6701 0001 6d03 0a63 0064 0000 0000 0000 0000",
	},
	{
		name: "version 3 unicast, keepalived 2.4", src: "10.99.0.2", dst: "10.99.0.3",
		ad:  Advertisement{Version: V3, VRID: 62, Priority: 101, Interval: 500 * time.Millisecond, Addresses: addrs("10.99.0.100")},
		hex: "313e 6501 0032 4980 0a63 0064",
	},
	{
		name: "version 3 IPv6 multicast, keepalived 2.4", src: "fe80::acbd:e0ff:fec1:cd1f", dst: "ff02::12",
		ad:  Advertisement{Version: V3, VRID: 61, Priority: 101, Interval: 500 * time.Millisecond, Addresses: addrs("fe80::61", "fd00:99::61")},
		hex: "313d 6502 0032 14e4 fe80 0000 0000 0000 0000 0000 0000 0061 fd00 0099 0000 0000 0000 0000 0000 0061",
	},
}

func TestGoldenPackets(t *testing.T) {
	for _, g := range goldenPackets {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			got, err := g.ad.Append(nil, addr(g.src), addr(g.dst), g.sum)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("encoded\n%x, want\n%x (%v)", got, want, err)
			}
			a, n, drop := Parse(want, addr(g.src).Is6())
			if drop != DropNone || n != len(want) || !reflect.DeepEqual(a, g.ad) {
				t.Errorf("decoded %+v of %d bytes, drop %v, want %+v", a, n, drop, g.ad)
			}
			e := Expect{Version: g.ad.Version, VRID: g.ad.VRID, IPv6: addr(g.src).Is6(), Interval: g.ad.Interval, Addresses: AddressList{Addresses: g.ad.Addresses}}
			if !addr(g.dst).IsMulticast() {
				e.Peers = []Peer{{Address: addr(g.src)}}
			}
			d := Datagram{Payload: want, Source: addr(g.src), Destination: addr(g.dst), TTL: 255}
			if a, drop := e.Check(d); drop != DropNone || !reflect.DeepEqual(a, g.ad) || e.Mismatches(a) != nil {
				t.Errorf("checked %+v, drop %v, mismatches %v", a, drop, e.Mismatches(a))
			}
		})
	}
}

// The IP headers of the same captures carry the addresses that the checksum needs.
func TestGoldenChecksums(t *testing.T) {
	packet := unhex(t, "313e 6501 0032 4980 0a63 0064")
	src, dst := addr("10.99.0.2"), addr("10.99.0.3")
	if got := checksum(packet, src, dst, ChecksumPseudoHeader); got != 0x4980 {
		t.Errorf("pseudo-header: %#x, want 0x4980", got)
	}
	// By hand: 313e + 6501 + 0032 + 0a63 + 0064 = a138, and its complement is 5ec7.
	if got := checksum(packet, src, dst, ChecksumPlain); got != 0x5ec7 {
		t.Errorf("plain: %#x, want 0x5ec7", got)
	}
	if got := checksum([]byte{0xff, 0xff, 0, 0, 0, 0, 9, 9, 0, 1, 0x80}, src, dst, ChecksumPlain); got != ^uint16(0x8001) {
		t.Errorf("carry and odd length: %#x, want %#x", got, ^uint16(0x8001))
	}
}

func TestRoundTrip(t *testing.T) {
	many4 := make([]netip.Addr, 255)
	many6 := make([]netip.Addr, 255)
	for i := range many4 {
		many4[i] = netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		many6[i] = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
	}
	tests := []struct {
		name     string
		ad       Advertisement
		src, dst string
		sum      Checksum
	}{
		{"password", Advertisement{Version: V2, VRID: 1, Priority: 255, Interval: 255 * time.Second, Addresses: many4[:2], AuthType: AuthPass, Auth: Password("secret")}, "10.0.0.1", "224.0.0.18", 0},
		{"no authentication but data", Advertisement{Version: V2, VRID: 1, Priority: 1, Interval: time.Second, Auth: Password("left")}, "10.0.0.1", "224.0.0.18", 0},
		{"version 2, most addresses", Advertisement{Version: V2, VRID: 255, Interval: time.Second, Addresses: many4}, "10.0.0.1", "10.0.0.2", 0},
		{"shortest interval", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: 10 * time.Millisecond, Addresses: many4[:1]}, "10.0.0.1", "224.0.0.18", ChecksumPlain},
		{"longest interval", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: 40950 * time.Millisecond, Addresses: many4[:1]}, "10.0.0.1", "224.0.0.18", ChecksumPseudoHeader},
		{"version 3, most addresses", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second, Addresses: many4}, "10.0.0.1", "224.0.0.18", 0},
		{"IPv6, most addresses", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second, Addresses: many6}, "fe80::1", "ff02::12", 0},
		{"an IPv6 address that looks like IPv4", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second, Addresses: addrs("::ffff:10.0.0.1")}, "fe80::1", "ff02::12", 0},
		{"no address", Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second}, "fe80::1", "fe80::2", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			prefix := []byte("before")
			b, err := test.ad.Append(prefix, addr(test.src), addr(test.dst), test.sum)
			if err != nil || !bytes.HasPrefix(b, prefix) {
				t.Fatal(err)
			}
			b = b[len(prefix):]
			padded := append(bytes.Clone(b), 1, 2, 3)
			a, n, drop := Parse(padded, addr(test.src).Is6())
			if drop != DropNone || n != len(b) || !reflect.DeepEqual(a, test.ad) {
				t.Errorf("decoded %+v of %d bytes, drop %v", a, n, drop)
			}
			for cut := range b {
				if _, _, drop := Parse(b[:cut], addr(test.src).Is6()); drop != DropLength {
					t.Fatalf("cut to %d bytes: drop %v", cut, drop)
				}
			}
		})
	}
}

func TestZonesAndMappedAddresses(t *testing.T) {
	plain := Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second, Addresses: addrs("fe80::9")}
	zoned := plain
	zoned.Addresses = addrs("fe80::9%eth0")
	want, err := plain.Append(nil, addr("fe80::1"), Group6, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := zoned.Append(nil, addr("fe80::1%eth0"), Group6.WithZone("eth0"), 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("with zones %x, %v, want %x", got, err, want)
	}
	e := Expect{Version: V3, VRID: 1, IPv6: true, Interval: time.Second, Addresses: AddressList{Addresses: zoned.Addresses, Strict: true}}
	if _, drop := e.Check(Datagram{want, addr("fe80::1%eth0"), Group6.WithZone("eth0"), 255}); drop != DropNone {
		t.Errorf("drop %v", drop)
	}
	four := Advertisement{Version: V3, VRID: 1, Priority: 1, Interval: time.Second, Addresses: addrs("::ffff:10.0.0.9")}
	if b, err := four.Append(nil, addr("::ffff:10.0.0.1"), Group4, 0); err != nil || len(b) != 12 {
		t.Errorf("mapped: %x, %v", b, err)
	}
}

func TestAppendErrors(t *testing.T) {
	good := Advertisement{Version: V3, VRID: 7, Priority: 100, Interval: time.Second, Addresses: addrs("10.0.0.9")}
	good2 := good
	good2.Version = V2
	tests := []struct {
		ad       Advertisement
		change   func(*Advertisement)
		src, dst string
		want     string
	}{
		{good, func(a *Advertisement) { a.Version = 4 }, "10.0.0.1", "10.0.0.2", "version 4: must be 2 or 3"},
		{good, func(a *Advertisement) {}, "10.0.0.1", "ff02::12", "one family"},
		{good, func(a *Advertisement) { a.VRID = 0 }, "10.0.0.1", "10.0.0.2", "identifier 0: must be between 1 and 255"},
		{good, func(a *Advertisement) { a.Addresses = make([]netip.Addr, 256) }, "10.0.0.1", "10.0.0.2", "256 addresses: must be at most 255"},
		{good, func(a *Advertisement) { a.Addresses = addrs("10.0.0.9", "fd00::1") }, "10.0.0.1", "10.0.0.2", "address fd00::1: must be of the family of 10.0.0.1"},
		{good, func(a *Advertisement) { a.Addresses = []netip.Addr{{}} }, "10.0.0.1", "10.0.0.2", "must be of the family"},
		{good, func(a *Advertisement) { a.AuthType = AuthPass }, "10.0.0.1", "10.0.0.2", "authentication: needs version 2"},
		{good, func(a *Advertisement) { a.Interval = 0 }, "10.0.0.1", "10.0.0.2", "0.01 to 40.95 seconds"},
		{good, func(a *Advertisement) { a.Interval = 40960 * time.Millisecond }, "10.0.0.1", "10.0.0.2", "0.01 to 40.95 seconds"},
		{good, func(a *Advertisement) { a.Interval = 15 * time.Millisecond }, "10.0.0.1", "10.0.0.2", "steps of 0.01"},
		{good2, func(a *Advertisement) { a.Interval = 1500 * time.Millisecond }, "10.0.0.1", "10.0.0.2", "1 to 255 whole seconds"},
		{good2, func(a *Advertisement) { a.Interval = 256 * time.Second }, "10.0.0.1", "10.0.0.2", "1 to 255 whole seconds"},
		{good2, func(a *Advertisement) { a.Interval = 0 }, "10.0.0.1", "10.0.0.2", "1 to 255 whole seconds"},
		{good2, func(a *Advertisement) { a.Addresses = nil }, "fe80::1", "ff02::12", "IPv6 needs version 3"},
	}
	for _, test := range tests {
		test.change(&test.ad)
		b, err := test.ad.Append([]byte("kept"), addr(test.src), addr(test.dst), 0)
		if err == nil || !strings.Contains(err.Error(), test.want) || string(b) != "kept" {
			t.Errorf("%q, error %v, want %q", b, err, test.want)
		}
	}
	if _, err := good.Append(nil, netip.Addr{}, Group4, 0); err == nil {
		t.Error("no source address: no error")
	}
}

func TestParseDrops(t *testing.T) {
	tests := []struct {
		name, hex string
		ipv6      bool
		want      Drop
	}{
		{"empty", "", false, DropLength},
		{"half a header", "3101 6401 0064", false, DropLength},
		{"version 1", "1101 6400 0064 0000", false, DropVersion},
		{"version 4", "4101 6400 0064 0000", false, DropVersion},
		{"version 2 over IPv6", "2101 6400 0001 0000 0000 0000 0000 0000", true, DropVersion},
		{"type 2", "3201 6400 0064 0000", false, DropType},
		{"type 0 and short", "3001 6401 0064 0000", false, DropLength},
		{"one address missing", "3101 6402 0064 0000 0a00 0001", false, DropLength},
		{"IPv4 address in IPv6", "3101 6401 0064 0000 0a00 0001", true, DropLength},
		{"version 2 without authentication data", "2101 6401 0001 0000 0a00 0001", false, DropLength},
		{"fine", "3101 6401 0064 0000 0a00 0001", false, DropNone},
	}
	for _, test := range tests {
		if _, _, drop := Parse(unhex(t, test.hex), test.ipv6); drop != test.want {
			t.Errorf("%s: drop %v, want %v", test.name, drop, test.want)
		}
	}
	// Section 5.2.6: the reserved bits are ignored.
	a, _, drop := Parse(unhex(t, "3101 6400 f064 0000"), false)
	if drop != DropNone || a.Interval != time.Second {
		t.Errorf("reserved bits: %+v, drop %v", a, drop)
	}
}

func TestPassword(t *testing.T) {
	if Password("12345678") != Password("12345678 and more") {
		t.Error("what follows the eighth byte counts")
	}
	if got := Password("abc"); got != [8]byte{'a', 'b', 'c'} {
		t.Errorf("not padded with zeros: %x", got)
	}
}
