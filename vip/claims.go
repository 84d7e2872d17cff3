package vip

import (
	"net"
	"net/netip"
	"slices"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

// A Claim is a frame by which some machine says that an address is its own: an ARP
// packet with the address as its sender's (RFC 5227 1.1), or a neighbour advertisement
// for it. Someone who only asks whether the address is taken claims nothing.
type Claim struct {
	Addr netip.Addr
	// MAC is the hardware address that the frame wants the neighbours to believe in.
	MAC net.HardwareAddr
	// Link is the index of the interface that it came in on.
	Link int
}

// arpClaim returns what the ARP packet of a frame's payload claims.
func arpClaim(b []byte) (c Claim, ok bool) {
	var p arp.Packet
	if p.UnmarshalBinary(b) != nil || !isEthernetARP(p) || !p.SenderIP.Is4() || p.SenderIP.IsUnspecified() {
		return c, false
	}
	return Claim{Addr: p.SenderIP, MAC: slices.Clone(p.SenderHardwareAddr)}, true
}

// naClaim returns what an ICMPv6 message claims that came with the hop limit. One
// that names no hardware address leaves it to the frame, which a socket for messages
// does not have: it changes nobody's mind who has another one (RFC 4861 7.2.5).
func naClaim(icmp []byte, hopLimit int) (c Claim, ok bool) {
	if hopLimit != ndHopLimit || len(icmp) < 2 || icmp[1] != 0 {
		return c, false
	}
	m, err := ndp.ParseMessage(icmp)
	if err != nil {
		return c, false
	}
	na, ok := m.(*ndp.NeighborAdvertisement)
	if !ok {
		return c, false
	}
	for _, opt := range na.Options {
		if lla, ok := opt.(*ndp.LinkLayerAddress); ok && lla.Direction == ndp.Target && len(lla.Addr) == 6 {
			return Claim{Addr: na.TargetAddress.WithZone(""), MAC: slices.Clone(lla.Addr)}, true
		}
	}
	return c, false
}

// maxFiltered is the number of addresses that the kernel compares one by one; of more,
// all ARP packets are read.
const maxFiltered = 1500

// claimFilter is what the kernel passes to the socket that listens for ARP: what is
// for this node's own LAN, with one of the addresses as its sender's.
func claimFilter(addrs []netip.Addr) []bpf.RawInstruction {
	const (
		packetOtherHost = 3  // PACKET_OTHERHOST of packet(7)
		senderIP        = 28 // in an Ethernet frame, RFC 826
	)
	all := bpf.RetConstant{Val: 1 << 18}
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: packetOtherHost, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: senderIP, Size: 4}, // a frame without it is dropped
	}
	n := 0
	for _, a := range addrs {
		if !a.Is4() {
			continue
		}
		if n++; n > maxFiltered {
			return mustAssemble(append(program[:4:4], all)...)
		}
		v := a.As4()
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3]), SkipFalse: 1}, all)
	}
	return mustAssemble(append(program, bpf.RetConstant{Val: 0})...)
}

func mustAssemble(program ...bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic("vip: " + err.Error()) // a constant program
	}
	return raw
}
