package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ErrNoLink: the named interface does not exist on this node (yet).
var ErrNoLink = errors.New("interface does not exist")

// ErrWrongLink: the named interface is on another network than the address.
var ErrWrongLink = errors.New("wrong interface")

// moveAfter is how long the address of a link that has lost its own address in the
// subnet stays there while another link has one: longer than a network restart.
const moveAfter = 30 * time.Second

// Resolve returns the name of the link that the address of prefix belongs on: dev
// if not empty, else the instance's interface, else the one link that has an
// address whose subnet covers it (the longest subnet wins, a link that is up
// before one that is down; raftvip's own addresses do not count).
//
// If a named link does not exist, its name is returned together with ErrNoLink: a
// Keeper takes the address and waits for the link. If it has no address in the
// subnet and another link has, the error is ErrWrongLink: the clients are there.
func Resolve(prefix netip.Prefix, dev, instanceInterface string, links []Link) (string, error) {
	s, _, err := Site{}.Resolve(0, prefix, dev, instanceInterface, links)
	return s.Link, err
}

// A Site is where an address was placed on this node. Whoever keeps it from one
// Resolve to the next has an address that stays where it is: what is no longer clear
// is a reason not to place an address, and none to give it up. The zero Site is that
// of an address that was never placed.
type Site struct {
	// Link is the name of the link.
	Link string
	// lostAt is since when only other links have an address in the subnet; 0 for not.
	lostAt time.Duration
}

// Until returns when to call Resolve again though nothing has changed, and 0 for
// never.
func (s Site) Until() time.Duration {
	if s.lostAt == 0 {
		return 0
	}
	return s.lostAt + moveAfter
}

// Resolve is the function of that name for an address that may have been placed
// before. The link it was on is kept while it is there, up and no port of another,
// and has an address in the subnet; if it has none, while no other has one either,
// or until moveAfter is over. warning says what would be an error if the address
// had not been placed. now is any monotonic time above 0.
func (s Site) Resolve(now time.Duration, prefix netip.Prefix, dev, instanceInterface string, links []Link) (next Site, warning string, err error) {
	addr := prefix.Addr()
	name := dev
	if name == "" {
		name = instanceInterface
	}
	if name != "" {
		next = Site{Link: name}
		i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
		if i < 0 {
			return next, "", fmt.Errorf("%s: %w: %s; this node has %s", addr, ErrNoLink, name, linkNames(links))
		}
		right := betterThan(links[i], prefix, links)
		switch {
		case right == "":
			return next, "", nil
		case s.Link == name:
			return next, right + "; it stays", nil
		}
		return next, "", fmt.Errorf("%s: %w: %s", addr, ErrWrongLink, right)
	}

	var best []Link
	bestBits, bestUp := -1, false
	for _, l := range links {
		bits := coveringBits(l.Addresses, addr)
		switch {
		case bits < 0 || bits < bestBits || bits == bestBits && bestUp && !l.Up:
		case bits == bestBits && bestUp == l.Up:
			best = append(best, l)
		default:
			best, bestBits, bestUp = []Link{l}, bits, l.Up
		}
	}
	if len(best) == 1 && best[0].Name == s.Link {
		return Site{Link: s.Link}, "", nil
	}
	if i := slices.IndexFunc(links, func(l Link) bool { return l.Name == s.Link && l.Up && !l.Port }); s.Link != "" && i >= 0 {
		switch covers := coveringBits(links[i].Addresses, addr) >= 0; {
		case covers:
			return Site{Link: s.Link}, fmt.Sprintf("several interfaces have an address in its subnet (%s); it stays on %s; name that with dev",
				linkNames(with(best, links[i])), s.Link), nil
		case len(best) != 1:
			return Site{Link: s.Link}, s.Link + " has no address in its subnet any more; it stays", nil
		}
		next = Site{Link: s.Link, lostAt: s.lostAt}
		if next.lostAt == 0 {
			next.lostAt = now
		}
		if now < next.Until() {
			return next, fmt.Sprintf("%s has no address in its subnet any more, %s has; it moves there after %s", s.Link, best[0].Name, moveAfter), nil
		}
	}
	switch len(best) {
	case 0:
		return Site{}, "", fmt.Errorf("%s: no interface has an address in its subnet; name one with dev (this node has %s)", addr, linkNames(links))
	case 1:
		return Site{Link: best[0].Name}, "", nil
	}
	return Site{}, "", fmt.Errorf("%s: several interfaces have an address in its subnet (%s); name one with dev", addr, linkNames(best))
}

// with adds l to links if it is not among them.
func with(links []Link, l Link) []Link {
	if slices.ContainsFunc(links, func(o Link) bool { return o.Name == l.Name }) {
		return links
	}
	return append(links[:len(links):len(links)], l)
}

// betterThan says that the named link has no address in the subnet of prefix and
// which other has, or returns "". It says nothing where the address may well belong
// on no subnet of the machine: then only the name tells, as with keepalived.
func betterThan(named Link, prefix netip.Prefix, links []Link) string {
	addr := prefix.Addr()
	if !named.announceable() || addr.IsLinkLocalUnicast() {
		return "" // there are no neighbours, or every link has them
	}
	a := Address{Prefix: prefix}
	for _, k := range named.Addresses {
		if k.Protocol != AddrProtocol && a.coveredBy(k) {
			return ""
		}
	}
	for _, l := range links {
		if l.Name == named.Name || !l.Up || l.Port || !l.announceable() {
			continue
		}
		for _, k := range l.Addresses {
			if k.Protocol != AddrProtocol && k.Prefix.Addr() != addr && covers(k, addr) {
				return fmt.Sprintf("%s has no address in %s; %s has", named.Name, k.Subnet, l.Name)
			}
		}
	}
	return ""
}

// coveringBits returns the length of the longest subnet of others' addresses that
// covers addr, or -1. A single address (/32, /128) is no subnet.
func coveringBits(addrs []KernelAddress, addr netip.Addr) int {
	bits := -1
	for _, a := range addrs {
		if a.Protocol != AddrProtocol && covers(a, addr) && a.Subnet.Bits() > bits {
			bits = a.Subnet.Bits()
		}
	}
	return bits
}

func covers(a KernelAddress, addr netip.Addr) bool {
	return !a.Subnet.IsSingleIP() && a.Subnet.Contains(addr)
}

func linkNames(links []Link) string {
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		return "no interface"
	}
	return strings.Join(names, ", ")
}
