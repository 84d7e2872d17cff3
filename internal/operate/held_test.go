package operate

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/raftvip/raftvip/cluster/state"
)

// TestHeldBack: an address on its way from one group to another is told.
func TestHeldBack(t *testing.T) {
	addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	in := func(group string, lasts ...byte) state.Instance {
		i := state.Instance{Name: group, Group: group}
		for _, l := range lasts {
			i.Addresses = append(i.Addresses, state.Address{Prefix: netip.PrefixFrom(addr(l), 24)})
		}
		return i
	}
	s := &state.State{
		Instances: []state.Instance{in("a", 1), in("b", 2, 3, 4), in("", 5)},
		Groups:    map[string]state.GroupRecord{"g1.1": {ID: "g1.1", Name: "a"}, "g1.2": {ID: "g1.2", Name: "b"}},
		Holders: map[netip.Addr]state.Holder{
			addr(1): {Group: "g1.1"}, addr(2): {Group: "g1.2"},
			addr(3): {Group: "g1.1", Leaving: 7}, addr(4): {Group: "g1.1", Leaving: 7},
			addr(5): {Group: "g1.2", Leaving: 7}, addr(6): {Group: "g1.2", Leaving: 7},
		},
	}
	want := []string{
		"192.0.2.3 and 1 more: group b is to have it, and group a has not given it up yet",
		"192.0.2.5: group default is to have it, and group b has not given it up yet",
	}
	if got := heldBack(s); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	s.Holders = nil
	if got := heldBack(s); len(got) > 0 {
		t.Errorf("nothing is held back: %q", got)
	}
}
