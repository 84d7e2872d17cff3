package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrNoLink: the named interface does not exist on this node (yet).
var ErrNoLink = errors.New("interface does not exist")

// Resolve returns the name of the link that the address of prefix belongs on: dev
// if not empty, else the instance's interface, else the one link that has an
// address whose subnet covers it (the longest subnet wins, a link that is up
// before one that is down; raftvip's own addresses do not count).
//
// If a named link does not exist, its name is returned together with ErrNoLink: a
// Keeper takes the address and waits for the link.
func Resolve(prefix netip.Prefix, dev, instanceInterface string, links []Link) (string, error) {
	addr := prefix.Addr()
	name := dev
	if name == "" {
		name = instanceInterface
	}
	if name != "" {
		for _, l := range links {
			if l.Name == name {
				return name, nil
			}
		}
		return name, fmt.Errorf("%s: %w: %s; this node has %s", addr, ErrNoLink, name, linkNames(links))
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
	switch len(best) {
	case 0:
		return "", fmt.Errorf("%s: no interface has an address in its subnet; name one with dev (this node has %s)", addr, linkNames(links))
	case 1:
		return best[0].Name, nil
	}
	return "", fmt.Errorf("%s: several interfaces have an address in its subnet (%s); name one with dev", addr, linkNames(best))
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
