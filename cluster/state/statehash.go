package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/raftvip/raftvip/cluster/identity"
)

// keptStates is how many states are kept for comparison: a report is some seconds old,
// and states follow one another in bursts.
const keptStates = 32

// A Divergence compares this node's replicated state with what others report of theirs
// at the same entry of the log. States that differ were made of different logs: some
// node has forgotten what it had acknowledged, and followed another leader.
type Divergence struct {
	Self string

	mu    sync.Mutex
	kept  []keptState // oldest first
	found map[string]identity.Finding
}

type keptState struct {
	index uint64
	state *State
	sum   string // "" until it is asked for
}

// Keep remembers the state after an entry of the log.
func (d *Divergence) Keep(index uint64, s *State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := len(d.kept); k > 0 && d.kept[k-1].index >= index {
		d.kept = nil // a snapshot went back
	}
	if len(d.kept) >= keptStates {
		d.kept = slices.Delete(d.kept, 0, 1)
	}
	d.kept = append(d.kept, keptState{index: index, state: s})
}

// Newest returns the newest entry and the hash of the state after it.
func (d *Divergence) Newest() (index uint64, sum string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.kept) == 0 {
		return 0, ""
	}
	k := &d.kept[len(d.kept)-1]
	return k.index, k.sumLocked()
}

func (k *keptState) sumLocked() string {
	if k.sum == "" {
		k.sum = k.state.hash()
	}
	return k.sum
}

// Compare takes what another node reports, and tells whether that is news.
func (d *Divergence) Compare(node, name string, index uint64, sum string) bool {
	if sum == "" || node == d.Self {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.kept, func(k keptState) bool { return k.index == index })
	if i < 0 {
		return false
	}
	_, known := d.found[node]
	if d.kept[i].sumLocked() == sum {
		delete(d.found, node)
		return known
	}
	if known {
		return false
	}
	if d.found == nil {
		d.found = make(map[string]identity.Finding)
	}
	d.found[node] = identity.Finding{
		Node: node, Kind: identity.FindingDiverged,
		Text: fmt.Sprintf("the replicated state of %s is another one than this node's after the same entry %d", name, index),
		Hint: `compare "raftvip vip list" on all nodes; the node that differs from the others is to clear its data dir and join again: raftvip join --replace`,
	}
	return true
}

// KeepOnly forgets nodes that are no members.
func (d *Divergence) KeepOnly(nodes map[string]NodeRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.found, func(id string, _ identity.Finding) bool { _, ok := nodes[id]; return !ok })
}

func (d *Divergence) Findings() []identity.Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.SortedFunc(maps.Values(d.found), func(a, b identity.Finding) int { return cmp.Compare(a.Node, b.Node) })
}

// hash is the same on all nodes with the same state, whatever way they came to it.
func (s *State) hash() string {
	c := *s
	c.Format = 0 // what a snapshot was written in, not what it says
	b, err := json.Marshal(&c)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}
