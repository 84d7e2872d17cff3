package vip

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// AddrProtocol is the address protocol number (IFA_PROTO, Linux 5.18) of every
// address that raftvip adds, and so the proof that an address is ours. The kernel
// itself uses 1 to 3; 118 is the letter v. Never change it: addresses left by an
// older raftvip carry it.
const AddrProtocol = 118

// An Address is one wanted virtual address, resolved to a link.
type Address struct {
	// Prefix is the address with its length as written.
	Prefix netip.Prefix
	// Link is the name of the interface.
	Link string
	// Broadcast is the IPv4 broadcast address, or invalid for none. See
	// ParseBroadcast.
	Broadcast netip.Addr
	// Scope is the IPv4 address scope (rtnetlink(7)), 0 is global. The kernel takes
	// the scope of an IPv6 address from the address. See ParseScope.
	Scope uint8
	// Label is the IPv4 label (ifname alias), under 16 bytes, or empty.
	Label string
	// Schedule says when to announce the address; the zero value means that of the
	// Wanted.
	Schedule Schedule
}

func (a Address) String() string { return a.Prefix.String() + " dev " + a.Link }

// key identifies an address: the same IP may be wanted on two links.
func (a Address) key() key { return key{link: a.Link, ip: a.Prefix.Addr()} }

type key struct {
	link string
	ip   netip.Addr
}

// samePlacing reports whether a and b are put on the kernel alike. The schedule
// does not matter for that.
func (a Address) samePlacing(b Address) bool {
	a.Schedule, b.Schedule = Schedule{}, Schedule{}
	return a == b
}

// A Schedule says when an address is announced while it is owned: keepalived's
// garp_master_* settings, with a refresh that is on by default.
type Schedule struct {
	// Repeat is the number of announcements of a burst; a burst is sent on takeover
	// and after every doubt.
	Repeat int
	// Delay is the time to the second burst; 0 means none.
	Delay time.Duration
	// Refresh is the period of further announcements; 0 means none.
	Refresh time.Duration
	// RefreshRepeat is the number of announcements per refresh.
	RefreshRepeat int
	// Interval and GNAInterval are the least gaps between two ARP or two NA frames on
	// one interface.
	Interval    time.Duration
	GNAInterval time.Duration
}

// DefaultSchedule is 5 announcements now and again after 5 s (as keepalived), then
// one every 60 s (keepalived: none).
func DefaultSchedule() Schedule {
	return Schedule{Repeat: 5, Delay: 5 * time.Second, Refresh: time.Minute, RefreshRepeat: 1}
}

// gap returns the least time between two announcements of addr's family.
func (s Schedule) gap(addr netip.Addr) time.Duration {
	if addr.Is4() {
		return s.Interval
	}
	return s.GNAInterval
}

// kernelForm returns how a is put on the kernel. covered says that the machine has
// an address of its own there (see coveredBy): then ours is a single address that
// brings no route and can be no other address's primary (a /24 that becomes primary
// is the source of what the machine sends, and takes its secondaries along when
// deleted). Otherwise the address is put as written, with its prefix route, so that
// a lone address in a subnet of its own works.
//
// IPv6 has no duplicate address detection, which would delay the takeover by a
// second and fail against a peer that is still there, and preferred lifetime 0,
// without which the address became the source of all outgoing IPv6 traffic.
func (a Address) kernelForm(covered bool, lifetime time.Duration) KernelAddress {
	k := KernelAddress{
		Prefix:    a.Prefix,
		Protocol:  AddrProtocol,
		Lifetime:  lifetime,
		Broadcast: a.Broadcast,
		Scope:     a.Scope,
		Label:     a.Label,
	}
	if covered {
		k.Prefix = netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen())
		k.NoPrefixRoute = true
	}
	if a.Prefix.Addr().Is6() {
		k.NoDAD, k.Deprecated = true, true
		k.Broadcast, k.Scope, k.Label = netip.Addr{}, 0, ""
	}
	k.Subnet = k.Prefix.Masked()
	return k
}

// coveredBy reports whether k, someone else's address on the link of a, is the
// machine's own address in a's subnet: its subnet contains a, or it is in the subnet
// that a is written with, as a single address with a gateway on the link is. Another
// copy of a itself says nothing.
func (a Address) coveredBy(k KernelAddress) bool {
	ip, own := a.Prefix.Addr(), k.Prefix.Addr()
	return own != ip && (k.Subnet.Contains(ip) || a.Prefix.Contains(own))
}

// ParseScope returns the number of an address scope as written in a file: "" or
// "global", "site", "link", "host", "nowhere", or 0 to 255 (rtnetlink(7),
// RT_SCOPE_*).
func ParseScope(s string) (uint8, error) {
	switch s {
	case "", "global":
		return 0, nil
	case "site":
		return 200, nil
	case "link":
		return 253, nil
	case "host":
		return 254, nil
	case "nowhere":
		return 255, nil
	}
	n, err := strconv.ParseUint(s, 0, 8)
	if err != nil {
		return 0, fmt.Errorf("scope %q: must be global, site, link, host, nowhere or 0 to 255", s)
	}
	return uint8(n), nil
}

// ParseBroadcast returns the broadcast address of prefix as written in a file: ""
// or "-" for none, "+" for the last address of the subnet, or an IPv4 address.
func ParseBroadcast(s string, prefix netip.Prefix) (netip.Addr, error) {
	if s == "" || s == "-" {
		return netip.Addr{}, nil
	}
	if !prefix.Addr().Is4() {
		return netip.Addr{}, fmt.Errorf("broadcast %q: %s is not an IPv4 address", s, prefix.Addr())
	}
	if s == "+" {
		if prefix.Bits() > 30 { // RFC 3021: no broadcast address in a /31
			return netip.Addr{}, nil
		}
		b := prefix.Addr().As4()
		for i := prefix.Bits(); i < 32; i++ {
			b[i/8] |= 1 << (7 - i%8)
		}
		return netip.AddrFrom4(b), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("broadcast %q: must be +, - or an IPv4 address", s)
	}
	return a, nil
}
