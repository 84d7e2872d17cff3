package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
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

// A hintReport is a report as far as hints go: the newest one of a node.
type hintReport struct {
	nodeID string
	raw    json.RawMessage // the hint; what cannot be read counts as never told
	// age is the time since the leader got it, offset how far the node's wall clock is
	// ahead of the leader's.
	age, offset time.Duration
	applied     uint64 // index of the log that the node has applied
}

// read returns what the newest reports say, by node ID.
func (r *hintReader) read(reports []hintReport) map[string]seenHint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[string]readHint)
	}
	out := make(map[string]seenHint, len(reports))
	for _, rep := range reports {
		last := r.last[rep.nodeID]
		if !bytes.Equal(last.raw, rep.raw) {
			last = readHint{raw: rep.raw}
			// A node of another version may send what this one cannot read; it is then
			// a node that has not reported.
			last.known = json.Unmarshal(rep.raw, &last.hint) == nil
			if !last.known {
				last.hint = hint{}
			}
			r.last[rep.nodeID] = last
		}
		s := last.seenHint
		s.age, s.offset, s.applied = rep.age, rep.offset, rep.applied
		out[rep.nodeID] = s
	}
	maps.DeleteFunc(r.last, func(id string, _ readHint) bool { _, ok := out[id]; return !ok })
	return out
}

// candidates makes the policy's view of the members. votes and connected tell of a node,
// by its ID, whether it is a voter and whether it answers; held says that nobody preempts.
func candidates(s *state.State, self string, hints map[string]seenHint, votes, connected func(nodeID string) bool, held bool) []policy.Node {
	nodes := make([]policy.Node, 0, len(s.Nodes))
	for id, n := range s.Nodes {
		h := hints[id]
		p := policy.Node{
			ID: id, Name: n.Name, Self: id == self,
			Voter: votes(id), Connected: connected(id),
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

// A foreignHint is a copy of an address that someone else has configured on the node.
type foreignHint struct {
	Prefix netip.Prefix `json:"prefix"`
	Link   string       `json:"link"`
	// Silent: the guard lets it answer only under the lease. Serves: it does so now.
	Silent bool `json:"silent,omitempty"`
	Serves bool `json:"serves,omitempty"`
	// Why says what it means, and how to be rid of it.
	Why string `json:"why"`
}

// A claimHint is a claimant as other nodes and operators are told of it.
type claimHint struct {
	Addr   netip.Addr `json:"addr"`
	MAC    string     `json:"mac"`
	Link   string     `json:"link"`
	Port   string     `json:"port,omitempty"`
	Member string     `json:"member,omitempty"`
	Count  uint64     `json:"count"`
	First  time.Time  `json:"first"`
	Last   time.Time  `json:"last"`
}

// who names the machine.
func (c claimHint) who() string {
	s := c.MAC
	if c.Member != "" {
		s = c.Member + " (" + c.MAC + ")"
	}
	s += " on " + c.Link
	if c.Port != "" {
		s += ", bridge port " + c.Port
	}
	return s
}

// text says what was seen, by the node that owns the address.
func (c claimHint) text() string {
	times := fmt.Sprintf("%d times", c.Count)
	if c.Count == 1 {
		times = "once"
	}
	return fmt.Sprintf("%s is claimed by %s: %s, last at %s", c.Addr, c.who(), times, c.Last.Local().Format(time.DateTime))
}

// troubles are the addresses that do not answer on a node where they should, or do
// where they should not.
func (h hint) troubles(node string) []api.Trouble {
	var out []api.Trouble
	if h.Owning && h.Take != nil && h.Take.Missing > 0 {
		out = append(out, api.Trouble{Node: node, Kind: api.TroubleDown,
			Why: fmt.Sprintf("%d of %d addresses do not answer: %s", h.Take.Missing, h.Take.Wanted, doctor.Clean(h.Take.Reason))})
	}
	for _, f := range h.Foreign {
		if !f.Silent && !f.Serves {
			out = append(out, api.Trouble{Node: node, Address: f.Prefix.Addr(), Kind: api.TroubleStray, Why: doctor.Clean(f.Why)})
		}
	}
	for _, c := range h.Claims {
		if c.Member != "" { // a member that says so answers, too
			out = append(out, api.Trouble{Node: node, Address: c.Addr, Kind: api.TroubleStray, Why: doctor.Clean(c.text())})
		}
	}
	if h.NotRemoved > 0 {
		out = append(out, api.Trouble{Node: node, Kind: api.TroubleStray, Why: fmt.Sprintf("%d addresses cannot be removed", h.NotRemoved)})
	}
	return out
}
