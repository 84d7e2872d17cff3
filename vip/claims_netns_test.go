//go:build linux

package vip_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// TestNetnsClaims: what others claim is heard over IPv4 and IPv6, also after the
// link was made anew; other addresses and ordinary traffic are not.
func TestNetnsClaims(t *testing.T) {
	l := newLab(t)
	var mu sync.Mutex
	var heard []vip.Claim
	c := vip.NewClaimListener(nil, func(c vip.Claim) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	wanted := []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}
	c.Listen(wanted)
	claim := func(addrs ...string) net.HardwareAddr {
		var mac net.HardwareAddr
		l.atPeer(func() {
			host, err := vip.OpenHost()
			l.must(err)
			defer host.Close()
			links, err := host.Links()
			l.must(err)
			ann := vip.NewAnnouncer()
			defer func() { _ = ann.Close() }()
			for _, link := range links {
				if link.Name != "p0" {
					continue
				}
				mac = link.MAC
				for _, a := range addrs {
					l.must(ann.Announce(link, netip.MustParseAddr(a)))
				}
			}
		})
		return mac
	}
	for _, round := range []string{"at first", "the link is a new one"} {
		mu.Lock()
		heard = nil
		mu.Unlock()
		index := 0
		links, err := l.host.Links()
		l.must(err)
		for _, link := range links {
			if link.Name == "v0" {
				index = link.Index
			}
		}
		var mac net.HardwareAddr
		l.eventually(round, func() bool {
			mac = claim("10.0.0.5", "fd00::5", "10.0.0.6", "fd00::6")
			time.Sleep(20 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			return slices.ContainsFunc(heard, func(c vip.Claim) bool { return c.Addr.Is4() }) &&
				slices.ContainsFunc(heard, func(c vip.Claim) bool { return c.Addr.Is6() })
		})
		mu.Lock()
		for _, c := range heard {
			if !slices.Contains(wanted, c.Addr) || !slices.Equal(c.MAC, mac) || c.Link != index {
				t.Errorf("%s: %+v, from %s on %d", round, c, mac, index)
			}
		}
		mu.Unlock()
		l.ip("link del v0")
		l.veth()
	}
	// Nothing is listened for: nothing is heard.
	c.Listen(nil)
	time.Sleep(150 * time.Millisecond)
	mu.Lock()
	heard = nil
	mu.Unlock()
	claim("10.0.0.5", "fd00::5")
	time.Sleep(150 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 0 {
		t.Errorf("heard %+v", heard)
	}
}
