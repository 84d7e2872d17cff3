package vip

import (
	"net/netip"
	"testing"
	"time"
)

// TestNewAddressIsNew: an address that has just been listed has not been absent for as
// long as the keeper runs: whoever is patient with addresses counts from Since.
func TestNewAddressIsNew(t *testing.T) {
	h := &Holding{k: &Keeper{byIP: make(map[netip.Addr]*entry)}, byKey: make(map[key]*entry)}
	h.wanted.Addresses = []Address{{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Link: "eth0"}}
	h.listEntries(5 * time.Second)
	h.wanted.Addresses = append(h.wanted.Addresses, Address{Prefix: netip.MustParsePrefix("10.0.0.2/24"), Link: "eth0"})
	h.listEntries(9 * time.Second)
	for i, want := range []time.Duration{5 * time.Second, 9 * time.Second} {
		if got := h.entries[i].since; got != want {
			t.Errorf("%v is absent since %v, want %v", h.entries[i].want.Prefix, got, want)
		}
	}
}
