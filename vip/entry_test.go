package vip

import (
	"net/netip"
	"testing"
	"time"
)

// TestNewAddressIsNew: an address that has just been listed has not been absent for as
// long as the keeper runs: whoever is patient with addresses counts from Since.
func TestNewAddressIsNew(t *testing.T) {
	k := &Keeper{byKey: make(map[key]*entry)}
	k.wanted.Addresses = []Address{{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Link: "eth0"}}
	k.listEntries(5 * time.Second)
	k.wanted.Addresses = append(k.wanted.Addresses, Address{Prefix: netip.MustParsePrefix("10.0.0.2/24"), Link: "eth0"})
	k.listEntries(9 * time.Second)
	for i, want := range []time.Duration{5 * time.Second, 9 * time.Second} {
		if got := k.entries[i].since; got != want {
			t.Errorf("%v is absent since %v, want %v", k.entries[i].want.Prefix, got, want)
		}
	}
}
