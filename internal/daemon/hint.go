package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/policy"
)

// A hint is what a node says of itself in its reports.
type hint struct {
	Check check.Report `json:"check"`
	// Faults are those that no check knows of, such as an address without an interface.
	Faults []string `json:"faults,omitempty"`
	Owning bool     `json:"owning"`
	// OwningTerm is the term in which it owns.
	OwningTerm uint64 `json:"owning_term,omitempty"`
	// Take is how many of the addresses the node has up, or could put up; nil if
	// nothing is wrong. Foreign are others' copies of the addresses there.
	Take    *policy.Take  `json:"take,omitempty"`
	Foreign []foreignHint `json:"foreign,omitempty"`
	// Claims are other machines' claims of addresses that the node owns, MACs the
	// hardware addresses at which it announces.
	Claims []claimHint `json:"claims,omitempty"`
	MACs   []string    `json:"macs,omitempty"`
	// NotRemoved is how many addresses the node cannot take off its kernel.
	NotRemoved int `json:"not_removed,omitempty"`
	// Fronts are the hardware addresses of the interfaces that the addresses belong on:
	// whoever answers with another one is not heard there.
	Fronts []string `json:"fronts,omitempty"`
	// Settling says on which of these interfaces nothing has been heard since they came
	// up, or is empty.
	Settling string `json:"settling,omitempty"`
	// VRRP is what the node is in its hybrid instances, by name.
	VRRP map[string]vrrpHint `json:"vrrp,omitempty"`
	// What follows is for status only.
	Program     string   `json:"program,omitempty"`
	Drift       []string `json:"drift,omitempty"`
	ConfigError string   `json:"config_error,omitempty"`
	Guard       string   `json:"guard,omitempty"`
}

// A vrrpHint is what a node is in one hybrid instance.
type vrrpHint struct {
	// Source is the address from which it speaks.
	Source netip.Addr `json:"source"`
	// Master: it is VRRP master.
	Master bool `json:"master,omitempty"`
}

// faults are all reasons for which the node cannot own.
func (h hint) faults() []string { return append(slices.Clone(h.Check.Faults), h.Faults...) }

// A seenHint is a node's hint as this node knows it.
type seenHint struct {
	hint
	known   bool
	age     time.Duration
	offset  time.Duration
	applied uint64
}

// caughtUpSlack is how many changes behind a node may be to be handed the group:
// Raft brings it up to date before the hand-over.
const caughtUpSlack = 16

// A hintReader decodes reports, and those that are as they were only once. What the
// hints refer to is not to be changed.
type hintReader struct {
	mu   sync.Mutex
	last map[string]readHint // by node ID
}

type readHint struct {
	raw json.RawMessage
	seenHint
}

// read returns what the newest reports say, by node ID.
func (r *hintReader) read(reports []cluster.SeenReport) map[string]seenHint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[string]readHint)
	}
	out := make(map[string]seenHint, len(reports))
	for _, rep := range reports {
		last := r.last[rep.NodeID]
		if !bytes.Equal(last.raw, rep.Hint) {
			last = readHint{raw: rep.Hint}
			// A node of another version may send what this one cannot read; it is then
			// a node that has not reported.
			last.known = json.Unmarshal(rep.Hint, &last.hint) == nil
			if !last.known {
				last.hint = hint{}
			}
			r.last[rep.NodeID] = last
		}
		s := last.seenHint
		s.age, s.offset, s.applied = rep.Age, rep.ClockOffset, rep.Applied
		out[rep.NodeID] = s
	}
	maps.DeleteFunc(r.last, func(id string, _ readHint) bool { _, ok := out[id]; return !ok })
	return out
}

// candidates makes the policy's view of the members.
func candidates(s *state.State, self string, hints map[string]seenHint, suffrages map[string]cluster.Suffrage,
	connected func(nodeID string) bool, held bool) []policy.Node {
	nodes := make([]policy.Node, 0, len(s.Nodes))
	for id, n := range s.Nodes {
		h := hints[id]
		p := policy.Node{
			ID: id, Name: n.Name, Self: id == self,
			Voter: suffrages[id] == cluster.SuffrageVoter, Connected: connected(id),
			CaughtUp: h.applied+caughtUpSlack >= s.Version,
			Witness:  n.Witness, Drained: n.Drained,
			Ready: h.known && h.Check.Ready, Faults: h.faults(), Degraded: h.Check.Degraded,
			Priority: h.Check.Priority, Lowered: h.Check.Lowered(), NoPreempt: h.Check.NoPreempt, Held: held, PreemptDelay: h.Check.PreemptDelay,
			ReportAge: h.age,
		}
		p.Settling = doctor.Clean(h.Settling)
		if h.Take != nil {
			p.Take = *h.Take
		}
		if !h.known {
			p.ReportAge = time.Hour // never
		}
		nodes = append(nodes, p)
	}
	slices.SortFunc(nodes, func(a, b policy.Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}
