//go:build linux

package vip_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// TestNetnsConnectionsComeFromOwnAddresses: the kernel would take the virtual address.
func TestNetnsConnectionsComeFromOwnAddresses(t *testing.T) {
	l := newLab(t)
	port := "0"
	for _, family := range []string{"4", "6"} {
		l.atPeer(func() {
			ln, err := net.Listen("tcp"+family, ":"+port)
			l.must(err)
			l.atClose(func() { _ = ln.Close() })
			_, port, err = net.SplitHostPort(ln.Addr().String())
			l.must(err)
		})
	}
	l.ip("addr flush dev v0 scope global")
	l.ip("addr add 10.0.0.5/24 dev v0")
	l.ip("addr add fd00::1/64 dev v0 nodad")
	l.ip("addr add fd00::5/64 dev v0 nodad")
	virtual := []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}
	s := vip.Source{Virtual: func(a netip.Addr) bool { return a == virtual[0] || a == virtual[1] }}
	dial := func(to string, control func(*net.Dialer)) (string, error) {
		d := net.Dialer{Timeout: 2 * time.Second}
		control(&d)
		conn, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(to, port))
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		host, _, err := net.SplitHostPort(conn.LocalAddr().String())
		return host, err
	}
	guarded := func(d *net.Dialer) { d.ControlContext = s.Control }
	for _, tt := range []struct{ to, kernel, own string }{{"10.0.0.2", "10.0.0.5", "10.0.0.1"}, {"fd00::2", "fd00::5", "fd00::1"}} {
		if got, err := dial(tt.to, func(*net.Dialer) {}); err != nil || got != tt.kernel {
			t.Fatalf("not the case that was meant: from %s, %v", got, err)
		}
		if tt.own == "10.0.0.1" {
			if _, err := dial(tt.to, guarded); err == nil || !strings.Contains(err.Error(), "no address of its own") {
				t.Errorf("without an own address: %v", err)
			}
			l.ip("addr add 10.0.0.1/24 dev v0")
		}
		if got, err := dial(tt.to, guarded); err != nil || got != tt.own {
			t.Errorf("to %s: from %s, %v; want %s", tt.to, got, err, tt.own)
		}
	}
	// Where the kernel does well, nothing is bound.
	s.Virtual = func(netip.Addr) bool { return false }
	if got, err := dial("10.0.0.2", guarded); err != nil || got != "10.0.0.5" {
		t.Errorf("without virtual addresses: from %s, %v", got, err)
	}
}
