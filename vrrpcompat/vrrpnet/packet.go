package vrrpnet

import (
	"encoding/binary"
	"net/netip"

	"github.com/raftvip/raftvip/vrrpcompat"
	"golang.org/x/net/bpf"
)

// parseIPv4 takes the header (RFC 791 section 3.1) off a packet as a raw socket
// delivers it. The payload shares b's memory and ends where the header says, so
// that padding is gone.
func parseIPv4(b []byte) (src, dst netip.Addr, ttl int, payload []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || header > total || total > len(b) || b[9] != vrrpcompat.Protocol {
		return
	}
	src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	return src, dst, int(b[8]), b[header:total], true
}

// The kernel's filter for the receiving socket: packets of one virtual router, so
// that a busy segment does not wake every router for each advertisement. What is
// too short to have a VRID belongs to nobody and is dropped too.
//
// A raw IPv4 socket shows its filter the IP header, an IPv6 one does not.
func filterVRID(ipv6 bool, vrid uint8) []bpf.Instruction {
	var prog []bpf.Instruction
	if ipv6 {
		prog = append(prog, bpf.LoadAbsolute{Off: 1, Size: 1})
	} else {
		prog = append(prog, bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: 1, Size: 1})
	}
	return append(prog,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(vrid), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	)
}

// filterAll drops everything: a sending socket is not to store what it receives.
var filterAll = []bpf.Instruction{bpf.RetConstant{Val: 0}}
