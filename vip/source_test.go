package vip

import (
	"net/netip"
	"testing"
)

func TestSourceIsNeverVirtual(t *testing.T) {
	ip := netip.MustParseAddr
	on := func(name string, addrs ...string) Link {
		l := Link{Name: name}
		for _, a := range addrs {
			p := pfx(a)
			l.Addresses = append(l.Addresses, KernelAddress{Prefix: p, Subnet: p.Masked()})
		}
		return l
	}
	eth0 := on("eth0", "10.0.0.100/24", "10.0.0.101/32", "10.9.0.1/24", "10.0.0.11/24", "fd00::100/64", "fd00::11/64", "fe80::1/64")
	marked := on("eth0", "10.0.0.100/24", "10.0.0.50/32", "10.0.0.11/24")
	marked.Addresses[1].Protocol = AddrProtocol
	tentative := on("eth0", "fd00::100/64", "fd00::11/64", "fd00::12/64")
	tentative.Addresses[1].Tentative = true
	lo := on("lo", "127.0.0.1/8")
	for _, tt := range []struct {
		name                   string
		chosen, dst, preferred string
		links                  []Link
		want                   string // empty for an error
	}{
		{"in the subnet of the peer", "10.0.0.100", "10.0.0.12", "", []Link{lo, eth0}, "10.0.0.11"},
		{"of that interface", "10.0.0.100", "192.0.2.1", "", []Link{on("eth9", "10.5.0.1/24"), eth0}, "10.9.0.1"},
		{"where others reach it", "10.0.0.100", "192.0.2.1", "10.5.0.1", []Link{eth0, on("eth9", "10.5.0.1/24")}, "10.5.0.1"},
		{"where others reached it, but it is gone", "10.0.0.100", "10.0.0.12", "10.5.0.1", []Link{eth0}, "10.0.0.11"},
		{"of another interface", "10.0.0.100", "10.0.0.12", "", []Link{on("eth0", "10.0.0.100/24"), on("eth1", "10.98.0.1/24")}, "10.98.0.1"},
		{"none of its own", "10.0.0.100", "10.0.0.12", "", []Link{lo, on("eth0", "10.0.0.100/24", "10.0.0.101/32")}, ""},
		{"preferred is virtual", "10.0.0.100", "10.0.0.12", "10.0.0.101", []Link{eth0}, "10.0.0.11"},
		{"marked as ours", "10.0.0.100", "10.0.0.12", "", []Link{marked}, "10.0.0.11"},
		{"IPv6", "fd00::100", "fd00::12", "", []Link{eth0}, "fd00::11"},
		{"IPv6, not yet usable", "fd00::100", "fd00::12", "", []Link{tentative}, "fd00::12"},
		{"IPv6, link-local to link-local", "fd00::100", "fe80::2%eth0", "", []Link{eth0}, "fe80::1"},
		{"IPv6, link-local alone leads nowhere else", "fd00::100", "fd00::12", "", []Link{on("eth0", "fd00::100/64", "fe80::1/64")}, ""},
	} {
		s := Source{Virtual: func(a netip.Addr) bool {
			return a == ip("10.0.0.100") || a == ip("10.0.0.101") || a == ip("fd00::100")
		}}
		if tt.preferred != "" {
			s.Preferred = ip(tt.preferred)
		}
		got, err := s.choose(ip(tt.chosen), ip(tt.dst), tt.links)
		if (err == nil) != (tt.want != "") || err == nil && got != ip(tt.want) {
			t.Errorf("%s: %v, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
