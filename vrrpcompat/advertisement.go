package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// A Version is the version of the protocol. The zero Version is not valid.
type Version uint8

// The versions of the protocol that are in use.
const (
	V2 Version = 2 // RFC 3768: IPv4 only, whole seconds, authentication
	V3 Version = 3 // RFC 9568: IPv4 and IPv6, centiseconds
)

// Protocol is the IP protocol number of VRRP (RFC 9568 section 5.1.1.4).
const Protocol = 112

// TTL is what the time to live or hop limit of a packet to the multicast group
// has to be (RFC 9568 sections 5.1.1.3 and 5.1.2.3).
const TTL = 255

// Priorities with a meaning of their own (RFC 9568 section 5.2.4).
const (
	PriorityLeaving = 0   // the master stops taking part
	PriorityOwner   = 255 // the router's own addresses are the virtual ones
)

// Group4 and Groups6 are the multicast groups of the protocol (RFC 9568
// sections 5.1.1.2 and 5.1.2.2).
var (
	Group4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	Group6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// Authentication types of version 2 (RFC 2338 section 5.3.6; RFC 3768 keeps the
// field and withdraws all but none). Version 3 has none.
const (
	AuthNone uint8 = 0
	AuthPass uint8 = 1 // a password in clear
	AuthAH   uint8 = 2 // an IPsec authentication header; not supported
)

const (
	typeAdvertisement = 1 // the only packet type, RFC 9568 section 5.2.2
	headerLen         = 8
	authLen           = 8 // version 2, after the addresses
	centisecond       = 10 * time.Millisecond
	maxCentiseconds   = 1<<12 - 1
)

// An Advertisement is a VRRP packet: RFC 9568 section 5.2, RFC 3768 section 5.3.
type Advertisement struct {
	Version  Version
	VRID     uint8 // virtual router identifier, 1 to 255
	Priority uint8 // PriorityLeaving to PriorityOwner
	// Interval is the time between advertisements. Version 2: whole seconds, 1 to
	// 255. Version 3: multiples of 10 ms up to 40.95 s.
	Interval time.Duration
	// Addresses are the virtual addresses, at most 255, all of one family.
	Addresses []netip.Addr
	// AuthType and Auth are of version 2 only.
	AuthType uint8
	Auth     [8]byte
}

// Password returns the authentication data for a password: only its first eight
// bytes count, as in keepalived.
func Password(s string) [8]byte {
	var auth [8]byte
	copy(auth[:], s)
	return auth
}

// Append appends the packet, without an IP header, to b. src and dst are the
// addresses of the IP header; they decide the family and are part of the
// checksum where sum says so. The errors name the field that has no encoding.
func (a Advertisement) Append(b []byte, src, dst netip.Addr, sum Checksum) ([]byte, error) {
	src, dst = bare(src), bare(dst)
	if err := a.validate(src, dst); err != nil {
		return b, fmt.Errorf("encode advertisement of virtual router %d: %w", a.VRID, err)
	}
	start := len(b)
	b = append(b, byte(a.Version)<<4|typeAdvertisement, a.VRID, a.Priority, byte(len(a.Addresses)))
	if a.Version == V2 {
		b = append(b, a.AuthType, byte(a.Interval/time.Second))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(a.Interval/centisecond))
	}
	b = append(b, 0, 0)
	for _, addr := range a.Addresses {
		if src.Is4() {
			addr = addr.Unmap()
		}
		b = append(b, addr.AsSlice()...)
	}
	if a.Version == V2 {
		b = append(b, a.Auth[:]...)
	}
	binary.BigEndian.PutUint16(b[start+6:], checksum(b[start:], src, dst, sum.of(a.Version, src)))
	return b, nil
}

func (a Advertisement) validate(src, dst netip.Addr) error {
	switch {
	case a.Version != V2 && a.Version != V3:
		return fmt.Errorf("version %d: must be 2 or 3", a.Version)
	case !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4():
		return fmt.Errorf("from %v to %v: must be two addresses of one family", src, dst)
	case a.Version == V2 && !src.Is4():
		return fmt.Errorf("version 2 over IPv6: IPv6 needs version 3")
	case a.VRID == 0:
		return fmt.Errorf("virtual router identifier 0: must be between 1 and 255")
	case len(a.Addresses) > 255:
		return fmt.Errorf("%d addresses: must be at most 255", len(a.Addresses))
	case a.Version == V3 && (a.AuthType != AuthNone || a.Auth != [8]byte{}):
		return fmt.Errorf("authentication: needs version 2")
	}
	if err := ValidInterval(a.Version, a.Interval); err != nil {
		return err
	}
	for _, addr := range a.Addresses {
		if !addr.IsValid() || addr.Is4() && !src.Is4() || src.Is4() && !addr.Unmap().Is4() {
			return fmt.Errorf("address %v: must be of the family of %v", addr, src)
		}
	}
	return nil
}

// ValidInterval returns an error if version has no encoding for the interval.
func ValidInterval(version Version, interval time.Duration) error {
	switch {
	case version == V2 && (interval < time.Second || interval > 255*time.Second || interval%time.Second != 0):
		return fmt.Errorf("advertisement interval %v: must be 1 to 255 whole seconds in version 2", interval)
	case version == V3 && (interval < centisecond || interval > maxCentiseconds*centisecond || interval%centisecond != 0):
		return fmt.Errorf("advertisement interval %v: must be 0.01 to 40.95 seconds in steps of 0.01 in version 3", interval)
	}
	return nil
}

// Parse reads the structure of a packet that came without its IP header; ipv6
// tells the family of that header. It returns the length of the packet, which may
// be less than len(b): padding is tolerated. The drop is DropLength, DropVersion
// or DropType, in this order; nothing else is checked, not even the checksum.
// The result does not refer to b.
func Parse(b []byte, ipv6 bool) (a Advertisement, length int, drop Drop) {
	a, length, drop = parse(b, ipv6)
	if drop == DropNone && b[0]&0xf != typeAdvertisement {
		drop = DropType
	}
	if drop != DropNone {
		return Advertisement{}, 0, drop
	}
	return a, length, DropNone
}

// parse is Parse without the check of the type, which comes late in keepalived.
func parse(b []byte, ipv6 bool) (a Advertisement, length int, drop Drop) {
	if len(b) < headerLen {
		return a, 0, DropLength
	}
	a = Advertisement{Version: Version(b[0] >> 4), VRID: b[1], Priority: b[2]}
	size, trailer := 4, 0
	switch a.Version {
	case V2:
		if ipv6 {
			return a, 0, DropVersion
		}
		trailer = authLen
		a.AuthType = b[4]
		a.Interval = time.Duration(b[5]) * time.Second
	case V3:
		if ipv6 {
			size = 16
		}
		// The four bits before the interval are reserved and ignored: section 5.2.6.
		a.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&maxCentiseconds) * centisecond
	default:
		return a, 0, DropVersion
	}
	count := int(b[3])
	length = headerLen + count*size + trailer
	if len(b) < length {
		return a, 0, DropLength
	}
	for at := headerLen; at < length-trailer; at += size {
		addr, _ := netip.AddrFromSlice(b[at : at+size])
		a.Addresses = append(a.Addresses, addr)
	}
	copy(a.Auth[:], b[length-trailer:length])
	return a, length, DropNone
}

// bare returns an address as it is on the wire: without a zone, and IPv4 as such.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
