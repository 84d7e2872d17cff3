package vrrpcompat

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// A Datagram is a packet as it was received.
type Datagram struct {
	Payload     []byte // without the IP header
	Source      netip.Addr
	Destination netip.Addr
	TTL         int // IPv4 time to live or IPv6 hop limit
}

// A Peer is a router that is spoken to by unicast.
type Peer struct {
	Address netip.Addr
	// MinTTL and MaxTTL are the range of the TTL in which its packets are
	// accepted. A MaxTTL of 0 means 255.
	MinTTL, MaxTTL int
}

// Expect is what a virtual router is configured for: the packets that it accepts.
type Expect struct {
	Version Version
	VRID    uint8
	// IPv6 tells the family of the virtual router.
	IPv6 bool
	// Source is the address that we send from, to know our own packets by. The
	// zero Addr knows none.
	Source netip.Addr
	// AddressOwner: nobody is listened to, because we have priority 255 (RFC 9568
	// section 7.1; keepalived's owner_ignore_adverts). Without it two owners of
	// one address are told apart by their source addresses.
	AddressOwner bool
	// Interval between advertisements. In version 2 it must be the peers' as well.
	Interval time.Duration
	// AuthType and Auth are of version 2.
	AuthType uint8
	Auth     [8]byte
	// Checksum is the form that is accepted for version 3 over IPv4; with
	// AnyChecksum both are.
	Checksum    Checksum
	AnyChecksum bool
	// Group is the multicast group; the zero Addr means Group4 or Group6.
	Group netip.Addr
	// Peers, if there are any, are spoken to by unicast instead of the group.
	// Their packets are accepted from any source, unless CheckUnicastSource
	// (keepalived's check_unicast_src) or a TTL range of any peer is given.
	Peers              []Peer
	CheckUnicastSource bool
	Addresses          AddressList
}

// An AddressList is the list of the virtual addresses and how much a difference
// to a packet's list matters. The order never does.
//
// The default is to accept a packet with another list and to name the difference
// (see [Expect.Mismatches]), as RFC 9568 section 7.1 and keepalived from 2.3.3 do:
// who drops it becomes a second master while lists are being changed. If there is
// no address in common, though, the sender does not serve our addresses, and the
// packet is dropped as a collision of VRIDs.
type AddressList struct {
	Addresses []netip.Addr
	// Skip compares nothing (keepalived's skip_check_adv_addr).
	Skip bool
	// Strict drops every packet with another list, unless it is from the address
	// owner: RFC 3768 section 7.1, keepalived up to 2.3.2.
	Strict bool
}

// Check tells whether a packet is accepted. The checks are those of RFC 9568
// section 7.1 in keepalived's order: length, VRID, own address, address owner,
// TTL, version, authentication, interval, type, checksum, multicast or unicast,
// address list, unicast peer and its TTL. The Advertisement is zero if the packet
// is dropped.
func (e *Expect) Check(d Datagram) (Advertisement, Drop) {
	a, drop := e.check(d)
	if drop != DropNone {
		return Advertisement{}, drop
	}
	return a, DropNone
}

func (e *Expect) check(d Datagram) (Advertisement, Drop) {
	src, dst := bare(d.Source), bare(d.Destination)
	multicast := dst.IsMulticast()
	switch {
	case len(d.Payload) < headerLen:
		return Advertisement{}, DropLength
	case d.Payload[1] != e.VRID:
		return Advertisement{}, DropVRID
	case e.Source.IsValid() && src == bare(e.Source):
		return Advertisement{}, DropOwn
	case e.AddressOwner:
		return Advertisement{}, DropAddressOwner
	case multicast && d.TTL != TTL:
		return Advertisement{}, DropTTL
	case Version(d.Payload[0]>>4) != e.Version:
		return Advertisement{}, DropVersion
	}
	a, length, drop := parse(d.Payload, e.IPv6)
	if drop != DropNone {
		return a, drop
	}
	if e.Version == V2 {
		if a.AuthType != e.AuthType {
			return a, DropAuthType
		}
		// Without authentication the data are ignored: RFC 3768 section 5.3.10.
		if a.AuthType == AuthPass && a.Auth != e.Auth {
			return a, DropAuthData
		}
	}
	if a.Interval == 0 || e.Version == V2 && a.Interval != e.Interval {
		return a, DropInterval
	}
	if d.Payload[0]&0xf != typeAdvertisement {
		return a, DropType
	}
	if drop := e.checkSum(d.Payload[:length], src, dst); drop != DropNone {
		return a, drop
	}
	if len(e.Peers) > 0 {
		if multicast {
			return a, DropNotUnicast
		}
	} else if dst != e.group() {
		return a, DropNotMulticast
	}
	if drop := e.Addresses.check(a); drop != DropNone {
		return a, drop
	}
	return a, e.checkPeer(src, d.TTL)
}

func (e *Expect) group() netip.Addr {
	switch {
	case e.Group.IsValid():
		return bare(e.Group)
	case e.IPv6:
		return Group6
	}
	return Group4
}

func (e *Expect) checkSum(packet []byte, src, dst netip.Addr) Drop {
	if !src.IsValid() || !dst.IsValid() || src.Is4() == e.IPv6 || dst.Is4() == e.IPv6 {
		return DropChecksum // the family of the packet is not the router's
	}
	have := binary.BigEndian.Uint16(packet[6:])
	form := e.Checksum.of(e.Version, src)
	if have == checksum(packet, src, dst, form) {
		return DropNone
	}
	other := (ChecksumPlain - form).of(e.Version, src)
	if other == form || have != checksum(packet, src, dst, other) {
		return DropChecksum
	}
	if e.AnyChecksum {
		return DropNone
	}
	return DropChecksumForm
}

func (e *Expect) checkPeer(src netip.Addr, ttl int) Drop {
	limited := e.CheckUnicastSource || slices.ContainsFunc(e.Peers, func(p Peer) bool { return p.MinTTL > 0 || p.MaxTTL > 0 })
	if len(e.Peers) == 0 || !limited {
		return DropNone
	}
	at := slices.IndexFunc(e.Peers, func(p Peer) bool { return bare(p.Address) == src })
	if at < 0 {
		return DropSource
	}
	if p := e.Peers[at]; ttl < p.MinTTL || p.MaxTTL > 0 && ttl > p.MaxTTL {
		return DropPeerTTL
	}
	return DropNone
}

func (l *AddressList) check(a Advertisement) Drop {
	if l.Skip || l.equal(a) {
		return DropNone
	}
	common := slices.ContainsFunc(a.Addresses, func(addr netip.Addr) bool { return contains(l.Addresses, addr) })
	switch {
	case !common && len(l.Addresses) > 0 && len(a.Addresses) > 0:
		return DropVRIDCollision
	case l.Strict && a.Priority != PriorityOwner:
		return DropAddressList
	case len(a.Addresses) == 0:
		return DropAddressList // RFC 9568 section 5.2.5: a count of 0 is ignored
	}
	return DropNone
}

func contains(all []netip.Addr, addr netip.Addr) bool {
	return slices.ContainsFunc(all, func(a netip.Addr) bool { return bare(a) == bare(addr) })
}

// equal tells whether both lists have the same addresses.
func (l *AddressList) equal(a Advertisement) bool {
	if len(a.Addresses) != len(l.Addresses) {
		return false
	}
	for _, addr := range a.Addresses {
		if !contains(l.Addresses, addr) {
			return false
		}
	}
	return !slices.ContainsFunc(l.Addresses, func(own netip.Addr) bool { return !contains(a.Addresses, own) })
}

// Mismatches returns the differences of a packet that Check accepted. A router
// that is leaving (priority 0) is not told from one that stays.
func (e *Expect) Mismatches(a Advertisement) []Mismatch {
	var found []Mismatch
	if !e.Addresses.Skip && !e.Addresses.equal(a) {
		found = append(found, MismatchAddresses)
	}
	if a.Interval != e.Interval {
		found = append(found, MismatchInterval)
	}
	return found
}
