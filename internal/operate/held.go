package operate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/raftvip/raftvip/cluster/state"
)

// heldBack says which addresses are not in the group yet that they were given to, as the one
// that had them has not given them up: its owner has not heard of it, or it has none.
func heldBack(s *state.State) (warnings []string) {
	type way struct{ from, to string }
	held := make(map[way][]netip.Addr)
	for _, in := range s.Instances {
		to := cmp.Or(in.Group, state.DefaultGroup)
		for _, a := range in.Addresses {
			if from := holderOf(s, a.Prefix.Addr(), to); from != to {
				held[way{from, to}] = append(held[way{from, to}], a.Prefix.Addr())
			}
		}
	}
	for _, w := range slices.SortedFunc(maps.Keys(held), func(a, b way) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.from, b.from)) }) {
		which := held[w][0].String()
		if more := len(held[w]) - 1; more > 0 {
			which += fmt.Sprintf(" and %d more", more)
		}
		warnings = append(warnings, fmt.Sprintf("%s: group %s is to have it, and group %s has not given it up yet", which, w.to, w.from))
	}
	return warnings
}

// holderOf is the group, by its name, that may own an address; to is the one that is to.
func holderOf(s *state.State, ip netip.Addr, to string) string {
	h, ok := s.Holders[ip]
	if !ok || h.Leaving == 0 {
		return to
	}
	return cmp.Or(s.GroupName(h.Group), to)
}
