package place

import (
	"cmp"
	"slices"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
)

// GroupOf is the ownership group that a file puts an instance into. One that the file does
// not know, or does not tell from a sync group of its name, is in the default group.
func GroupOf(c *config.Config, in *config.Instance) string {
	if c.Raft.Ownership != config.Separate {
		return state.DefaultGroup
	}
	return separately(c, in)
}

func separately(c *config.Config, in *config.Instance) string {
	if _, shares := c.SharesName(in); shares {
		return state.DefaultGroup
	}
	return in.OwnershipGroup()
}

// InstancesIn is the cluster-wide part of a node's file, as InstancesOf is, for a cluster
// that has instances already: where the file does not say who owns what, they stay in
// their groups.
func InstancesIn(c *config.Config, have []state.Instance) []state.Instance {
	out := InstancesOf(c)
	if c.Raft.OwnershipPos != (config.Pos{}) {
		return out
	}
	of := make(map[string]string)
	for _, in := range c.Instances {
		// A new instance alone does not come into a group that another file made of others.
		if of[in.Name] = separately(c, in); in.SyncGroup == "" && len(membersOf(have, in.Name)) > 0 {
			of[in.Name] = state.DefaultGroup
		}
	}
	for i, in := range out {
		if j := indexInstance(have, in.Name); j >= 0 {
			out[i].Group = groupName(have[j])
		} else if Separate(have) {
			out[i].Group = of[in.Name]
		}
	}
	return out
}

// GroupOfNew is the group for an address that a command adds to an instance of that name:
// that of the instance, or one of its own where instances are owned separately. Nobody
// said that a new instance is to move with others, so that it cannot have the name of a
// group that there is.
func GroupOfNew(c *config.Config, have []state.Instance, name string) (string, error) {
	if i := indexInstance(have, name); i >= 0 {
		return groupName(have[i]), nil
	}
	if !Separate(have) && c.Raft.Ownership != config.Separate {
		return state.DefaultGroup, nil
	}
	if name == state.DefaultGroup {
		return name, nil
	}
	for _, in := range have {
		if groupName(in) == name {
			return "", state.Refuse(state.CodeAlreadyExists, "choose another name, or add the address to an instance of that group",
				"instance %s: there is an ownership group of that name, with instance %s", name, in.Name)
		}
	}
	return name, nil
}

// Separate tells whether any instance is in a group beside the default one.
func Separate(instances []state.Instance) bool {
	return slices.ContainsFunc(instances, func(in state.Instance) bool { return groupName(in) != state.DefaultGroup })
}

// RefuseMerged refuses instances of a file that would come into the group of one that a
// command made: it had that for itself, and the file does not name it.
func RefuseMerged(have, want []state.Instance) error {
	for _, w := range want {
		i := indexInstance(have, w.Name)
		if w.FromFile || i < 0 || groupName(w) == state.DefaultGroup || len(membersOf(have, groupName(w))) > 1 {
			continue
		}
		for _, other := range membersOf(want, groupName(w)) {
			if other != w.Name {
				return state.Refuse(state.CodeAlreadyExists, "give the vrrp_sync_group another name",
					"instance %s would come into ownership group %s, which is that of instance %s alone: raftvip vip add made it", other, groupName(w), w.Name)
			}
		}
	}
	return nil
}

func membersOf(instances []state.Instance, group string) (names []string) {
	for _, in := range instances {
		if groupName(in) == group {
			names = append(names, in.Name)
		}
	}
	return names
}

// groupName is the group of an instance; none is the default one.
func groupName(in state.Instance) string { return cmp.Or(in.Group, state.DefaultGroup) }

func indexInstance(list []state.Instance, name string) int {
	return slices.IndexFunc(list, func(in state.Instance) bool { return in.Name == name })
}

// A Group is an ownership group and its instances.
type Group struct {
	Name      string   `json:"name"`
	Instances []string `json:"instances"`
}

// GroupsOf are the groups of a file, in the order of their first instances.
func GroupsOf(c *config.Config) []Group {
	out := []Group{}
	for _, in := range InstancesOf(c) {
		i := slices.IndexFunc(out, func(g Group) bool { return g.Name == in.Group })
		if i < 0 {
			i, out = len(out), append(out, Group{Name: in.Group})
		}
		out[i].Instances = append(out[i].Instances, in.Name)
	}
	return out
}
