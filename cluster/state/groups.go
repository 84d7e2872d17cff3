package state

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
)

// MaxGroups bounds the ownership groups beside the default one. Each is a Raft group of
// its own, with its own elections: what is tested, and far more than the nodes that they
// are spread over.
const MaxGroups = 64

// GroupID matches the IDs of the groups that makeGroups makes.
var GroupID = regexp.MustCompile(`^g[0-9]{1,20}\.[0-9]{1,4}$`)

// A GroupRecord is one ownership group beside the default one. Its first configuration is
// part of the log entry that made it, so that no two nodes can begin it differently, and
// a node that was away begins it as the others did.
type GroupRecord struct {
	// ID names the group in logs and on the wire. No later group gets it again, also not
	// one of the same name.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Created is the version of the state that has it first.
	Created uint64 `json:"created"`
	// Level is the feature level that the group's own log begins with.
	Level int `json:"level"`
	// Voters are the nodes of its first configuration.
	Voters []GroupVoter `json:"voters"`
}

// A GroupVoter is one node of a group's first configuration.
type GroupVoter struct {
	ID      string `json:"id"`
	Address string `json:"address"` // HOST:PORT
}

// A Holder is the group that may own an address. An address is in the list of no other
// group until that group has said that it does not own it any more.
type Holder struct {
	Group string `json:"group"` // ID
	// Leaving is the version of the state from which on the group is not to own the
	// address any more, or 0 as long as it is.
	Leaving uint64 `json:"leaving,omitempty"`
}

// A ListCommand is for the log of an ownership group: what it may own, as of a version of
// the default group's state. A list that is not newer than the one before is refused, so
// that a leader that lags in the default group's log cannot bring back an address that
// the group has given away.
type ListCommand struct {
	Version   uint64     `json:"version"`
	Instances []Instance `json:"instances"`
}

// A FreeCommand says that a group has a list of that version or of a newer one in its log,
// and that its owner answers for nothing that is not in it.
type FreeCommand struct {
	Group   string `json:"group"` // ID
	Version uint64 `json:"version"`
}

// NewGroup is the state of an ownership group before the first entry of its log.
func NewGroup(r GroupRecord) *State {
	s := New()
	s.Group, s.Level, s.Format = r.ID, r.Level, formatOf(r.Level)
	return s
}

// groupOf returns the ID of the group of that name, or "".
func (s *State) groupOf(name string) string {
	if name == "" || name == DefaultGroup {
		return DefaultGroup
	}
	for id, g := range s.Groups {
		if g.Name == name {
			return id
		}
	}
	return ""
}

// GroupName is what operators call a group, "" for one that is not known.
func (s *State) GroupName(id string) string {
	if id == DefaultGroup {
		return id
	}
	return s.Groups[id].Name
}

// GroupByName finds the ownership group that instances name so.
func (s *State) GroupByName(name string) (id string, ok bool) {
	id = s.groupOf(name)
	return id, id != ""
}

// GroupIDs are those of all groups: the default one, then the others by name.
func (s *State) GroupIDs() []string {
	ids := slices.SortedFunc(maps.Keys(s.Groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Groups[a].Name, s.Groups[b].Name), cmp.Compare(a, b))
	})
	return append([]string{DefaultGroup}, ids...)
}

// wantedBy tells which group each address is to be in, by its ID.
func (s *State) wantedBy(instances []Instance) map[netip.Addr]string {
	out := make(map[netip.Addr]string)
	for _, in := range instances {
		id := s.groupOf(in.Group)
		for _, a := range in.Addresses {
			out[a.Prefix.Addr()] = id
		}
	}
	return out
}

// ListOf is what a group may own: its instances, without the addresses that another group
// still has. It is the slice of the state where that is the whole of it.
func (s *State) ListOf(id string) []Instance {
	if len(s.Groups) == 0 && len(s.Holders) == 0 {
		if id == DefaultGroup {
			return s.Instances
		}
		return nil
	}
	var out []Instance
	for _, in := range s.Instances {
		if s.groupOf(in.Group) != id {
			continue
		}
		in.Addresses = slices.DeleteFunc(slices.Clone(in.Addresses), func(a Address) bool {
			h, ok := s.Holders[a.Prefix.Addr()]
			return ok && h.Group != id
		})
		out = append(out, in)
	}
	return out
}

// Leaves is the version that a group's list has to have, at least, before the group is
// done with what it gives away; 0 if it gives nothing away.
func (s *State) Leaves(id string) (version uint64) {
	for _, h := range s.Holders {
		if h.Group == id {
			version = max(version, h.Leaving)
		}
	}
	return version
}

// LeavingAddresses are those that a group gives away, in order.
func (s *State) LeavingAddresses(id string) []netip.Addr {
	var out []netip.Addr
	for ip, h := range s.Holders {
		if h.Group == id && h.Leaving != 0 {
			out = append(out, ip)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// groupsLevel is the first feature level with groups beside the default one. Before that
// everything is the default group's, whatever an instance says.
const groupsLevel = 3

// regroup makes the groups and the holders of addresses follow the instances, which were
// before before. voters are the nodes that a new group begins with.
func (s *State) regroup(before []Instance, index uint64, voters []string) error {
	if s.FeatureLevel() < groupsLevel {
		return nil
	}
	was := s.wantedBy(before)
	if err := s.makeGroups(index, voters); err != nil {
		return err
	}
	want := s.wantedBy(s.Instances)
	for ip, id := range was {
		if id == "" {
			id = DefaultGroup // a group from before there were any
		}
		h, known := s.Holders[ip]
		if !known {
			h = Holder{Group: id}
		}
		switch now := want[ip]; {
		case now == h.Group:
			h.Leaving = 0
		case h.Leaving == 0:
			h.Leaving = index
		}
		s.hold(ip, h)
	}
	for ip, id := range want {
		h, known := s.Holders[ip]
		switch _, had := was[ip]; {
		case had: // above
		case !known:
			s.hold(ip, Holder{Group: id})
		case h.Group == id:
			s.hold(ip, Holder{Group: id})
		}
	}
	s.dropGroups()
	if len(s.Holders) > 2*MaxAddresses {
		return Refuse(CodeNotReady, `see "raftvip status" for the groups without an owner`, "%d virtual addresses have been taken from a group and are not given up yet", len(s.Holders))
	}
	return nil
}

// hold notes who may own an address. That of the default group goes without saying.
func (s *State) hold(ip netip.Addr, h Holder) {
	if h == (Holder{Group: DefaultGroup}) {
		delete(s.Holders, ip)
		return
	}
	if s.Holders == nil {
		s.Holders = make(map[netip.Addr]Holder)
	}
	s.Holders[ip] = h
}

// makeGroups makes the groups that instances name.
func (s *State) makeGroups(index uint64, voters []string) error {
	made := 0
	for _, in := range s.Instances {
		if s.groupOf(in.Group) != "" {
			continue
		}
		if len(s.Groups) >= MaxGroups {
			return Refuse(CodeTooMany, "put instances into one vrrp_sync_group each, or use ownership together",
				"instance %s would be ownership group %d, and each is a Raft group of its own: at most %d are allowed", in.Name, len(s.Groups)+1, MaxGroups)
		}
		made++
		g := GroupRecord{ID: fmt.Sprintf("g%d.%d", index, made), Name: in.Group, Created: index, Level: s.FeatureLevel()}
		for _, n := range s.SortedNodes() {
			if len(voters) == 0 || slices.Contains(voters, n.ID) {
				g.Voters = append(g.Voters, GroupVoter{ID: n.ID, Address: n.Address})
			}
		}
		if len(g.Voters) == 0 {
			return Refuse(CodeNotReady, "", "ownership group %s: none of the nodes that it was to begin with is a member", in.Group)
		}
		if s.Groups == nil {
			s.Groups = make(map[string]GroupRecord)
		}
		s.Groups[g.ID] = g
	}
	return nil
}

// dropGroups forgets groups that no instance names and that hold nothing any more.
func (s *State) dropGroups() {
	keep := make(map[string]bool)
	for _, in := range s.Instances {
		keep[s.groupOf(in.Group)] = true
	}
	for _, h := range s.Holders {
		keep[h.Group] = true
	}
	maps.DeleteFunc(s.Groups, func(id string, _ GroupRecord) bool { return !keep[id] })
}

// free gives what a group has let go of to the groups that are to have it.
func (s *State) free(f FreeCommand) error {
	if f.Group != DefaultGroup {
		if _, ok := s.Groups[f.Group]; !ok {
			return Refuse(CodeNotFound, "", "no ownership group %s", printable(f.Group, 80))
		}
	}
	want, freed := s.wantedBy(s.Instances), false
	for ip, h := range maps.Clone(s.Holders) {
		if h.Group != f.Group || h.Leaving == 0 || h.Leaving > f.Version {
			continue
		}
		freed = true
		delete(s.Holders, ip)
		if id := want[ip]; id != "" {
			s.hold(ip, Holder{Group: id})
		}
	}
	if !freed {
		return Refuse(CodeBadRequest, "", "group %s gives nothing away at version %d", f.Group, f.Version)
	}
	s.dropGroups()
	return nil
}

// list replaces the list of an ownership group.
func (s *State) list(l ListCommand) error {
	if l.Version <= s.ListVersion {
		return Refuse(CodeOlder, "", "the group has a list of version %d, and version %d is not newer", s.ListVersion, l.Version)
	}
	if err := checkInstances(l.Instances); err != nil {
		return err
	}
	s.Instances, s.ListVersion = slices.Clone(l.Instances), l.Version
	return nil
}

// inGroup tells whether a command belongs into the log of an ownership group: the rest of
// the state is in the log of the default one.
func (c Command) inGroup() bool {
	return c.List != nil || c.Move != nil || c.Note != nil || c.Raise != nil
}
