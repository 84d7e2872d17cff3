package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Subject is what a node's own program knows of it, to look closer at.
type Subject struct {
	Name    string
	Address string // HOST:PORT
	Witness bool
	// Local is the resolved Address, Peers those of the other members.
	Local netip.AddrPort
	Peers []netip.AddrPort
	// VIPs are the virtual addresses of the cluster.
	VIPs      []VIP
	DataDir   string
	Heartbeat time.Duration // 0 is not known
	Guard     *Guard        // nil: no daemon, or a witness
}

// A VIP is a virtual address and the interface that it belongs on; an empty one is
// found by the subnet.
type VIP struct {
	Prefix netip.Prefix
	Link   string
}

// isVIP tells whether an address is virtual.
func (s Subject) isVIP(a netip.Addr) bool {
	return slices.ContainsFunc(s.VIPs, func(v VIP) bool { return v.Prefix.Addr() == a })
}

// choose keeps, of all interfaces of this host, those that matter: with the node's own
// address, or with a virtual one. The rest are counted if they have addresses.
func (s Subject) choose(all []Interface) (chosen []Interface, others int, missing []string) {
	placed := make(map[string][]netip.Prefix)
	for _, v := range s.VIPs {
		link := v.Link
		if link == "" {
			link = covering(all, v.Prefix.Addr())
		}
		switch {
		case s.Witness:
		case link == "":
			missing = append(missing, fmt.Sprintf("%s: no interface has an address in its subnet", v.Prefix.Addr()))
		case !slices.ContainsFunc(all, func(i Interface) bool { return i.Name == link }):
			missing = append(missing, fmt.Sprintf("%s: there is no interface %s", v.Prefix.Addr(), Clean(link)))
		default:
			placed[link] = append(placed[link], v.Prefix)
		}
	}
	for _, i := range all {
		i.VIPs = placed[i.Name]
		switch {
		case len(i.VIPs) > 0, slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr() == s.Local.Addr() }):
			if len(chosen) < maxInterfaces {
				chosen = append(chosen, i)
			}
		case i.Up && i.Name != "lo" && (i.has(false) || i.has(true)):
			others++
		}
	}
	if n := len(missing); n > maxMissing {
		missing = append(missing[:maxMissing], fmt.Sprintf("and %d more", n-maxMissing))
	}
	return chosen, others, missing
}

// maxMissing is how many addresses without an interface are named.
const maxMissing = 20

// covering returns the interface whose longest subnet has an address in it, or "".
func covering(all []Interface, a netip.Addr) string {
	name, bits := "", -1
	for _, i := range all {
		for _, p := range i.Addresses {
			if !p.IsSingleIP() && p.Contains(a) && p.Bits() > bits {
				name, bits = i.Name, p.Bits()
			}
		}
	}
	return name
}

// parseListening reads the listening sockets of /proc/net/tcp or tcp6 (proc_net_tcp):
// the address is hexadecimal, in words of the host's order.
func parseListening(text string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != "0A" {
			continue
		}
		if a, ok := parseProcAddress(fields[1]); ok {
			out = append(out, a)
		}
	}
	return out
}
