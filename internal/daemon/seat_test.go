package daemon

import (
	"net/netip"
	"testing"

	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
)

// TestLetWent: an address that a group gives away is free when the Holding has seen a list
// without it and the kernel has it no more.
func TestLetWent(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	status := func(applied, wanted bool, s vip.State) vip.Status {
		return vip.Status{Applied: applied, Addresses: []vip.AddressStatus{
			{Address: vip.Address{Prefix: netip.PrefixFrom(a, 24)}, Wanted: wanted, State: s},
			{Address: vip.Address{Prefix: netip.MustParsePrefix("192.0.2.2/24")}, Wanted: true, State: vip.StatePresent},
		}}
	}
	for _, c := range []struct {
		name string
		st   vip.Status
		want bool
	}{
		{"never had", vip.Status{Applied: true}, true},
		{"absent", status(true, false, vip.StateAbsent), true},
		{"to be put up at the next take", status(true, true, vip.StateAbsent), false},
		{"present", status(true, true, vip.StatePresent), false},
		{"being deleted", status(true, false, vip.StateRemoving), false},
		{"the list is not looked at yet", vip.Status{}, false},
	} {
		if got := letWent(c.st, []netip.Addr{a}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestReleasedWaitsForTheOwner: one that has not turned since the list was in the log may
// still put up what was on the one before.
func TestReleasedWaitsForTheOwner(t *testing.T) {
	d := &Daemon{}
	kept := vrrp.NewHoldings(vrrp.NewGates(vip.NewGate(vip.NoGuard{}, 0, nil)), vrrp.NoHolding{}, func() {})
	d.seats.all = map[string]*seat{"g1.1": {id: "g1.1", kept: kept, owner: owner.New(owner.Config{})}}
	if d.released("g1.1", 5, nil) {
		t.Error("an owner that has not turned yet has released")
	}
	if !d.released("g1.1", 0, nil) || !d.released("g1.2", 5, nil) {
		t.Error("not released, where nothing is owned")
	}
}
