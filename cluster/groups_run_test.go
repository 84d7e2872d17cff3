package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
)

// instancesIn makes an instance for each group, with an address.
func instancesIn(groups ...string) []state.Instance {
	var out []state.Instance
	for i, name := range groups {
		out = append(out, state.Instance{Name: fmt.Sprintf("vi%d", i), Group: name, Addresses: []state.Address{{Prefix: netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", i+1))}}})
	}
	return out
}

// configure has the leader put instances into the cluster.
func configure(t *testing.T, all []*member, instances []state.Instance) {
	t.Helper()
	eventually(t, "configured", func() bool {
		leader := leading(all...)
		if leader == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := leader.Apply(ctx, state.Command{Configure: &state.Configuration{Instances: instances}})
		if err != nil {
			t.Logf("configure: %v", err)
		}
		return err == nil
	})
}

// owners are the nodes that lead each group with a lease, by the group's name.
func owners(all []*member) map[string][]string {
	out := make(map[string][]string)
	for _, m := range all {
		for _, id := range m.Groups() {
			if g := m.Group(id); g != nil {
				if s := g.Standing(); s.Leading && s.LeaseUntil > 0 {
					name := m.State().GroupName(id)
					out[name] = append(out[name], m.Self().Name)
				}
			}
		}
	}
	return out
}

// listed tells whether the leader of each group has this in its list: "NAME IP...".
func listed(all []*member, want map[string]string) bool {
	got := make(map[string]string)
	for _, m := range all {
		for _, id := range m.Groups() {
			g := m.Group(id)
			if g == nil || !g.Standing().Leading {
				continue
			}
			list := g.State().Instances
			if id == state.DefaultGroup {
				list = m.State().ListOf(id)
			}
			text := ""
			for _, in := range list {
				for _, a := range in.Addresses {
					text += a.Prefix.Addr().String() + " "
				}
			}
			got[m.State().GroupName(id)] = text
		}
	}
	for name, text := range want {
		if got[name] != text {
			return false
		}
	}
	return true
}

func TestGroupsBeginAndEnd(t *testing.T) {
	nodes, _ := threeNodes(t)
	all := nodes[:]
	configure(t, all, instancesIn("default", "default", "default"))
	configure(t, all, instancesIn("a", "b", "default"))
	eventually(t, "each group has its list", func() bool {
		return listed(all, map[string]string{"a": "192.0.2.1 ", "b": "192.0.2.2 ", "default": "192.0.2.3 "})
	})
	eventually(t, "each group has one leader with a lease", func() bool {
		got := owners(all)
		return len(got["a"]) == 1 && len(got["b"]) == 1 && len(got["default"]) == 1
	})
	// A group's leadership moves alone.
	eventually(t, "a is led by another node than the others", func() bool {
		got := owners(all)
		if len(got["a"]) != 1 || len(got["default"]) != 1 {
			return false
		}
		if got["a"][0] != got["default"][0] {
			return true
		}
		for _, m := range all {
			if m.Self().Name != got["a"][0] {
				continue
			}
			id, _ := m.State().GroupByName("a")
			to := all[0]
			if to == m {
				to = all[1]
			}
			err := m.Group(id).Transfer(context.Background(), to.Self().NodeID, "test", false)
			t.Logf("handed over: %v", err)
		}
		return false
	})

	// One node is away while a group ends and another begins.
	away := all[2]
	away.stop()
	rest := all[:2]
	eventually(t, "a leader without the third node", func() bool { return leading(rest...) != nil })
	configure(t, rest, instancesIn("a", "c", "default"))
	eventually(t, "c has what b had", func() bool {
		return listed(rest, map[string]string{"a": "192.0.2.1 ", "c": "192.0.2.2 ", "default": "192.0.2.3 "})
	})
	eventually(t, "b has ended", func() bool {
		return !slices.ContainsFunc(rest, func(m *member) bool { return len(m.Groups()) != 3 })
	})
	back, err := openMember(t, away.dir, away.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	all = []*member{all[0], all[1], back}
	eventually(t, "the node that was away takes part in c and not in b", func() bool {
		names := []string{}
		for _, id := range back.Groups() {
			names = append(names, back.State().GroupName(id))
		}
		slices.Sort(names)
		id, ok := back.State().GroupByName("c")
		return ok && slices.Equal(names, []string{"a", "c", "default"}) && back.Group(id).Standing().LeaderID != "" && back.Group(id).State().ListVersion > 0
	})

	// All at once, and nobody has forgotten anything.
	var dirs, addresses []string
	for _, m := range all {
		dirs, addresses = append(dirs, m.dir), append(addresses, m.Advertise())
		m.stop()
	}
	var again []*member
	for i := range dirs {
		m, err := openMember(t, dirs[i], addresses[i])
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, m)
	}
	eventually(t, "the lists after a restart of all", func() bool {
		return listed(again, map[string]string{"a": "192.0.2.1 ", "c": "192.0.2.2 ", "default": "192.0.2.3 "})
	})
	configure(t, again, instancesIn("default", "default", "default"))
	eventually(t, "together again", func() bool {
		return listed(again, map[string]string{"default": "192.0.2.1 192.0.2.2 192.0.2.3 "}) &&
			!slices.ContainsFunc(again, func(m *member) bool { return len(m.Groups()) != 1 })
	})
}

// TestAddressIsKeptUntilItIsReleased: no group has an address before the owner in the group
// that had it says that it is not on the kernel.
func TestAddressIsKeptUntilItIsReleased(t *testing.T) {
	nodes, _ := threeNodes(t)
	all := nodes[:]
	for _, to := range []string{"b", "a", "default", "b"} {
		for _, m := range all {
			m.keeps.Store(true)
		}
		list := instancesIn("a", "b", "default", to)
		var from string
		for id, h := range all[0].State().Holders {
			if id == list[3].Addresses[0].Prefix.Addr() {
				from = all[0].State().GroupName(h.Group)
			}
		}
		configure(t, all, list)
		moved := map[string]string{"a": "192.0.2.1 ", "b": "192.0.2.2 ", "default": "192.0.2.3 "}
		without := maps.Clone(moved)
		moved[to] += "192.0.2.4 "
		if from != "" {
			eventually(t, from+" has given the address away", func() bool { return listed(all, without) })
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if listed(all, moved) {
					t.Fatalf("%s has the address, and %s has not released it", to, from)
				}
			}
		}
		for _, m := range all {
			m.keeps.Store(false)
		}
		eventually(t, to+" has the address", func() bool { return listed(all, moved) })
	}
}
