package vrrpnet

import (
	"errors"
	"net/netip"
	"testing"
)

// TestSourceOfOthersVirtual: the virtual address of another router of this machine
// is no source, also where nothing else is there.
func TestSourceOfOthersVirtual(t *testing.T) {
	other, own := netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.0.11")
	o := Options{IsVirtual: func(a netip.Addr) bool { return a == other }}
	have := []address{{addr: other, index: 2}, {addr: own, index: 2, secondary: true}}
	if got, err := o.source(have, 2); err != nil || got.addr != own {
		t.Errorf("%v, %v", got.addr, err)
	}
	if _, err := o.source(have[:1], 2); !errors.Is(err, ErrNoSource) {
		t.Errorf("only the virtual one: %v", err)
	}
	o.Source = other
	if _, err := o.source(have, 2); !errors.Is(err, ErrNoSource) {
		t.Errorf("named as source: %v", err)
	}
}
