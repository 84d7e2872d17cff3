package vip

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

const (
	etherLen    = 14
	protoICMPv6 = 58
	ndHopLimit  = 255 // RFC 4861 7.1: anything less is dropped
)

var allNodes = netip.MustParseAddr("ff02::1")

// gratuitousARP returns the frame that announces addr at mac, as keepalived sends
// it: a broadcast ARP request with sender and target protocol address addr and
// target hardware address ff:ff:ff:ff:ff:ff.
func gratuitousARP(mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	return arpRequest(mac, addr, ethernet.Broadcast, addr)
}

// arpProbe returns the frame that asks whether someone has addr (RFC 5227 2.1.1):
// sender protocol address 0.0.0.0, so that nobody's cache is changed.
func arpProbe(mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	return arpRequest(mac, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), addr)
}

func arpRequest(sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(arp.OperationRequest, sha, spa, tha, tpa)
	if err != nil {
		return nil, err
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return etherFrame(ethernet.Broadcast, sha, ethernet.EtherTypeARP, b)
}

// unsolicitedNA returns the neighbour advertisement (RFC 4861 4.4, 7.2.6) that
// announces addr at mac to all nodes: override set, solicited clear, router only
// for a node that forwards, and the target link-layer address option.
func unsolicitedNA(mac net.HardwareAddr, addr netip.Addr, router bool) ([]byte, error) {
	return icmp6Frame(mac, addr, allNodes, &ndp.NeighborAdvertisement{
		Router:        router,
		Override:      true,
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	})
}

// dadSolicit returns the neighbour solicitation of duplicate address detection
// (RFC 4862 5.4.2): from the unspecified address, to the solicited-node group,
// without a link-layer address option.
func dadSolicit(mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	group, err := ndp.SolicitedNodeMulticast(addr)
	if err != nil {
		return nil, err
	}
	return icmp6Frame(mac, netip.IPv6Unspecified(), group, &ndp.NeighborSolicitation{TargetAddress: addr})
}

// icmp6Frame returns the frame that carries m to the multicast group. The IPv6
// header is written here: golang.org/x/net/ipv6 only reads them, and ndp.Conn,
// which leaves it to the kernel, needs a socket for each source address, and that
// only once the address is there.
func icmp6Frame(mac net.HardwareAddr, src, group netip.Addr, m ndp.Message) ([]byte, error) {
	icmp, err := ndp.MarshalMessageChecksum(m, src, group)
	if err != nil {
		return nil, err
	}
	s, d := src.As16(), group.As16()
	b := make([]byte, 0, ipv6.HeaderLen+len(icmp))
	b = append(b, ipv6.Version<<4, 0, 0, 0) // no traffic class, no flow label
	b = binary.BigEndian.AppendUint16(b, uint16(len(icmp)))
	b = append(b, protoICMPv6, ndHopLimit)
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	b = append(b, icmp...)
	to := net.HardwareAddr{0x33, 0x33, d[12], d[13], d[14], d[15]} // RFC 2464 7
	return etherFrame(to, mac, ethernet.EtherTypeIPv6, b)
}

func etherFrame(to, from net.HardwareAddr, etherType ethernet.EtherType, payload []byte) ([]byte, error) {
	f := ethernet.Frame{Destination: to, Source: from, EtherType: etherType, Payload: payload}
	b, err := f.MarshalBinary()
	if err != nil {
		return nil, err
	}
	// It has been padded to Ethernet's least length, which is the driver's business.
	return b[:etherLen+len(payload)], nil
}

// claimant returns the hardware address of the node that claims addr with this
// frame, and false if the frame claims nothing or another address. A claim is an
// ARP packet of either kind with sender protocol address addr (RFC 5227 2.1.1), or
// a neighbour advertisement for addr. Someone else's probe is no claim.
func claimant(frame []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(frame) != nil || f.VLAN != nil {
		return nil, false // a tagged frame is of another LAN
	}
	switch f.EtherType {
	case ethernet.EtherTypeARP:
		return arpClaimant(f.Payload, addr)
	case ethernet.EtherTypeIPv6:
		return naClaimant(f.Payload, f.Source, addr)
	}
	return nil, false
}

func arpClaimant(b []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	var p arp.Packet
	if p.UnmarshalBinary(b) != nil {
		return nil, false
	}
	return p.SenderHardwareAddr, isEthernetARP(p) && p.SenderIP == addr
}

// isEthernetARP reports whether p is a request or reply for IPv4 on Ethernet: the
// package reads hardware and protocols of any kind.
func isEthernetARP(p arp.Packet) bool {
	return p.HardwareType == 1 && p.ProtocolType == uint16(ethernet.EtherTypeIPv4) && p.HardwareAddrLength == 6 && p.IPLength == 4 &&
		(p.Operation == arp.OperationRequest || p.Operation == arp.OperationReply)
}

func naClaimant(b []byte, src net.HardwareAddr, addr netip.Addr) (net.HardwareAddr, bool) {
	h, err := ipv6.ParseHeader(b)
	if err != nil || h.Version != ipv6.Version || h.NextHeader != protoICMPv6 || h.HopLimit != ndHopLimit {
		return nil, false
	}
	icmp := b[ipv6.HeaderLen:]
	if h.PayloadLen < 2 || h.PayloadLen > len(icmp) || icmp[1] != 0 { // the package does not look at the code
		return nil, false
	}
	m, err := ndp.ParseMessage(icmp[:h.PayloadLen])
	if err != nil {
		return nil, false
	}
	na, ok := m.(*ndp.NeighborAdvertisement)
	if !ok || na.TargetAddress != addr {
		return nil, false
	}
	// The option names the address that neighbours will use; it may differ from the
	// sender of the frame.
	for _, opt := range na.Options {
		if lla, ok := opt.(*ndp.LinkLayerAddress); ok && lla.Direction == ndp.Target {
			return lla.Addr, true
		}
	}
	return src, true
}
