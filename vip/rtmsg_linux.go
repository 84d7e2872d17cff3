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
	devconfForwarding = 0 // index into IFLA_INET6_CONF
	netconfIfindex    = 1
	netconfForwarding = 2
	sizeofNetconfmsg  = 4 // with padding
)

// forever is INFINITY_LIFE_TIME.
const forever = math.MaxUint32

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addAddrMessage fills req with a. With identity only, the message holds what the
// kernel compares for RTM_DELADDR.
func addAddrMessage(req *nl.NetlinkRequest, link int, a KernelAddress, identity bool) {
	ip := a.Prefix.Addr()
	msg := nl.NewIfAddrmsg(familyOf(ip))
	msg.Prefixlen = uint8(a.Prefix.Bits())
	msg.Index = uint32(link)
	msg.Scope = a.Scope
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip.AsSlice()))
	if identity {
		return
	}
	var flags uint32
	if a.NoPrefixRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if a.NoDAD {
		flags |= unix.IFA_F_NODAD
	}
	if flags != 0 {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	}
	if a.Protocol != 0 {
		req.AddData(nl.NewRtAttr(ifaProto, nl.Uint8Attr(a.Protocol)))
	}
	if a.Broadcast.Is4() {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, a.Broadcast.AsSlice()))
	}
	if a.Label != "" {
		req.AddData(nl.NewRtAttr(unix.IFA_LABEL, nl.ZeroTerminated(a.Label)))
	}
	if valid, preferred := lifetimes(a); valid != forever || preferred != forever {
		ci := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: valid, Prefered: preferred}}
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, ci.Serialize()))
	}
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
	for _, at := range attrs {
		switch at.Attr.Type {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(at.Value)
		case unix.IFLA_ADDRESS:
			if hwType == unix.ARPHRD_ETHER && len(at.Value) == 6 {
				l.MAC = append(net.HardwareAddr(nil), at.Value...)
			}
		case unix.IFLA_AF_SPEC:
			l.Forwards6 = forwards6(at.Value)
		}
	}
	return l, l.Name != "", nil
}

// forwards6 reads IFLA_AF_SPEC, which has IFLA_INET6_CONF for a link with IPv6.
func forwards6(spec []byte) bool {
	inet6 := attribute(spec, unix.AF_INET6)
	conf := attribute(inet6, unix.IFLA_INET6_CONF)
	const at = 4 * devconfForwarding
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
