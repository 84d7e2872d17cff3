package vrrpcompat

import (
	"encoding/binary"
	"net/netip"
)

// A Checksum is a way to calculate the checksum of version 3 over IPv4, about
// which implementations differ. Version 2 and IPv6 have one way each, and for
// them the value does not matter.
type Checksum uint8

const (
	// ChecksumPseudoHeader includes a pseudo-header with the addresses of the IP
	// header: what RFC 5798 was read to mean, and keepalived's default.
	ChecksumPseudoHeader Checksum = iota
	// ChecksumPlain is over the packet only, as in version 2: RFC 9568 section
	// 5.2.8, keepalived's v3_checksum_as_v2.
	ChecksumPlain
)

// String returns "pseudo-header" or "plain".
func (c Checksum) String() string {
	if c == ChecksumPlain {
		return "plain"
	}
	return "pseudo-header"
}

// of returns the form that counts for a version and a family.
func (c Checksum) of(version Version, src netip.Addr) Checksum {
	switch {
	case version == V2:
		return ChecksumPlain
	case !src.Is4():
		return ChecksumPseudoHeader
	}
	return c
}

// checksum returns the value of the checksum field of packet, whatever that field
// holds now (RFC 1071). src and dst are bare and of one family.
func checksum(packet []byte, src, dst netip.Addr, form Checksum) uint16 {
	var sum uint32
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	if form == ChecksumPseudoHeader {
		add(src.AsSlice())
		add(dst.AsSlice())
		sum += Protocol + uint32(len(packet))
	}
	add(packet[:6])
	add(packet[8:])
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
