package hint

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
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

// A GroupHint is what a node says of itself in one ownership group.
type GroupHint struct {
	Check check.Report `json:"check"`
	// Faults are those that no check knows of, such as an address without an interface.
	Faults []string `json:"faults,omitempty"`
	Owning bool     `json:"owning"`
	// OwningTerm is the term in which it owns.
	OwningTerm uint64 `json:"owning_term,omitempty"`
	// Take is how many of the addresses the node has up, or could put up; nil if
	// nothing is wrong. Foreign are others' copies of the addresses there.
	Take    *policy.Take  `json:"take,omitempty"`
	Foreign []ForeignCopy `json:"foreign,omitempty"`
	// NotRemoved is how many addresses the node cannot take off its kernel.
	NotRemoved int `json:"not_removed,omitempty"`
}

// A Hint is what a node says of itself in its reports.
type Hint struct {
	// GroupHint is that of the default group, Groups are those of the others, by ID.
	GroupHint
	Groups map[string]GroupHint `json:"groups,omitempty"`
	// Claims are other machines' claims of addresses that the node owns, MACs the
	// hardware addresses at which it announces.
	Claims []Claim  `json:"claims,omitempty"`
	MACs   []string `json:"macs,omitempty"`
	// Twins are other machines' claims of the address at which members reach the node.
	Twins []Claim `json:"twins,omitempty"`
	// Fronts are the hardware addresses of the interfaces that the addresses belong on:
	// whoever answers with another one is not heard there.
	Fronts []string `json:"fronts,omitempty"`
	// Settling says on which of these interfaces nothing has been heard since they came
	// up, or is empty.
	Settling string `json:"settling,omitempty"`
	// VRRP is what the node is in its hybrid instances, by name.
	VRRP map[string]VirtualRouter `json:"vrrp,omitempty"`
	// What follows is for status only.
	Program     string   `json:"program,omitempty"`
	Drift       []string `json:"drift,omitempty"`
	ConfigError string   `json:"config_error,omitempty"`
	Guard       string   `json:"guard,omitempty"`
}

// A VirtualRouter is what a node is in one hybrid instance.
type VirtualRouter struct {
	// Source is the address from which it speaks.
	Source netip.Addr `json:"source"`
	// Master: it is VRRP master.
	Master bool `json:"master,omitempty"`
}

// faults are all reasons for which the node cannot own.
func (h GroupHint) faults() []string { return append(slices.Clone(h.Check.Faults), h.Faults...) }

// A Seen is a node's hint as this node knows it.
type Seen struct {
	Hint
	// Known: it has reported something that this node can read.
	Known bool
	// Age is the time since the leader got the report; Offset is how far the node's wall
	// clock is ahead of the leader's.
	Age    time.Duration
	Offset time.Duration
	// Applied is the index of the log that the node has applied.
	Applied uint64
}

// In is the hint as far as an ownership group goes. A node that has said nothing of the
// group has not reported there.
func (s Seen) In(group string) Seen {
	if group == state.DefaultGroup {
		return s
	}
	h, ok := s.Groups[group]
	s.GroupHint, s.Known = h, s.Known && ok
	return s
}

// All are the hints of all groups, the default one's first.
func (h Hint) All() []GroupHint {
	all := []GroupHint{h.GroupHint}
	for _, id := range slices.Sorted(maps.Keys(h.Groups)) {
		all = append(all, h.Groups[id])
	}
	return all
}

// In are hints as far as an ownership group goes.
func In(group string, hints map[string]Seen) map[string]Seen {
	if group == state.DefaultGroup {
		return hints
	}
	out := make(map[string]Seen, len(hints))
	for id, s := range hints {
		out[id] = s.In(group)
	}
	return out
}

// Owns tells of a node, by its ID, whether it says that it owns in a term.
func Owns(hints map[string]Seen) func(nodeID string, term uint64) bool {
	return func(id string, term uint64) bool {
		h := hints[id]
		return h.Known && h.Owning && h.OwningTerm == term
	}
}

// caughtUpSlack is how many changes behind a node may be to be handed the group:
// Raft brings it up to date before the hand-over.
const caughtUpSlack = 16

// A Reader decodes reports, and those that are as they were only once. What the
// hints refer to is not to be changed.
type Reader struct {
	mu   sync.Mutex
	last map[string]readHint // by node ID
}

type readHint struct {
	raw json.RawMessage
	Seen
}

// A Report is a report as far as hints go: the newest one of a node.
type Report struct {
	NodeID string
	Raw    json.RawMessage // the hint; what cannot be read counts as never told
	// Age is the time since the leader got it, Offset how far the node's wall clock is
	// ahead of the leader's.
	Age, Offset time.Duration
	Applied     uint64 // index of the log that the node has applied
}

// Read returns what the newest reports say, by node ID.
func (r *Reader) Read(reports []Report) map[string]Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[string]readHint)
	}
	out := make(map[string]Seen, len(reports))
	for _, rep := range reports {
		last := r.last[rep.NodeID]
		if !bytes.Equal(last.raw, rep.Raw) {
			last = readHint{raw: rep.Raw}
			// A node of another version may send what this one cannot read; it is then
			// a node that has not reported.
			last.Known = json.Unmarshal(rep.Raw, &last.Hint) == nil
			if !last.Known {
				last.Hint = Hint{}
			}
			r.last[rep.NodeID] = last
		}
		s := last.Seen
		s.Age, s.Offset, s.Applied = rep.Age, rep.Offset, rep.Applied
		out[rep.NodeID] = s
	}
	maps.DeleteFunc(r.last, func(id string, _ readHint) bool { _, ok := out[id]; return !ok })
	return out
}

// Candidates makes the policy's view of the members. votes and connected tell of a node,
// by its ID, whether it is a voter and whether it answers; held says that nobody preempts.
func Candidates(s *state.State, group, self string, hints map[string]Seen, votes, connected func(nodeID string) bool, held bool) []policy.Node {
	nodes := make([]policy.Node, 0, len(s.Nodes))
	for id, n := range s.Nodes {
		h := hints[id]
		p := policy.Node{
			ID: id, Name: n.Name, Self: id == self,
			Voter: votes(id), Connected: connected(id),
			CaughtUp: h.Applied+caughtUpSlack >= s.Version,
			Witness:  n.Witness, Drained: n.Drained,
			Ready: h.Known && h.Check.Ready, Faults: h.faults(), Degraded: h.Check.Degraded,
			Priority: h.Check.Priority, Lowered: h.Check.Lowered(), NoPreempt: h.Check.NoPreempt, Held: held, PreemptDelay: h.Check.PreemptDelay,
			ReportAge: h.Age, Tie: tieOf(group, id),
		}
		p.Settling = doctor.Clean(h.Settling)
		if h.Take != nil {
			p.Take = *h.Take
		}
		if !h.Known {
			p.ReportAge = time.Hour // never
		}
		nodes = append(nodes, p)
	}
	slices.SortFunc(nodes, func(a, b policy.Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

// tieOf orders nodes that are equally good for a group. In the default group, which may be
// the only one, their names do; the others are spread over the nodes.
func tieOf(group, node string) string {
	if group == state.DefaultGroup {
		return ""
	}
	sum := sha256.Sum256([]byte(group + "/" + node))
	return hex.EncodeToString(sum[:8])
}

// A ForeignCopy is a copy of an address that someone else has configured on the node.
type ForeignCopy struct {
	Prefix netip.Prefix `json:"prefix"`
	Link   string       `json:"link"`
	// Silent: the guard lets it answer only under the lease. Serves: it does so now.
	Silent bool `json:"silent,omitempty"`
	Serves bool `json:"serves,omitempty"`
	// Why says what it means, and how to be rid of it.
	Why string `json:"why"`
}

// A Claim is a machine that claims an address which the node owns, or at which it is
// reached, as other nodes and operators are told of it.
type Claim struct {
	Addr netip.Addr `json:"addr"`
	MAC  string     `json:"mac"`
	Link string     `json:"link"` // interface on which it was heard
	Port string     `json:"port,omitempty"`
	// Member is the machine's name, empty for one that is no member.
	Member string `json:"member,omitempty"`
	Count  uint64 `json:"count"`
	// First and Last are by the wall clock of the node that heard the claims.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// who names the machine.
func (c Claim) who() string {
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

// Text says what was seen, by the node that owns the address.
func (c Claim) Text() string {
	return fmt.Sprintf("%s is claimed by %s: %s, last at %s", c.Addr, c.who(), c.times(), c.Last.Local().Format(time.DateTime))
}

// TwinText says what was seen, of the address at which members reach the node. itself
// is how the node is called: the claimant is the other of two.
func (c Claim) TwinText(node, itself string) string {
	return fmt.Sprintf("two machines use the address %s of node %s: %s and %s, heard %s since %s, last at %s",
		c.Addr, node, itself, c.who(), c.times(), c.First.Local().Format(time.DateTime), c.Last.Local().Format(time.DateTime))
}

func (c Claim) times() string {
	if c.Count == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", c.Count)
}

// Troubles are the addresses that do not answer on a node where they should, or do
// where they should not.
func (h Hint) Troubles(node string) []api.Trouble {
	out := h.troubles(node)
	for _, id := range slices.Sorted(maps.Keys(h.Groups)) {
		out = append(out, h.Groups[id].troubles(node)...)
	}
	for _, c := range h.Claims {
		if c.Member != "" { // a member that says so answers, too
			out = append(out, api.Trouble{Node: node, Address: c.Addr, Kind: api.TroubleStray, Why: doctor.Clean(c.Text())})
		}
	}
	return out
}

func (h GroupHint) troubles(node string) (out []api.Trouble) {
	if h.Owning && h.Take != nil && h.Take.Missing > 0 {
		out = append(out, api.Trouble{Node: node, Kind: api.TroubleDown,
			Why: fmt.Sprintf("%d of %d addresses do not answer: %s", h.Take.Missing, h.Take.Wanted, doctor.Clean(h.Take.Reason))})
	}
	for _, f := range h.Foreign {
		if !f.Silent && !f.Serves {
			out = append(out, api.Trouble{Node: node, Address: f.Prefix.Addr(), Kind: api.TroubleStray, Why: doctor.Clean(f.Why)})
		}
	}
	if h.NotRemoved > 0 {
		out = append(out, api.Trouble{Node: node, Kind: api.TroubleStray, Why: fmt.Sprintf("%d addresses cannot be removed", h.NotRemoved)})
	}
	return out
}
