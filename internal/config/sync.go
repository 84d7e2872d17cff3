package config

import (
	"cmp"
	"slices"
	"strings"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// maxGroups bounds the ownership groups of "ownership separate", beside the default one:
// each is a Raft group of its own (state.MaxGroups).
const maxGroups = 64

// defaultGroup is the group that there always is (state.DefaultGroup).
const defaultGroup = "default"

// OwnershipGroup names the instances that an instance has one owner with under
// "ownership separate": its sync group, or itself.
func (in *Instance) OwnershipGroup() string { return cmp.Or(in.SyncGroup, in.Name) }

// Shared tells whether the instance is the cluster's: one with "vrrp only" is a plain
// VRRP router, each node's own.
func (in *Instance) Shared() bool { return in.VRRP == nil || in.VRRP.Mode != VRRPOnly }

// SharesName finds a sync group that has the name of an instance which is in none. Their
// ownership groups would be one, and nobody said that they are to move together.
func (c *Config) SharesName(in *Instance) (member *Instance, shares bool) {
	if in.SyncGroup != "" || !in.Shared() {
		return nil, false
	}
	i := slices.IndexFunc(c.Instances, func(other *Instance) bool { return other.SyncGroup == in.Name && other.Shared() })
	if i < 0 {
		return nil, false
	}
	return c.Instances[i], true
}

// A syncGroup is a vrrp_sync_group block until all instances are read.
type syncGroup struct {
	Pos     Pos
	Name    string
	members []keepalived.Word
}

func (l *loader) vrrpSyncGroup(n *keepalived.Node) {
	name, ok := l.name(n)
	if !ok {
		return
	}
	if i := slices.IndexFunc(l.syncGroups, func(g *syncGroup) bool { return g.Name == name }); i >= 0 {
		l.errorf(n.Pos, "vrrp_sync_group %s: defined before, at %s; names must be unique", shorten(name), l.syncGroups[i].Pos)
		return
	}
	g := &syncGroup{Pos: n.Pos, Name: name}
	l.syncGroups = append(l.syncGroups, g)
	l.statements(ctxSync, n.Block, map[string]statement{
		"group": {block: true, read: func(n *keepalived.Node) {
			l.noMore(n, 0)
			for _, line := range n.Block {
				if line.HasBlock {
					l.errorf(line.Pos, "group: no block in braces is allowed here; write names of instances")
					continue
				}
				g.members = append(g.members, line.Words...)
			}
		}},
	})
}

// resolveSyncGroups puts the instances into their groups. What does not fit is left out,
// as keepalived leaves it out.
func (l *loader) resolveSyncGroups() {
	for _, g := range l.syncGroups {
		var members []*Instance
		for _, w := range g.members {
			in := l.instance(w.Text)
			switch {
			case in == nil:
				l.warnf(w.Pos, "vrrp_sync_group %s: there is no vrrp_instance %s; it is ignored, as in keepalived%s", shorten(g.Name), shorten(w.Text), l.nearestInstance(w.Text))
			case slices.Contains(members, in):
				l.warnf(w.Pos, "vrrp_sync_group %s: %s is in it already; the second is ignored", shorten(g.Name), shorten(w.Text))
			case in.SyncGroup != "":
				l.warnf(w.Pos, "vrrp_sync_group %s: %s is in vrrp_sync_group %s already and stays there, as in keepalived; an instance can be in one", shorten(g.Name), shorten(w.Text), shorten(in.SyncGroup))
			default:
				in.SyncGroup = g.Name
				members = append(members, in)
			}
		}
		switch len(members) {
		case 0:
			l.warnf(g.Pos, "vrrp_sync_group %s: no instance in it; it is ignored, as in keepalived", shorten(g.Name))
		case 1:
			l.warnf(g.Pos, "vrrp_sync_group %s: only one instance in it, %s; nothing moves with it", shorten(g.Name), shorten(members[0].Name))
		default:
			l.warnVRRPMembers(g, members)
		}
	}
}

// warnVRRPMembers says what VRRP does to a group: it moves the addresses of an instance by
// itself, where Raft moves those of all.
func (l *loader) warnVRRPMembers(g *syncGroup, members []*Instance) {
	only, hybrid := namesOf(members, VRRPOnly), namesOf(members, VRRPHybrid)
	if len(only) > 0 {
		l.warnf(g.Pos, "vrrp_sync_group %s: %s moves without the others: vrrp only takes no part in the group", shorten(g.Name), strings.Join(only, ", "))
	}
	if len(hybrid) > 0 {
		l.warnf(g.Pos, "vrrp_sync_group %s: %s has the same owner in this cluster as the others, but with vrrp hybrid a VRRP peer of higher priority takes its addresses alone", shorten(g.Name), strings.Join(hybrid, ", "))
	}
}

func namesOf(instances []*Instance, mode VRRPMode) (names []string) {
	for _, in := range instances {
		if in.VRRP != nil && in.VRRP.Mode == mode {
			names = append(names, shorten(in.Name))
		}
	}
	return names
}

func (l *loader) instance(name string) *Instance {
	for _, in := range l.cfg.Instances {
		if in.Name == name {
			return in
		}
	}
	return nil
}

func (l *loader) nearestInstance(name string) string {
	var names []string
	for _, in := range l.cfg.Instances {
		names = append(names, in.Name)
	}
	if best := nearest(name, names); best != "" {
		return "; did you mean " + shorten(best) + "?"
	}
	return ""
}

// checkOwnership checks what "ownership separate" makes of the instances, and says so
// where a file looks as if it were meant.
func (l *loader) checkOwnership() {
	r := l.cfg.Raft
	switch {
	case r.Ownership == Separate:
		l.checkGroups(r.OwnershipPos)
	case r.OwnershipPos == (Pos{}) && !HasErrors(l.diags):
		l.warnApart()
	}
}

func (l *loader) checkGroups(at Pos) {
	groups := map[string]bool{}
	for _, in := range l.cfg.Instances {
		if in.Shared() && in.OwnershipGroup() != defaultGroup {
			groups[in.OwnershipGroup()] = true
		}
		if _, ok := l.cfg.SharesName(in); !ok {
			continue
		}
		i := slices.IndexFunc(l.syncGroups, func(g *syncGroup) bool { return g.Name == in.Name })
		l.errorf(l.syncGroups[i].Pos, "vrrp_sync_group %s: vrrp_instance %s at %s is not in it, and with ownership separate the group of an instance alone has its name; must be another name",
			shorten(in.Name), shorten(in.Name), in.Pos)
	}
	if n := len(groups); n > maxGroups {
		l.errorf(at, "ownership separate: %d groups, and each is a Raft group of its own; must be at most %d, put instances into one vrrp_sync_group each", n, maxGroups)
	}
}

// warnApart warns once of a file whose instances look as if they were to be on several
// nodes, as with keepalived they would be.
func (l *loader) warnApart() {
	var first *Instance
	for _, in := range l.cfg.Instances {
		if !in.Shared() {
			continue
		}
		if first == nil {
			first = in
			continue
		}
		if in.OwnershipGroup() == first.OwnershipGroup() {
			continue
		}
		var differ []string
		if (in.InitialState == "MASTER") != (first.InitialState == "MASTER") {
			differ = append(differ, "state")
		}
		if in.Priority != first.Priority {
			differ = append(differ, "priority")
		}
		if len(differ) > 0 {
			l.warnf(in.Pos, "vrrp_instance %s: another %s than %s, but all instances move together; with ownership separate in the raft block each has its own owner, ownership together says that this is meant",
				shorten(in.Name), strings.Join(differ, " and "), shorten(first.Name))
			return
		}
	}
}
