package identity

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A HolderNote is what nodes tell one another of one run of an identity.
type HolderNote struct {
	Run
	// After are the boots that were known when this run last proved to be alive.
	After []string `json:"after,omitempty"`
	// Acknowledged is how far it is known to have come, Prior how far those before it
	// that are forgotten.
	Acknowledged Position `json:"acknowledged,omitzero"`
	Prior        Position `json:"prior,omitzero"`
	// Back: it was found to have less than it had acknowledged.
	Back bool `json:"back,omitempty"`
}

// An IdentityNote is what nodes tell one another of one identity.
type IdentityNote struct {
	Runs []HolderNote `json:"runs,omitempty"`
}

const (
	// maxRuns bounds what is remembered, and told, of one identity.
	maxRuns = 8
	// maxIdentities bounds the identities in a message: twice as many as Raft can have servers.
	maxIdentities = 256
)

// Holders knows which processes hold the members' identities. That there are two is
// found by order: a process that completes a handshake which began after another one
// was known to exist is later than that one, in the sense that it was alive after the
// other's start. Of two processes that follow one another on one machine only the
// second can be; two that are each later than the other run at the same time.
type Holders struct {
	self string
	Run  Run
	now  func() time.Duration
	// news is called without the lock when something was found out.
	news func()

	mu  sync.Mutex
	ids map[string]*identity
}

type identity struct {
	runs  []*holding // oldest known first
	claim uint64     // the newest known
	two   uint64     // 1 + the claim that two were found to hold, or 0
}

type holding struct {
	Run
	since time.Duration
	after map[string]bool
	// acked is how far it is known to have come: votes it has given and committed
	// entries it has said to have. prior is that of the runs before it which are
	// forgotten. back: it was seen to have less than it had acknowledged itself.
	acked, prior Position
	back         bool
	// addresses are where it has answered.
	addresses []string
}

func New(self string, run Run, now func() time.Duration, news func()) *Holders {
	h := &Holders{self: self, Run: run, now: now, news: news, ids: make(map[string]*identity)}
	h.ids[self] = &identity{claim: run.Claim, runs: []*holding{{Run: run, since: now(), after: make(map[string]bool)}}}
	return h
}

func (h *Holders) of(id string) *identity {
	v := h.ids[id]
	if v == nil {
		v = &identity{}
		if len(h.ids) < maxIdentities {
			h.ids[id] = v
		}
	}
	return v
}

func (v *identity) find(boot string) *holding {
	for _, r := range v.runs {
		if r.Boot == boot {
			return r
		}
	}
	return nil
}

// past tells whether a run was followed by another one, as far as is known.
func (v *identity) past(r *holding) bool {
	return slices.ContainsFunc(v.runs, func(o *holding) bool { return o.follows(r) })
}

// newest returns the boot of the newest run: the last one known that is not past.
func (v *identity) newest() (boot string) {
	for _, r := range v.runs {
		if !v.past(r) && r.Claim == v.claim {
			boot = r.Boot
		}
	}
	return boot
}

// only returns the boot of the run that is there now, or "" where it may be either of
// several: one that is heard of late may come before one that is known.
func (v *identity) only() (boot string) {
	for _, r := range v.runs {
		switch {
		case v.past(r):
		case boot != "":
			return ""
		default:
			boot = r.Boot
		}
	}
	return boot
}

// add notes a run that was not known.
func (v *identity) add(run Run, now time.Duration) *holding {
	if len(v.runs) >= maxRuns {
		i := slices.IndexFunc(v.runs, v.past)
		if i < 0 {
			i = len(v.runs) - 1
		}
		gone := v.runs[i]
		for _, r := range v.runs {
			if r.follows(gone) {
				r.prior = r.prior.or(gone.prior).or(gone.acked)
			}
		}
		v.runs = slices.Delete(v.runs, i, i+1)
	}
	r := &holding{Run: run, since: now, after: make(map[string]bool)}
	v.runs = append(v.runs, r)
	v.claim = max(v.claim, run.Claim)
	return r
}

// follows tells whether a run came after another one, as far as is known.
func (r *holding) follows(o *holding) bool { return r != o && r.after[o.Boot] && !o.after[r.Boot] }

// missing returns what the runs before r had acknowledged, if r started with less: it
// began on an older state of the disk.
func (v *identity) missing(r *holding) (acked Position, missing bool) {
	acked = r.prior
	for _, o := range v.runs {
		if r.follows(o) {
			acked = acked.or(o.prior).or(o.acked)
		}
	}
	return acked, r.back || r.Start.behind(acked)
}

// judge looks for two runs at once.
func (v *identity) judge() {
	for i, a := range v.runs {
		for _, b := range v.runs[i+1:] {
			// Of two claims the higher one is the operator's word.
			if a.Claim == b.Claim && a.after[b.Boot] && b.after[a.Boot] {
				v.two = max(v.two, a.Claim+1)
			}
		}
	}
}

// state is what other nodes are told when it changes.
func (v *identity) state() string {
	var b strings.Builder
	fmt.Fprint(&b, v.claim, v.two)
	for _, r := range v.runs {
		_, missing := v.missing(r)
		fmt.Fprint(&b, r.Boot, len(r.after), missing)
	}
	return b.String()
}

// Met notes that a handshake with a node is complete which began at begun; address is
// where it was dialled, or "". It returns the boots of the node's other runs whose
// connections are to be closed, so that those who are alive say so.
func (h *Holders) Met(id string, run Run, begun time.Duration, address string) (others []string) {
	h.mu.Lock()
	v := h.of(id)
	before := v.state()
	r := v.find(run.Boot)
	if r == nil {
		r = v.add(run, h.now())
		for _, o := range v.runs {
			if o != r {
				others = append(others, o.Boot)
			}
		}
	}
	for _, o := range v.runs {
		if o != r && o.since < begun {
			r.after[o.Boot] = true
		}
	}
	if address != "" && !slices.Contains(r.addresses, address) {
		r.addresses = append(r.addresses, address)
	}
	h.selfAliveLocked()
	v.judge()
	changed := v.state() != before
	h.mu.Unlock()
	if changed {
		h.news()
	}
	return others
}

// selfAliveLocked: this process is alive after every other one of its name that it
// knows of.
func (h *Holders) selfAliveLocked() {
	v := h.ids[h.self]
	mine := v.find(h.Run.Boot)
	if mine == nil {
		mine = v.add(h.Run, h.now())
	}
	for _, o := range v.runs {
		if o != mine {
			mine.after[o.Boot] = true
		}
	}
}

// Learn takes over what another node knows. It returns, by node, the boots whose
// connections are to be closed.
func (h *Holders) Learn(notes map[string]IdentityNote, member func(id string) bool) (others map[string][]string) {
	others = make(map[string][]string)
	h.mu.Lock()
	now, changed := h.now(), false
	for i, id := range slices.Sorted(maps.Keys(notes)) {
		if i >= maxIdentities || !member(id) {
			continue
		}
		note := notes[id]
		v := h.of(id)
		before := v.state()
		var fresh []*holding
		for k, n := range note.Runs {
			if k >= maxRuns || !bootText.MatchString(n.Boot) || n.Claim > MaxTerm || len(n.After) > maxRuns {
				continue
			}
			r := v.find(n.Boot)
			if r == nil {
				r = v.add(n.Run, now)
				fresh = append(fresh, r)
			}
			if n.Acknowledged.Sane() && n.Prior.Sane() {
				r.acked, r.prior, r.back = r.acked.or(n.Acknowledged), r.prior.or(n.Prior), r.back || n.Back
			}
			for _, o := range n.After {
				if bootText.MatchString(o) && o != n.Boot && (len(r.after) < 4*maxRuns || r.after[o]) {
					r.after[o] = true
				}
			}
		}
		if id == h.self {
			h.selfAliveLocked()
		}
		v.judge()
		for _, r := range fresh {
			if v.past(r) {
				continue
			}
			for _, o := range v.runs {
				if o != r {
					others[id] = append(others[id], o.Boot)
				}
			}
		}
		changed = changed || v.state() != before
	}
	h.mu.Unlock()
	if changed {
		h.news()
	}
	return others
}

// Acknowledged notes how far a run of a node is known to have come. A later one that
// starts with less on its disk has lost some of it. An empty boot stands for the run
// that is there now: nothing is noted where that is not known, as a run that is taken
// for a later one would have lost what it has acknowledged itself.
func (h *Holders) Acknowledged(id, boot string, p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.ids[id]
	if v == nil || !p.Sane() {
		return
	}
	if boot == "" {
		boot = v.only()
	}
	if r := v.find(boot); r != nil {
		r.acked = r.acked.or(p)
	}
}

// Lost notes that the run of a node that is there now has less than it had acknowledged.
func (h *Holders) Lost(id string) {
	h.mu.Lock()
	news := false
	if v := h.ids[id]; v != nil {
		if r := v.find(v.only()); r != nil {
			news = !r.back
			r.back = true
		}
	}
	h.mu.Unlock()
	if news {
		h.news()
	}
}

// Remember takes over what was known of a node before this process started.
func (h *Holders) Remember(id string, p Past) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.of(id); bootText.MatchString(p.Boot) && v.find(p.Boot) == nil {
		v.add(p.Run, h.now()).acked = p.Acknowledged
	}
}

// Pasts returns what is to be remembered of each node.
func (h *Holders) Pasts() map[string]Past {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]Past)
	for id, v := range h.ids {
		if r := v.find(v.newest()); r != nil && id != h.self {
			p := Past{r.Run, r.acked.or(r.prior)}
			for _, o := range v.runs {
				if r.follows(o) {
					p.Acknowledged = p.Acknowledged.or(o.acked).or(o.prior)
				}
			}
			out[id] = p
		}
	}
	return out
}

// Claimed notes a claim that is in the replicated state.
func (h *Holders) Claimed(id string, claim uint64) {
	h.mu.Lock()
	v := h.of(id)
	changed := claim > v.claim
	v.claim = max(v.claim, claim)
	h.mu.Unlock()
	if changed {
		h.news()
	}
}

// Claim returns the newest claim to an identity that is known.
func (h *Holders) Claim(id string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.ids[id]; v != nil {
		return v.claim
	}
	return 0
}

// Barred says why a process may not speak for its node in Raft, or returns nil. An
// empty boot stands for the process that is there now, whichever it is.
func (h *Holders) Barred(id, boot string) *Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.ids[id]
	if v == nil {
		return nil
	}
	return h.barredLocked(id, v, boot)
}

const (
	hintHolders = `stop raftvip on all machines but one; there run "raftvip node move-here" before you start it again`
	hintBack    = `stop its daemon, clear its data dir, and join again under the same name: raftvip join --replace`
)

func (h *Holders) barredLocked(id string, v *identity, boot string) *Finding {
	if boot == "" {
		boot = v.newest()
	}
	r := v.find(boot)
	if r != nil && v.two <= v.claim && r.Claim >= v.claim {
		if acked, missing := v.missing(r); missing {
			return &Finding{Node: id, Kind: FindingBack, Text: fmt.Sprintf("it was put back to an older state: its disk ended at entry %d and term %d, and it had acknowledged entry %d and term %d",
				r.Start.Index, r.Start.Term, acked.Index, acked.Term), Hint: hintBack}
		}
	}
	switch {
	case v.two > v.claim:
		return &Finding{Node: id, Kind: FindingTwo, Text: "two processes hold its identity at the same time: its data dir was copied, or its machine", Hint: hintHolders}
	case r == nil:
		return nil
	case r.Claim < v.claim:
		return &Finding{Node: id, Kind: FindingMoved, Text: "its identity was moved to another machine", Hint: "stop this daemon and clear its data dir; if the identity belongs here, run \"raftvip node move-here\""}
	case boot != "" && v.past(r):
		return &Finding{Node: id, Kind: FindingTwo, Text: "a later process holds its identity", Hint: hintHolders}
	}
	return nil
}

// Findings returns what is wrong with whom now, by node ID.
func (h *Holders) Findings() []Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Finding
	for _, id := range slices.Sorted(maps.Keys(h.ids)) {
		if f := h.barredLocked(id, h.ids[id], ""); f != nil {
			out = append(out, *f)
			continue
		}
		if id != h.self {
			continue
		}
		if f := h.barredLocked(id, h.ids[id], h.Run.Boot); f != nil {
			out = append(out, *f)
		}
	}
	return out
}

// Notes is what this node tells others.
func (h *Holders) Notes() map[string]IdentityNote {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]IdentityNote, len(h.ids))
	for id, v := range h.ids {
		var note IdentityNote
		for _, r := range v.runs {
			n := HolderNote{Run: r.Run, Acknowledged: r.acked, Prior: r.prior, Back: r.back}
			for _, o := range v.runs { // what is forgotten is not told
				if r.after[o.Boot] {
					n.After = append(n.After, o.Boot)
				}
			}
			note.Runs = append(note.Runs, n)
		}
		out[id] = note
	}
	return out
}

// Unsettled returns, by node, the addresses at which runs of it answered that may
// still be alive beside another one.
func (h *Holders) Unsettled() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string][]string)
	for id, v := range h.ids {
		if len(v.runs) < 2 || v.two > v.claim {
			continue
		}
		for _, r := range v.runs {
			for _, a := range r.addresses {
				if !slices.Contains(out[id], a) {
					out[id] = append(out[id], a)
				}
			}
		}
	}
	return out
}

// KeepOnly forgets nodes that are no members.
func (h *Holders) KeepOnly(member func(id string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.ids, func(id string, _ *identity) bool {
		return id != h.self && !member(id)
	})
}
