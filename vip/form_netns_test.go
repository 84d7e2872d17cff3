//go:build linux

package vip_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// source returns the address that the machine would send from to somewhere.
func (l *lab) source(to string) string {
	l.t.Helper()
	fields := strings.Fields(l.ip("route get " + to))
	for i, f := range fields {
		if f == "src" {
			return fields[i+1]
		}
	}
	l.t.Fatalf("no source towards %s: %v", to, fields)
	return ""
}

// isSecondary reports whether the address is another's secondary, which goes with it.
func (l *lab) isSecondary(prefix string) bool {
	l.t.Helper()
	for line := range strings.Lines(l.ip("-4 -o addr show dev v0")) {
		if strings.Contains(line, " "+prefix+" ") {
			return strings.Contains(line, " secondary ")
		}
	}
	l.t.Fatalf("%s is not there", prefix)
	return false
}

// TestNetnsNetworkRestart: all addresses are flushed, the machine's own come back
// later, with their routes. The virtual address must be neither the source of what
// the machine sends nor the primary of its own address.
func TestNetnsNetworkRestart(t *testing.T) {
	for _, tt := range []struct{ name, own, gateway, vip string }{
		{"in a subnet", "10.0.0.1/24", "10.0.0.2", "10.0.0.5/24"},
		{"single address, gateway on the link", "10.0.0.1/32", "10.0.0.2", "10.0.0.5/24"},
		{"single address elsewhere", "192.0.2.1/32", "192.0.2.2", "10.0.0.5/32"},
		{"wider subnet", "10.0.0.1/16", "10.0.0.2", "10.0.0.5/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.must(os.WriteFile("/proc/sys/net/ipv4/conf/v0/promote_secondaries", []byte("0\n"), 0))
			k, gate := l.keeper(30 * time.Second)
			ip, _, _ := strings.Cut(tt.vip, "/")
			there := func() bool {
				return strings.Contains(l.ip("-4 -o addr show dev v0"), " "+ip+"/")
			}
			k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0(tt.vip), Schedule: quick})
			l.eventually("there", there)
			l.ip("addr flush dev v0 scope global")
			l.eventually("back", there)

			own, _, _ := strings.Cut(tt.own, "/")
			l.ip("addr add " + tt.own + " dev v0")
			if strings.HasSuffix(tt.own, "/32") {
				l.ip("route add " + tt.gateway + " dev v0")
			}
			l.ip("route add default via " + tt.gateway)
			for _, to := range []string{tt.gateway, "203.0.113.9"} {
				l.eventually("own source towards "+to, func() bool { return l.source(to) == own })
			}
			l.eventually("single address", func() bool { return l.has("v0", ip+"/32") && !l.has("v0", ip+"/24") && !l.has("v0", ip+"/31") })
			if l.isSecondary(tt.own) {
				t.Errorf("%s is secondary: %s", tt.own, l.ip("-4 addr show dev v0"))
			}
			// The end of the one leaves the other, and the routes.
			gate.Shut()
			l.must(k.Release(t.Context()))
			if there() || !l.has("v0", tt.own) || l.source("203.0.113.9") != own {
				t.Errorf("after the release:\n%s%s", l.ip("-4 addr show dev v0"), l.ip("route"))
			}
		})
	}
}

// TestNetnsExpiryTakesNobodyAlong: the machine's own address comes when the process
// is frozen, so that ours stays its primary until it expires.
func TestNetnsExpiryTakesNobodyAlong(t *testing.T) {
	l := newLab(t)
	l.must(os.WriteFile("/proc/sys/net/ipv4/conf/v0/promote_secondaries", []byte("0\n"), 0))
	l.ip("addr flush dev v0 scope global")
	v0, err := net.InterfaceByName("v0")
	l.must(err)
	changes := []vip.Change{{Kind: vip.AddAddress, Link: v0.Index, Address: vip.KernelAddress{
		Prefix: netip.MustParsePrefix("10.0.0.5/24"), Protocol: vip.AddrProtocol, Lifetime: 2 * time.Second}}}
	for _, err := range l.host.Change(changes) {
		l.must(err)
	}
	l.ip("addr add 10.0.0.1/24 dev v0")
	l.ip("route add default via 10.0.0.2 src 10.0.0.1")
	if !l.isSecondary("10.0.0.1/24") {
		t.Fatal("not the case that was meant")
	}
	l.eventually("expired", func() bool { return !l.has("v0", "10.0.0.5/24") })
	if !l.has("v0", "10.0.0.1/24") || l.source("203.0.113.9") != "10.0.0.1" {
		t.Errorf("gone with it:\n%s%s", l.ip("-4 addr show dev v0"), l.ip("route"))
	}
}
