package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Ethernet, ARP (RFC 826), ICMPv6 and neighbour discovery (RFC 4861) numbers.
const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd

	etherLen    = 14
	arpFrameLen = etherLen + 28
	ipv6Len     = 40

	arpRequest = 1
	arpReply   = 2

	protoICMPv6     = 58
	icmp6Solicit    = 135
	icmp6Advertise  = 136
	ndHopLimit      = 255 // RFC 4861 7.1: anything less is dropped
	naRouter        = 0x80
	naOverride      = 0x20
	optTargetLLAddr = 2
)

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodesMAC  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	allNodes     = netip.MustParseAddr("ff02::1")
)

// gratuitousARP returns the frame that announces addr at mac, as keepalived sends
// it: a broadcast ARP request with sender and target protocol address addr and
// target hardware address ff:ff:ff:ff:ff:ff.
func gratuitousARP(mac net.HardwareAddr, addr netip.Addr) []byte {
	return arpFrame(mac, addr, broadcastMAC, addr)
}

// arpProbe returns the frame that asks whether someone has addr (RFC 5227 2.1.1):
// sender protocol address 0.0.0.0, so that nobody's cache is changed.
func arpProbe(mac net.HardwareAddr, addr netip.Addr) []byte {
	return arpFrame(mac, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), addr)
}

func arpFrame(sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	b := make([]byte, 0, arpFrameLen)
	b = appendEther(b, broadcastMAC, sha, etherTypeARP)
	b = append(b,
		0, 1, // hardware type: Ethernet
		8, 0, // protocol type: IPv4
		6, 4, // lengths of hardware and protocol address
		0, arpRequest)
	b = append(b, sha...)
	b = append(b, spa.AsSlice()...)
	b = append(b, tha...)
	return append(b, tpa.AsSlice()...)
}

// unsolicitedNA returns the neighbour advertisement (RFC 4861 4.4, 7.2.6) that
// announces addr at mac to all nodes: override set, solicited clear, router only
// for a node that forwards, and the target link-layer address option.
func unsolicitedNA(mac net.HardwareAddr, addr netip.Addr, router bool) []byte {
	icmp := make([]byte, 0, 32)
	flags := byte(naOverride)
	if router {
		flags |= naRouter
	}
	icmp = append(icmp, icmp6Advertise, 0, 0, 0, flags, 0, 0, 0)
	icmp = append(icmp, addr.AsSlice()...)
	icmp = append(icmp, optTargetLLAddr, 1) // length in units of 8 bytes
	icmp = append(icmp, mac...)
	return icmp6Frame(mac, allNodesMAC, addr, allNodes, icmp)
}

// dadSolicit returns the neighbour solicitation of duplicate address detection
// (RFC 4862 5.4.2): from the unspecified address, to the solicited-node group,
// without a link-layer address option.
func dadSolicit(mac net.HardwareAddr, addr netip.Addr) []byte {
	target := addr.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	dst := net.HardwareAddr{0x33, 0x33, 0xff, target[13], target[14], target[15]}

	icmp := make([]byte, 8, 24)
	icmp[0] = icmp6Solicit
	icmp = append(icmp, target[:]...)
	return icmp6Frame(mac, dst, netip.IPv6Unspecified(), netip.AddrFrom16(group), icmp)
}

// icmp6Frame puts Ethernet and IPv6 headers before icmp and fills in its checksum.
func icmp6Frame(srcMAC, dstMAC net.HardwareAddr, src, dst netip.Addr, icmp []byte) []byte {
	s, d := src.As16(), dst.As16()
	binary.BigEndian.PutUint16(icmp[2:], icmp6Checksum(s, d, icmp))

	b := make([]byte, 0, etherLen+ipv6Len+len(icmp))
	b = appendEther(b, dstMAC, srcMAC, etherTypeIPv6)
	b = append(b, 0x60, 0, 0, 0) // version 6, no traffic class, no flow label
	b = binary.BigEndian.AppendUint16(b, uint16(len(icmp)))
	b = append(b, protoICMPv6, ndHopLimit)
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	return append(b, icmp...)
}

// icmp6Checksum is the Internet checksum over the pseudo-header (RFC 8200 8.1) and
// icmp, whose own checksum field must be 0 and whose length must be even.
func icmp6Checksum(src, dst [16]byte, icmp []byte) uint16 {
	sum := uint32(len(icmp)) + protoICMPv6
	for _, part := range [][]byte{src[:], dst[:], icmp} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func appendEther(b []byte, dst, src net.HardwareAddr, etherType uint16) []byte {
	b = append(b, dst...)
	b = append(b, src...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

// claimant returns the hardware address of the node that claims addr with this
// frame, and false if the frame claims nothing or another address. A claim is an
// ARP packet of either kind with sender protocol address addr (RFC 5227 2.1.1), or
// a neighbour advertisement for addr. Someone else's probe is no claim.
func claimant(frame []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(frame) < etherLen {
		return nil, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeARP:
		return arpClaimant(frame[etherLen:], addr)
	case etherTypeIPv6:
		src := net.HardwareAddr(frame[6:12])
		return naClaimant(frame[etherLen:], src, addr)
	}
	return nil, false
}

func arpClaimant(p []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(p) < 28 || binary.BigEndian.Uint16(p) != 1 || binary.BigEndian.Uint16(p[2:]) != 0x0800 || p[4] != 6 || p[5] != 4 {
		return nil, false
	}
	if op := binary.BigEndian.Uint16(p[6:]); op != arpRequest && op != arpReply {
		return nil, false
	}
	spa := netip.AddrFrom4([4]byte(p[14:18]))
	return cloneMAC(p[8:14]), spa == addr
}

func naClaimant(p []byte, src net.HardwareAddr, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(p) < ipv6Len+24 || p[0]>>4 != 6 || p[6] != protoICMPv6 || p[7] != ndHopLimit {
		return nil, false
	}
	icmp := p[ipv6Len:]
	if n := int(binary.BigEndian.Uint16(p[4:])); n < 24 || n > len(icmp) {
		return nil, false
	} else {
		icmp = icmp[:n]
	}
	if icmp[0] != icmp6Advertise || icmp[1] != 0 || netip.AddrFrom16([16]byte(icmp[8:24])) != addr {
		return nil, false
	}
	// The option names the address that neighbours will use; it may differ from the
	// sender of the frame.
	for opt := icmp[24:]; len(opt) >= 8; {
		n := int(opt[1]) * 8
		if n == 0 || n > len(opt) {
			break
		}
		if opt[0] == optTargetLLAddr && n == 8 {
			return cloneMAC(opt[2:8]), true
		}
		opt = opt[n:]
	}
	return cloneMAC(src), true
}

func cloneMAC(b []byte) net.HardwareAddr { return append(net.HardwareAddr(nil), b...) }
