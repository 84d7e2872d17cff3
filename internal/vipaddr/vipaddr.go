// Package vipaddr says which addresses can be virtual ones, in one place for files,
// commands, requests of the API and the replicated state.
package vipaddr

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
)

// Check tells whether an address, with the length of its subnet, can be put onto an
// interface and answered for: one host's, unicast, and no address that means something
// else.
func Check(p netip.Prefix) error {
	ip := p.Addr()
	switch {
	case !ip.IsValid():
		return errors.New("not an IP address")
	case ip.Is4In6():
		return errors.New("IPv4-mapped address not allowed")
	case !p.IsValid() || p.Bits() < 1:
		return errors.New("bad prefix length")
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLoopback(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}),
		ip.Is4() && ip.As4()[0] == 0: // "this network", RFC 1122 3.2.1.3
		return errors.New("not a unicast address of a network")
	case ip.Is4() && p.Bits() < 31 && (ip == p.Masked().Addr() || !p.Contains(ip.Next())):
		// The network's own and its broadcast address, RFC 1122 3.2.1.3; in a /31 both are hosts'.
		return errors.New("it is the first or last address of its subnet, which no machine may have")
	}
	return nil
}

// CheckLink is Check, and that a link-local address has its interface: it is another
// address on each.
func CheckLink(p netip.Prefix, dev string) error {
	if err := Check(p); err != nil {
		return err
	}
	if dev == "" && p.Addr().IsLinkLocalUnicast() {
		return errors.New("a link-local address needs its interface")
	}
	if dev != "" {
		return CheckInterface(dev)
	}
	return nil
}

// CheckInterface tells whether an interface can have this name.
func CheckInterface(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/:") || strings.ContainsFunc(name, notPlain) {
		return errors.New("not an interface name; must be 1 to 15 bytes without blank, slash or colon")
	}
	return nil
}

// notPlain tells whether a character is blank, or does something to a terminal.
func notPlain(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
