package vip

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vishvananda/netlink v1.3.1 knows no IFA_PROTO, and cannot say "valid for ever,
// preferred 0" on a 32-bit machine, so that the address messages of rtnetlink(7)
// are built and read here, on top of its nl package.

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// From linux/ipv6.h and linux/netconf.h.
const (
	devconfForwarding  = 0 // indexes into IFLA_INET6_CONF
	devconfDisableIPv6 = 26
	netconfIfindex     = 1
	netconfForwarding  = 2
	sizeofNetconfmsg   = 4 // with padding
)

// forever is INFINITY_LIFE_TIME.
const forever = math.MaxUint32

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// appendChange appends the message of c. For RTM_DELADDR it holds what the kernel
// compares.
func appendChange(b []byte, c Change, seq uint32, ack bool) []byte {
	msgType, flags := uint16(unix.RTM_NEWADDR), uint16(unix.NLM_F_REQUEST)
	switch c.Kind {
	case AddAddress:
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case RefreshAddress:
		flags |= unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	case DeleteAddress:
		msgType = unix.RTM_DELADDR
	default:
		panic(fmt.Sprintf("vip: change of kind %d", c.Kind))
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	a, start := c.Address, len(b)
	ip := a.Prefix.Addr()
	b = append(b, 0, 0, 0, 0) // the length, at the end
	b = binary.NativeEndian.AppendUint16(b, msgType)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0)
	b = append(b, uint8(familyOf(ip)), uint8(a.Prefix.Bits()), 0, a.Scope)
	b = binary.NativeEndian.AppendUint32(b, uint32(c.Link))
	b = appendIP(b, unix.IFA_LOCAL, ip)
	b = appendIP(b, unix.IFA_ADDRESS, ip)
	if c.Kind != DeleteAddress {
		b = appendProperties(b, a)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// appendProperties appends what an address has besides its identity.
func appendProperties(b []byte, a KernelAddress) []byte {
	var flags uint32
	if a.NoPrefixRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if a.NoDAD {
		flags |= unix.IFA_F_NODAD
	}
	if flags != 0 {
		b = binary.NativeEndian.AppendUint32(appendAttr(b, unix.IFA_FLAGS, 4), flags)
	}
	if a.Protocol != 0 {
		b = append(appendAttr(b, ifaProto, 1), a.Protocol, 0, 0, 0)
	}
	if a.Broadcast.Is4() {
		b = appendIP(b, unix.IFA_BROADCAST, a.Broadcast)
	}
	if a.Label != "" {
		b = append(append(appendAttr(b, unix.IFA_LABEL, len(a.Label)+1), a.Label...), 0)
		for len(b)%unix.NLMSG_ALIGNTO != 0 { // every message starts aligned
			b = append(b, 0)
		}
	}
	if valid, preferred := lifetimes(a); valid != forever || preferred != forever {
		b = binary.NativeEndian.AppendUint32(appendAttr(b, unix.IFA_CACHEINFO, unix.SizeofIfaCacheinfo), preferred)
		b = binary.NativeEndian.AppendUint32(b, valid)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // when it was made and changed
	}
	return b
}

// appendAttr appends the header of an attribute of n bytes.
func appendAttr(b []byte, attrType uint16, n int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+n))
	return binary.NativeEndian.AppendUint16(b, attrType)
}

func appendIP(b []byte, attrType uint16, ip netip.Addr) []byte {
	if ip.Is4() {
		v := ip.As4()
		return append(appendAttr(b, attrType, len(v)), v[:]...)
	}
	v := ip.As16()
	return append(appendAttr(b, attrType, len(v)), v[:]...)
}

// lifetimes returns valid and preferred lifetime in seconds, rounded up.
func lifetimes(a KernelAddress) (valid, preferred uint32) {
	valid = forever
	if a.Lifetime > 0 {
		valid = uint32(min(int64((a.Lifetime+time.Second-1)/time.Second), forever-1))
	}
	if a.Deprecated {
		return valid, 0
	}
	return valid, valid
}

// parseAddrMessage reads the payload of RTM_NEWADDR and RTM_DELADDR.
func parseAddrMessage(b []byte) (link int, a KernelAddress, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0, a, fmt.Errorf("address message of %d bytes is too short", len(b))
	}
	bits, index := int(b[1]), binary.NativeEndian.Uint32(b[4:])
	a.Tentative, a.DADFailed = b[2]&unix.IFA_F_TENTATIVE != 0, b[2]&unix.IFA_F_DADFAILED != 0
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, a, fmt.Errorf("address message: %w", err)
	}
	var local, address netip.Addr
	for _, at := range attrs {
		switch at.Attr.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(at.Value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(at.Value)
		case ifaProto:
			if len(at.Value) > 0 {
				a.Protocol = at.Value[0]
			}
		}
	}
	// IFA_ADDRESS is the peer on a point-to-point link; IPv6 has no IFA_LOCAL
	// elsewhere.
	if !local.IsValid() {
		local = address
	}
	if !address.IsValid() {
		address = local
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	a.Subnet = netip.PrefixFrom(address, bits).Masked()
	if !a.Prefix.IsValid() || !a.Subnet.IsValid() {
		return 0, a, fmt.Errorf("address message without a valid address")
	}
	return int(index), a, nil
}

// parseLinkMessage reads the payload of RTM_NEWLINK and RTM_DELLINK. ok is false
// for a message that is not about the link itself: a bridge tells about its ports
// with the same types, and the end of a port is not the end of the link.
func parseLinkMessage(b []byte) (l Link, ok bool, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, false, fmt.Errorf("link message of %d bytes is too short", len(b))
	}
	if b[0] != unix.AF_UNSPEC {
		return l, false, nil
	}
	hwType := binary.NativeEndian.Uint16(b[2:])
	flags := binary.NativeEndian.Uint32(b[8:])
	l.Index = int(binary.NativeEndian.Uint32(b[4:]))
	l.Up = flags&unix.IFF_UP != 0
	l.Running = l.Up && flags&unix.IFF_RUNNING != 0
	l.NoARP = flags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) != 0
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, false, fmt.Errorf("link message: %w", err)
	}
	l.NoIPv6 = true
	for _, at := range attrs {
		switch at.Attr.Type {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(at.Value)
		case unix.IFLA_ADDRESS:
			if hwType == unix.ARPHRD_ETHER && len(at.Value) == 6 {
				l.MAC = append(net.HardwareAddr(nil), at.Value...)
			}
		case unix.IFLA_LINKINFO:
			// A VRF has ports too, but their addresses stay theirs.
			switch unix.ByteSliceToString(attribute(at.Value, unix.IFLA_INFO_SLAVE_KIND)) {
			case "bridge", "bond", "team":
				l.Port = true
			}
		case unix.IFLA_AF_SPEC:
			l.Forwards6 = inet6Conf(at.Value, devconfForwarding)
			// A link without IPv6 has no such part.
			l.NoIPv6 = attribute(at.Value, unix.AF_INET6) == nil || inet6Conf(at.Value, devconfDisableIPv6)
		}
	}
	return l, l.Name != "", nil
}

// inet6Conf reads one setting from IFLA_AF_SPEC, which has IFLA_INET6_CONF for a link
// with IPv6.
func inet6Conf(spec []byte, setting int) bool {
	inet6 := attribute(spec, unix.AF_INET6)
	conf := attribute(inet6, unix.IFLA_INET6_CONF)
	at := 4 * setting
	return len(conf) >= at+4 && binary.NativeEndian.Uint32(conf[at:]) != 0
}

// attribute returns the value of the attribute of that type, or nil.
func attribute(b []byte, attrType uint16) []byte {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, at := range attrs {
		if at.Attr.Type&^unix.NLA_F_NESTED == attrType {
			return at.Value
		}
	}
	return nil
}

// parseNetconfMessage reads the payload of RTM_NEWNETCONF. ok is false for one that
// is not about a link forwarding IPv6.
func parseNetconfMessage(b []byte) (l Link, ok bool) {
	if len(b) < sizeofNetconfmsg || b[0] != unix.AF_INET6 {
		return l, false
	}
	index := attribute(b[sizeofNetconfmsg:], netconfIfindex)
	forwarding := attribute(b[sizeofNetconfmsg:], netconfForwarding)
	if len(index) != 4 || len(forwarding) != 4 {
		return l, false
	}
	// Negative indexes are settings for all links and for new ones.
	l.Index = int(int32(binary.NativeEndian.Uint32(index)))
	l.Forwards6 = binary.NativeEndian.Uint32(forwarding) != 0
	return l, l.Index > 0
}
