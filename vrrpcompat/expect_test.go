package vrrpcompat

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A packet that is accepted, to be damaged by the tests.
type packet struct {
	ad       Advertisement
	sum      Checksum
	src, dst netip.Addr
	ttl      int
	damage   func(payload []byte) []byte // before the checksum
	flip     bool                        // damage the checksum
}

func (p packet) datagram(t testing.TB) Datagram {
	t.Helper()
	b, err := p.ad.Append(nil, p.src, p.dst, p.sum)
	if err != nil {
		t.Fatal(err)
	}
	if p.damage != nil {
		b = p.damage(b)
		if len(b) >= headerLen {
			binary.BigEndian.PutUint16(b[6:], checksum(b, p.src, p.dst, p.sum.of(Version(b[0]>>4), p.src)))
		}
	}
	if p.flip {
		b[6] ^= 0x55
	}
	return Datagram{Payload: b, Source: p.src, Destination: p.dst, TTL: p.ttl}
}

func goodPacket(v Version) packet {
	return packet{
		ad:  Advertisement{Version: v, VRID: 7, Priority: 100, Interval: time.Second, Addresses: addrs("10.0.0.100", "10.0.0.101")},
		src: addr("10.0.0.2"), dst: Group4, ttl: 255,
	}
}

func goodExpect(v Version) Expect {
	return Expect{
		Version: v, VRID: 7, Source: addr("10.0.0.1"), Interval: time.Second,
		Addresses: AddressList{Addresses: addrs("10.0.0.100", "10.0.0.101")},
	}
}

func setByte(at int, v byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] = v; return b }
}

// TestReceivingPackets has a row for each sentence of RFC 9568 section 7.1 and of
// RFC 3768 section 7.1, and for what keepalived adds.
func TestReceivingPackets(t *testing.T) {
	unicast := func(e *Expect, p *packet) {
		e.Peers = []Peer{{Address: addr("10.0.0.2")}, {Address: addr("10.0.0.3")}}
		p.dst = addr("10.0.0.1")
	}
	six := func(e *Expect, p *packet) {
		e.IPv6, e.Source, e.Addresses.Addresses = true, addr("fe80::1"), addrs("fe80::100")
		p.src, p.dst, p.ad.Addresses = addr("fe80::2"), Group6, addrs("fe80::100")
	}
	tests := []struct {
		from   string // the sentence
		v      Version
		change func(*Expect, *packet)
		want   Drop
	}{
		{"all fine", V3, func(*Expect, *packet) {}, DropNone},
		{"all fine", V2, func(*Expect, *packet) {}, DropNone},
		{"all fine", V3, six, DropNone},
		{"all fine", V3, unicast, DropNone},

		{"RFC 9568 7.1: IPv4 TTL is 255", V3, func(_ *Expect, p *packet) { p.ttl = 254 }, DropTTL},
		{"RFC 9568 7.1: IPv6 hop limit is 255", V3, func(e *Expect, p *packet) { six(e, p); p.ttl = 64 }, DropTTL},
		{"RFC 9568 7.1: version is 3", V3, func(_ *Expect, p *packet) { p.ad.Version = V2 }, DropVersion},
		{"RFC 9568 7.1: version is 3", V3, func(_ *Expect, p *packet) { p.damage = setByte(0, 0x41) }, DropVersion},
		{"RFC 9568 7.1: type is 1", V3, func(_ *Expect, p *packet) { p.damage = setByte(0, 0x32) }, DropType},
		{"RFC 9568 7.1: packet is complete: header", V3, func(_ *Expect, p *packet) { p.damage = func(b []byte) []byte { return b[:7] } }, DropLength},
		{"RFC 9568 7.1: packet is complete: empty", V3, func(_ *Expect, p *packet) { p.damage = func([]byte) []byte { return nil } }, DropLength},
		{"RFC 9568 7.1: packet is complete: addresses", V3, func(_ *Expect, p *packet) { p.damage = func(b []byte) []byte { return b[:15] } }, DropLength},
		{"RFC 9568 7.1: checksum", V3, func(_ *Expect, p *packet) { p.flip = true }, DropChecksum},
		{"RFC 9568 7.1: checksum", V3, func(e *Expect, p *packet) { six(e, p); p.flip = true }, DropChecksum},
		{"RFC 9568 7.1: VRID is configured", V3, func(_ *Expect, p *packet) { p.ad.VRID = 8 }, DropVRID},
		{"RFC 9568 7.1: not for the address owner", V3, func(e *Expect, _ *packet) { e.AddressOwner = true }, DropAddressOwner},
		{"RFC 9568 7.1, erratum 8301: interval is not zero", V3, func(_ *Expect, p *packet) { p.damage = func(b []byte) []byte { b[4], b[5] = 0, 0; return b } }, DropInterval},
		{"RFC 9568 7.1: another address list is no reason to drop", V3, func(_ *Expect, p *packet) { p.ad.Addresses = addrs("10.0.0.100", "10.0.0.102") }, DropNone},
		{"RFC 9568 7.1: another interval is no reason to drop", V3, func(_ *Expect, p *packet) { p.ad.Interval = 2 * time.Second }, DropNone},
		{"RFC 9568 5.2.5: a count of 0 is ignored", V3, func(_ *Expect, p *packet) { p.ad.Addresses = nil }, DropAddressList},

		{"RFC 3768 7.1: TTL is 255", V2, func(_ *Expect, p *packet) { p.ttl = 1 }, DropTTL},
		{"RFC 3768 7.1: version is 2", V2, func(_ *Expect, p *packet) { p.ad.Version = V3 }, DropVersion},
		{"RFC 3768 7.1: packet is complete: authentication data", V2, func(_ *Expect, p *packet) { p.damage = func(b []byte) []byte { return b[:len(b)-1] } }, DropLength},
		{"RFC 3768 7.1: checksum", V2, func(_ *Expect, p *packet) { p.flip = true }, DropChecksum},
		{"RFC 3768 7.1: VRID is configured", V2, func(_ *Expect, p *packet) { p.ad.VRID = 1 }, DropVRID},
		{"RFC 3768 7.1: not for the address owner", V2, func(e *Expect, _ *packet) { e.AddressOwner = true }, DropAddressOwner},
		{"RFC 3768 7.1: authentication type matches", V2, func(e *Expect, _ *packet) { e.AuthType = AuthPass }, DropAuthType},
		{"RFC 3768 7.1: authentication type matches", V2, func(_ *Expect, p *packet) { p.ad.AuthType = AuthPass }, DropAuthType},
		{"RFC 3768 7.1: interval is ours", V2, func(_ *Expect, p *packet) { p.ad.Interval = 2 * time.Second }, DropInterval},
		{"RFC 3768 7.1: interval is ours, but never 0", V2, func(e *Expect, p *packet) { e.Interval = 0; p.damage = setByte(5, 0) }, DropInterval},
		{"RFC 3768 7.1: address list, from a router that is not the owner", V2, func(e *Expect, p *packet) { e.Addresses.Strict = true; p.ad.Addresses = addrs("10.0.0.100") }, DropAddressList},
		{"RFC 3768 7.1: address list, from the owner", V2, func(e *Expect, p *packet) {
			e.Addresses.Strict = true
			p.ad.Addresses, p.ad.Priority = addrs("10.0.0.100"), 255
		}, DropNone},

		{"password", V2, func(e *Expect, p *packet) {
			e.AuthType, p.ad.AuthType, e.Auth, p.ad.Auth = AuthPass, AuthPass, Password("12345678x"), Password("12345678y")
		}, DropNone},
		{"wrong password", V2, func(e *Expect, p *packet) {
			e.AuthType, p.ad.AuthType, e.Auth, p.ad.Auth = AuthPass, AuthPass, Password("secret"), Password("secreT")
		}, DropAuthData},
		{"authentication data without authentication", V2, func(_ *Expect, p *packet) { p.ad.Auth = Password("left") }, DropNone},
		{"own packet", V3, func(_ *Expect, p *packet) { p.src = addr("10.0.0.1") }, DropOwn},
		{"plain checksum, pseudo-header expected", V3, func(_ *Expect, p *packet) { p.sum = ChecksumPlain }, DropChecksumForm},
		{"pseudo-header, plain checksum expected", V3, func(e *Expect, _ *packet) { e.Checksum = ChecksumPlain }, DropChecksumForm},
		{"plain checksum on both sides", V3, func(e *Expect, p *packet) { e.Checksum, p.sum = ChecksumPlain, ChecksumPlain }, DropNone},
		{"any checksum", V3, func(e *Expect, p *packet) { e.AnyChecksum, p.sum = true, ChecksumPlain }, DropNone},
		{"any checksum, but wrong", V3, func(e *Expect, p *packet) { e.AnyChecksum, p.flip = true, true }, DropChecksum},
		{"form does not matter in IPv6", V3, func(e *Expect, p *packet) { six(e, p); e.Checksum = ChecksumPlain }, DropNone},
		{"form does not matter in version 2", V2, func(e *Expect, p *packet) { e.Checksum = ChecksumPlain }, DropNone},
		{"multicast to unicast peers", V3, func(e *Expect, p *packet) { unicast(e, p); p.dst = Group4 }, DropNotUnicast},
		{"unicast to multicast", V3, func(_ *Expect, p *packet) { p.dst = addr("10.0.0.1") }, DropNotMulticast},
		{"another group", V3, func(_ *Expect, p *packet) { p.dst = addr("224.0.0.81") }, DropNotMulticast},
		{"a group of our own", V3, func(e *Expect, p *packet) { e.Group, p.dst = addr("224.0.0.81"), addr("224.0.0.81") }, DropNone},
		{"unicast from afar", V3, func(e *Expect, p *packet) { unicast(e, p); p.ttl = 3 }, DropNone},
		{"unicast from a stranger", V3, func(e *Expect, p *packet) { unicast(e, p); p.src = addr("10.0.0.9") }, DropNone},
		{"check_unicast_src, from a stranger", V3, func(e *Expect, p *packet) { unicast(e, p); e.CheckUnicastSource = true; p.src = addr("10.0.0.9") }, DropSource},
		{"check_unicast_src, from the second peer", V3, func(e *Expect, p *packet) { unicast(e, p); e.CheckUnicastSource = true; p.src = addr("10.0.0.3") }, DropNone},
		{"min_ttl of another peer makes strangers strangers", V3, func(e *Expect, p *packet) { unicast(e, p); e.Peers[1].MinTTL = 9; p.src = addr("10.0.0.9") }, DropSource},
		{"min_ttl", V3, func(e *Expect, p *packet) { unicast(e, p); e.Peers[0].MinTTL = 254; p.ttl = 253 }, DropPeerTTL},
		{"min_ttl just met", V3, func(e *Expect, p *packet) { unicast(e, p); e.Peers[0].MinTTL = 254; p.ttl = 254 }, DropNone},
		{"max_ttl", V3, func(e *Expect, p *packet) { unicast(e, p); e.Peers[0].MaxTTL = 64; p.ttl = 65 }, DropPeerTTL},
		{"max_ttl just met", V3, func(e *Expect, p *packet) { unicast(e, p); e.Peers[0].MaxTTL = 64; p.ttl = 64 }, DropNone},
		{"address list in another order", V3, func(e *Expect, p *packet) { e.Addresses.Strict = true; slices.Reverse(p.ad.Addresses) }, DropNone},
		{"one address twice", V3, func(e *Expect, p *packet) {
			e.Addresses.Strict = true
			p.ad.Addresses = addrs("10.0.0.100", "10.0.0.100")
		}, DropAddressList},
		{"one address more", V2, func(_ *Expect, p *packet) { p.ad.Addresses = addrs("10.0.0.100", "10.0.0.101", "10.0.0.102") }, DropNone},
		{"no address in common", V3, func(_ *Expect, p *packet) { p.ad.Addresses = addrs("10.0.0.200") }, DropVRIDCollision},
		{"no address in common, from an owner", V2, func(_ *Expect, p *packet) { p.ad.Addresses, p.ad.Priority = addrs("10.0.0.200"), 255 }, DropVRIDCollision},
		{"no address in common, skip_check_adv_addr", V3, func(e *Expect, p *packet) { e.Addresses.Skip = true; p.ad.Addresses = addrs("10.0.0.200") }, DropNone},
		{"no addresses on both sides", V3, func(e *Expect, p *packet) { e.Addresses.Addresses, p.ad.Addresses = nil, nil }, DropNone},
		{"no addresses on our side", V3, func(e *Expect, _ *packet) { e.Addresses.Addresses = nil }, DropNone},
		{"version 2 configured for IPv6", V2, func(e *Expect, p *packet) { six(e, p); p.ad.Version = V3; p.damage = setByte(0, 0x21) }, DropVersion},
		{"packet of the other family", V3, func(e *Expect, _ *packet) { e.IPv6 = true; e.Addresses.Addresses = nil }, DropLength},
	}
	for _, test := range tests {
		e, p := goodExpect(test.v), goodPacket(test.v)
		test.change(&e, &p)
		a, drop := e.Check(p.datagram(t))
		if drop != test.want {
			t.Errorf("version %d: %s: drop %v, want %v", test.v, test.from, drop, test.want)
		}
		if (a.Version != 0) != (drop == DropNone) {
			t.Errorf("version %d: %s: drop %v with %+v", test.v, test.from, drop, a)
		}
	}
}

// TestOrderOfChecks starts with a packet in which everything is wrong, and mends
// one fault after the other.
func TestOrderOfChecks(t *testing.T) {
	e := goodExpect(V2)
	e.AuthType, e.Auth = AuthPass, Password("secret")
	e.AddressOwner, e.CheckUnicastSource = true, true
	e.Peers = []Peer{{Address: addr("10.0.0.3"), MinTTL: 200}}
	e.Addresses.Strict = true
	body := unhex(t, "3209 6402 0002 ffff 0a00 00c8 0a00 00c9 0000 0000 0000 0000")
	d := Datagram{Payload: body[:7], Source: e.Source, Destination: Group4, TTL: 9}
	sum := func() {
		binary.BigEndian.PutUint16(d.Payload[6:], checksum(d.Payload, d.Source, d.Destination, ChecksumPlain))
	}
	steps := []struct {
		want Drop
		mend func()
	}{
		{DropLength, func() { d.Payload = body[:20] }},
		{DropVRID, func() { body[1] = 7 }},
		{DropOwn, func() { d.Source = addr("10.0.0.2") }},
		{DropAddressOwner, func() { e.AddressOwner = false }},
		{DropTTL, func() { d.TTL = 255 }},
		{DropVersion, func() { body[0] = 0x22 }},
		{DropLength, func() { d.Payload = body }},
		{DropAuthType, func() { body[4] = AuthPass }},
		{DropAuthData, func() { copy(body[16:], "secret") }},
		{DropInterval, func() { body[5] = 1 }},
		{DropType, func() { body[0] = 0x21 }},
		{DropChecksum, sum},
		{DropNotUnicast, func() { d.Destination, d.TTL = e.Source, 9; sum() }},
		{DropVRIDCollision, func() { body[11] = 100; sum() }},
		{DropAddressList, func() { body[15] = 101; sum() }},
		{DropSource, func() { d.Source = addr("10.0.0.3") }},
		{DropPeerTTL, func() { d.TTL = 255 }},
		{DropNone, func() {}},
	}
	for i, step := range steps {
		if _, drop := e.Check(d); drop != step.want {
			t.Fatalf("step %d: drop %v, want %v", i, drop, step.want)
		}
		step.mend()
	}
}

func TestPaddingIsTolerated(t *testing.T) {
	for _, v := range []Version{V2, V3} {
		e, d := goodExpect(v), goodPacket(v).datagram(t)
		d.Payload = append(d.Payload, bytes.Repeat([]byte{0xaa}, 18)...)
		if _, drop := e.Check(d); drop != DropNone {
			t.Errorf("version %d: drop %v", v, drop)
		}
	}
}

func TestMismatches(t *testing.T) {
	e := goodExpect(V3)
	a := goodPacket(V3).ad
	if got := e.Mismatches(a); got != nil {
		t.Errorf("same: %v", got)
	}
	a.Interval, a.Addresses = 2*time.Second, addrs("10.0.0.100")
	if got := e.Mismatches(a); !slices.Equal(got, []Mismatch{MismatchAddresses, MismatchInterval}) {
		t.Errorf("both: %v", got)
	}
	e.Addresses.Skip = true
	if got := e.Mismatches(a); !slices.Equal(got, []Mismatch{MismatchInterval}) {
		t.Errorf("addresses skipped: %v", got)
	}
}

func TestCounters(t *testing.T) {
	var c Counters
	c.Count(DropNone)
	c.Count(DropNone, MismatchAddresses, MismatchInterval)
	c.Count(DropNone, MismatchInterval)
	c.Count(DropTTL)
	c.Count(Drop(200), Mismatch(200)) // no panic
	if c.Received() != 5 || c.Accepted() != 3 || c.Dropped(DropTTL) != 1 || c.Dropped(DropVRID) != 0 || c.Dropped(DropNone) != 0 || c.Dropped(Drop(200)) != 0 {
		t.Errorf("counters %+v", c)
	}
	if c.Mismatched(MismatchAddresses) != 1 || c.Mismatched(MismatchInterval) != 2 || c.Mismatched(MismatchNone) != 0 {
		t.Errorf("counters %+v", c)
	}
}

// Names are labels of metrics: they do not change, and none is used twice.
func TestNames(t *testing.T) {
	want := "length vrid own address_owner ttl version auth_type auth_data interval type checksum checksum_form not_unicast not_multicast vrid_collision address_list source peer_ttl"
	var got []byte
	for _, d := range Drops() {
		if len(got) > 0 {
			got = append(got, ' ')
		}
		got = append(got, d.String()...)
	}
	if string(got) != want {
		t.Errorf("drops are\n%s, want\n%s", got, want)
	}
	for _, m := range Mismatches() {
		if m.String() == "unknown" || m.String() == "none" {
			t.Errorf("mismatch %d has no name", m)
		}
	}
	if DropNone.String() != "none" || MismatchNone.String() != "none" || Drop(200).String() != "unknown" || Mismatch(200).String() != "unknown" {
		t.Error("no name for none or unknown")
	}
}
