package daemon

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// advice is what the members' hints mean to the owner. It implements
// owner.Advice.
type advice struct {
	id     string // of the group
	node   *cluster.Node
	hints  *hint.Reader
	checks *check.Checks
	// report is what the checks say about the group's instances.
	report func() check.Report
	// describe adds what the daemon knows to this node's hint.
	describe func(*hint.Hint)
	told     *told
}

// told is what this node says of itself in all groups.
type told struct {
	publishing sync.Mutex

	mu   sync.Mutex
	hint hint.Hint // as last published
}

// put replaces what is said in one group, and returns the whole, completed by describe.
func (t *told) put(group string, h hint.GroupHint, describe func(*hint.Hint)) hint.Hint {
	var whole hint.Hint
	describe(&whole) // it asks others, who may ask for what is told
	t.mu.Lock()
	defer t.mu.Unlock()
	whole.GroupHint, whole.Groups = t.hint.GroupHint, t.hint.Groups
	if group == state.DefaultGroup {
		whole.GroupHint = h
	} else {
		whole.Groups = maps.Clone(whole.Groups)
		if whole.Groups == nil {
			whole.Groups = make(map[string]hint.GroupHint)
		}
		whole.Groups[group] = h
	}
	t.hint = whole
	return whole
}

// has tells whether this is what was said of a group last.
func (t *told) has(group string, h hint.GroupHint) bool {
	t.mu.Lock()
	old, ok := t.hint.Groups[group]
	t.mu.Unlock()
	return ok && reflect.DeepEqual(old, h)
}

// drop forgets a group that has ended. Others hear of it with what is said next.
func (t *told) drop(group string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hint.Groups = maps.Clone(t.hint.Groups)
	delete(t.hint.Groups, group)
}

func (t *told) last() hint.Hint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hint
}

// Seen is what the newest reports say, by node ID.
func (a *advice) Seen() map[string]hint.Seen { return a.hints.Read(reported(a.node.Reports())) }

// here is what they say of this group.
func (a *advice) here() map[string]hint.Seen { return hint.In(a.id, a.Seen()) }

// Changed implements owner.Advice.
func (a *advice) Changed() <-chan struct{} { return a.checks.Changed() }

// Publish implements owner.Advice.
func (a *advice) Publish(t owner.Told) {
	a.told.publishing.Lock() // or an older hint could take the place of a newer one
	defer a.told.publishing.Unlock()
	of := hint.GroupHint{
		Check: a.report(), Faults: t.Faults, Owning: t.Owning, OwningTerm: t.Term,
		Take: t.Take, Foreign: foreignHints(t.Foreign), NotRemoved: t.NotRemoved,
	}
	// The rest is told at each turn of the default group's owner.
	if a.id != state.DefaultGroup && a.told.has(a.id, of) {
		return
	}
	h := a.told.put(a.id, of, a.describe)
	b, err := json.Marshal(h)
	if err != nil {
		panic("daemon: hint cannot be encoded: " + err.Error()) // plain data
	}
	a.node.SetHint(b)
}

// foreignHints are others' copies of addresses as the members are told of them.
func foreignHints(copies []vip.AddressStatus) []hint.ForeignCopy {
	var out []hint.ForeignCopy
	for _, c := range copies {
		out = append(out, hint.ForeignCopy{Prefix: c.Foreign, Link: c.Link, Silent: c.Silent, Serves: c.State == vip.StateBorrowed, Why: c.Why})
	}
	return out
}

// Candidates implements owner.Advice.
func (a *advice) Candidates(s *state.State, connected func(nodeID string) bool, held bool) []policy.Node {
	self, hints := a.node.Self().NodeID, a.here()
	// What is known of oneself is newer than the last report of it.
	hints[self] = hint.Seen{Hint: a.told.last(), Known: true, Applied: s.Version}.In(a.id)
	return hint.Candidates(s, a.id, self, hints, votes(a.node.SuffragesIn(a.id)), connected, held)
}

// Owns implements owner.Advice.
func (a *advice) Owns(id string, term uint64) bool { return hint.Owns(a.here())(id, term) }

// Unguarded implements owner.Advice.
func (a *advice) Unguarded(id string) bool { return a.Seen()[id].Guard == string(guard.Off) }

// Troubles are this node's, as of its last hint.
func (a *advice) Troubles() []api.Trouble { return a.told.last().Troubles(a.node.Self().Name) }

// memberOf names the other member that has told to have this hardware address.
func (d *Daemon) memberOf(mac string) string {
	s := d.node.State()
	for id, h := range d.seen() {
		if n, ok := s.Nodes[id]; ok && id != d.node.Self().NodeID && slices.Contains(h.MACs, mac) {
			return n.Name
		}
	}
	return ""
}

// reported are the members' reports as far as their hints go.
func reported(reports []cluster.SeenReport) []hint.Report {
	out := make([]hint.Report, len(reports))
	for i, r := range reports {
		out[i] = hint.Report{NodeID: r.NodeID, Raw: r.Hint, Age: r.Age, Offset: r.ClockOffset, Applied: r.Applied}
	}
	return out
}

// votes tells of a node whether it is a voter.
func votes(suffrages map[string]cluster.Suffrage) func(nodeID string) bool {
	return func(id string) bool { return suffrages[id] == cluster.SuffrageVoter }
}

// seen is what the newest reports say, by node ID.
func (d *Daemon) seen() map[string]hint.Seen { return d.hints.Read(reported(d.node.Reports())) }
