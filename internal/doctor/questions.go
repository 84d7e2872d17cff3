package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A packet is one that the rules are asked about: what is known of it.
type packet struct {
	// text names it for people.
	text  string
	port  bool
	proto byte
	// in: it arrives; else it leaves.
	in       bool
	iface    string
	index    int
	src, dst netip.Addr // the zero Addr is not known
	dport    uint16     // TCP
}

func (p packet) six() bool { return p.dst.Is6() }

// headers returns the network and transport header with a mask of the known bytes.
func (p packet) headers() (network, networkKnown, transport, transportKnown []byte) {
	set := func(b, known []byte, at int, v ...byte) {
		copy(b[at:], v)
		for i := range v {
			known[at+i] = 1
		}
	}
	if p.six() {
		network, networkKnown = make([]byte, header6), make([]byte, header6)
		set(network, networkKnown, 6, p.proto)
		if p.src.IsValid() {
			set(network, networkKnown, 8, p.src.AsSlice()...)
		}
		set(network, networkKnown, 24, p.dst.AsSlice()...)
	} else {
		network, networkKnown = make([]byte, header4), make([]byte, header4)
		set(network, networkKnown, 9, p.proto)
		if p.src.IsValid() {
			set(network, networkKnown, 12, p.src.AsSlice()...)
		}
		set(network, networkKnown, 16, p.dst.AsSlice()...)
	}
	transport, transportKnown = make([]byte, 20), make([]byte, 20)
	if p.proto == unix.IPPROTO_TCP {
		set(transport, transportKnown, 2, byte(p.dport>>8), byte(p.dport))
		set(transport, transportKnown, 13, 2) // SYN (RFC 9293 3.1)
	}
	return network, networkKnown, transport, transportKnown
}

// How packets are named.
const (
	comingIn = " coming in on "
	goingOut = " going out of "
)

func groupPacket(group netip.Addr) string { return "protocol 112 to " + group.String() }

// questions are the packets that the rules are asked about: raftvip's port, and
// VRRP's protocol to the groups and to nodes, in and out.
func questions(interfaces []Interface, local netip.AddrPort, peers []netip.AddrPort) []packet {
	var out []packet
	add := func(p packet, what string) {
		p.text = what + map[bool]string{true: comingIn, false: goingOut}[p.in] + p.iface
		out = append(out, p)
	}
	for _, i := range interfaces {
		here := slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr() == local.Addr() })
		for _, in := range []bool{true, false} {
			for _, six := range []bool{false, true} {
				group := map[bool]netip.Addr{false: group4, true: group6}[six]
				if i.has(six) && i.Multicast {
					add(packet{proto: protocolVRRP, in: in, iface: i.Name, index: i.Index, dst: group}, groupPacket(group))
				}
			}
			for _, peer := range peers {
				if !here || peer.Addr().Is6() != local.Addr().Is6() {
					continue
				}
				src, dst, port := local.Addr(), peer.Addr(), peer.Port()
				if in {
					src, dst, port = dst, src, local.Port()
				}
				base := packet{in: in, iface: i.Name, index: i.Index, src: src, dst: dst}
				tcp, vrrp := base, base
				tcp.proto, tcp.port, tcp.dport = 6, true, port
				add(tcp, fmt.Sprintf("TCP port %d", port))
				vrrp.proto = protocolVRRP
				add(vrrp, "protocol 112 between nodes")
			}
		}
	}
	return out
}
