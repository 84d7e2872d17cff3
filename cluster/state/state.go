package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// StateFormat is the newest version of the replicated state that this program reads.
// It writes the one that the members of the cluster can read (formatOf).
const Format = 3

// maxMoves bounds the ownership history.
const maxMoves = 500

// A State is the replicated state: what all nodes act on, at one version. A State
// that has been published is never changed.
type State struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
	// Level is the feature level that all members understand; 0 is the first one.
	Level int `json:"level,omitempty" level:"2"`
	// Version is the log index of the last change.
	Version uint64 `json:"version"`
	// Heartbeat is the failure detection time.
	Heartbeat HeartbeatSetting `json:"heartbeat"`
	// Nodes are the members and those that are joining, by node ID.
	Nodes map[string]NodeRecord `json:"nodes"`
	// Removed are the nodes that may not come back under their old identity.
	Removed   map[string]RemovedNode `json:"removed,omitempty"`
	Instances []Instance             `json:"instances"`
	Tokens    map[string]TokenRecord `json:"tokens,omitempty"`
	// Moves is the ownership history, oldest first.
	Moves []Move `json:"moves,omitempty"`
	// Groups are the ownership groups beside the default one, by ID, and Holders the
	// groups that may own an address; the default group holds what is not in it.
	Groups  map[string]GroupRecord `json:"groups,omitempty" level:"3"`
	Holders map[netip.Addr]Holder  `json:"holders,omitempty" level:"3"`
	// Group is the ID of the ownership group whose own state this is, or "" for that of the
	// default one. ListVersion is the version of the default group's state that its
	// instances are from, 0 before the first list.
	Group       string `json:"group,omitempty" level:"3"`
	ListVersion uint64 `json:"list_version,omitempty" level:"3"`
}

// A HeartbeatSetting is the failure detection time while it changes: a voter
// promises the longer of the two and a leader counts on the shorter, until every
// voter is known to have the new one.
type HeartbeatSetting struct {
	// Configured is what the operator asked for. Current is longer if some node's
	// guard needs it to be.
	Configured time.Duration `json:"configured"`
	Current    time.Duration `json:"current"`
	Previous   time.Duration `json:"previous"`
}

// Promise is how long a voter is bound after hearing its leader.
func (h HeartbeatSetting) Promise() time.Duration { return max(h.Current, h.Previous) }

// Counted is the promise that a leader may count on.
func (h HeartbeatSetting) Counted() time.Duration { return min(h.Current, h.Previous) }

// A NodeRecord is one node of the cluster.
type NodeRecord struct {
	// ID is the node's identity: it belongs to one data directory and is never used again.
	ID string `json:"id"`
	// Name is what the operator calls the node; no two nodes share one.
	Name string `json:"name"`
	// Address is HOST:PORT where other nodes reach it.
	Address string `json:"address"`
	// Witness: votes, but never owns an address.
	Witness bool `json:"witness,omitempty"`
	// Claim counts the moves of the identity to another machine; see Run.
	Claim uint64 `json:"claim,omitempty" level:"2,drop"`
	// Drained: the operator says that it is not to own.
	Drained bool      `json:"drained,omitempty"`
	Joined  time.Time `json:"joined"`
}

// A RemovedNode is a former member.
type RemovedNode struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// An Instance is the cluster-wide part of a vrrp_instance.
type Instance struct {
	Name string `json:"name"`
	// Group is the ownership group.
	Group string `json:"group"`
	// FromFile: a node's file brought it in, and a reload may take it away again.
	FromFile        bool `json:"from_file,omitempty"`
	VirtualRouterID int  `json:"virtual_router_id,omitempty"`
	// VRRP is "hybrid" where the owner also speaks VRRP on the wire and needs its
	// consent, or "".
	VRRP      string    `json:"vrrp,omitempty"`
	Addresses []Address `json:"addresses"`
	GARP      GARP      `json:"garp"`
}

// An Address is one virtual address as all nodes know it. Dev and Label are
// what the node that brought it in said; a node's own file may say otherwise.
type Address struct {
	Prefix   netip.Prefix `json:"prefix"`
	Excluded bool         `json:"excluded,omitempty"`
	Dev      string       `json:"dev,omitempty"`
	Brd      string       `json:"brd,omitempty"`
	Scope    string       `json:"scope,omitempty"`
	Label    string       `json:"label,omitempty"`
	// Added: a command brought it in, also where its instance is a file's, and no reload
	// takes it away.
	Added bool `json:"added,omitempty" level:"2,drop"`
}

// GARP is the announcement schedule (keepalived.conf(5), garp_master_*).
type GARP struct {
	MasterDelay         time.Duration `json:"master_delay"`
	MasterRepeat        int           `json:"master_repeat"`
	MasterRefresh       time.Duration `json:"master_refresh"`
	MasterRefreshRepeat int           `json:"master_refresh_repeat"`
	Interval            time.Duration `json:"interval,omitempty"`
	GNAInterval         time.Duration `json:"gna_interval,omitempty"`
}

// A TokenRecord is what the cluster keeps of a join token.
type TokenRecord struct {
	ID string `json:"id"`
	// Hash is of the token's secret; the secret itself is never stored.
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Uses is how many more nodes may join with it.
	Uses int `json:"uses"`
}

// A Move is one change of ownership.
type Move struct {
	// Seq counts moves from 1.
	Seq   uint64 `json:"seq"`
	Group string `json:"group"`
	Term  uint64 `json:"term"`
	// From and To are node names; empty means nobody.
	From string    `json:"from"`
	To   string    `json:"to"`
	At   time.Time `json:"at"`
	// Reason says why, in words.
	Reason string `json:"reason"`
	// Gap is the longest time that clients can have been without an answer, as the new
	// owner knows it: from the last instant at which it knows that the old one owned to
	// the moment when its own addresses were up. Zero means unknown.
	Gap time.Duration `json:"gap,omitempty"`
	// GapLeast is the shortest: the kernel of an owner whose daemon alone has died
	// answers to the end of its lease.
	GapLeast time.Duration `json:"gap_least,omitempty" level:"2,drop"`
	// Loss: no majority of the voters was there. It is recorded when there is one
	// again, At being when it began, and says nothing of who owns since.
	Loss bool `json:"loss,omitempty" level:"2"`
}

func New() *State {
	return &State{
		Format: formatOf(1),
		Nodes:  map[string]NodeRecord{}, Removed: map[string]RemovedNode{}, Tokens: map[string]TokenRecord{},
	}
}

// clone returns a copy that may be changed, but for its instances: whoever changes
// those takes copies of them first (ownInstances), so that readers can tell by the
// slice that nothing has changed.
func (s *State) clone() *State {
	c := *s
	c.Nodes = maps.Clone(s.Nodes)
	c.Removed = maps.Clone(s.Removed)
	c.Tokens = maps.Clone(s.Tokens)
	c.Moves = slices.Clone(s.Moves)
	c.Groups = maps.Clone(s.Groups)
	c.Holders = maps.Clone(s.Holders)
	return &c
}

// ownInstances makes the instances of a clone its own.
func (s *State) ownInstances() {
	s.Instances = slices.Clone(s.Instances)
	for i := range s.Instances {
		s.Instances[i].Addresses = slices.Clone(s.Instances[i].Addresses)
	}
}

// Founded tells whether there is something in this state to act on: a cluster, or a
// group's first list.
func (s *State) Founded() bool { return s.ClusterID != "" || s.ListVersion > 0 }

// NodeByName finds a member by the operator's name for it, or by its ID.
func (s *State) NodeByName(name string) (NodeRecord, bool) {
	if n, ok := s.Nodes[name]; ok {
		return n, true
	}
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return NodeRecord{}, false
}

// SortedNodes returns the members by name.
func (s *State) SortedNodes() []NodeRecord {
	return slices.SortedFunc(maps.Values(s.Nodes), func(a, b NodeRecord) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// LastMove returns the newest change of ownership of a group.
func (s *State) LastMove(group string) (Move, bool) {
	for i := len(s.Moves) - 1; i >= 0; i-- {
		if m := s.Moves[i]; m.Group == group && !m.Loss {
			return m, true
		}
	}
	return Move{}, false
}

// AddressOf finds a virtual address.
func (s *State) AddressOf(ip netip.Addr) (Instance, Address, bool) {
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			if a.Prefix.Addr() == ip {
				return in, a, true
			}
		}
	}
	return Instance{}, Address{}, false
}

// DefaultGroup is the group that holds the replicated state and, unless told
// otherwise, owns every instance.
const DefaultGroup = "default"
