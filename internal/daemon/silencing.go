package daemon

import (
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/policy"
)

// What an operator asks for may leave nobody who answers. That is refused unless it
// was asked for with --force: a typing error, or the second node of two in one
// maintenance, is more likely than the wish.

// silenceHint is what the operator can do instead.
const silenceHint = `let another node own first (see "raftvip status"), or repeat with --force`

// lastEligible tells whether a node is the only one that may own, and if so, what
// keeps the others from it. A node that may not own is no last one: the addresses do
// not depend on it.
func lastEligible(nodes []policy.Node, id, owner string) (others string, last bool) {
	counts := false
	var why []string
	for _, n := range nodes {
		if n.ID == owner {
			n.Ready = true // it goes on while its checks begin anew after a reload
		}
		ok, reason := policy.Eligible(n)
		switch {
		case n.ID == id:
			counts = ok
		case ok:
			return "", false
		default:
			why = append(why, n.Name+" "+reason)
		}
	}
	if len(why) == 0 {
		why = []string{"it is the only node"}
	}
	slices.Sort(why)
	return strings.Join(why, "; "), counts
}

// refuseSilence refuses what would take the last node that may own, unless there is
// no address or the operator insists.
func refuseSilence(s *state.State, nodes []policy.Node, owner, id, what string, force bool) error {
	if force || countAddresses(s.Instances) == 0 {
		return nil
	}
	if others, last := lastEligible(nodes, id, owner); last {
		return state.Refuse(state.CodeSilences, silenceHint,
			"%s would silence all addresses: no other node may own (%s)", what, others)
	}
	return nil
}

// refuseEmpty refuses a list of instances without an address where there were some.
func refuseEmpty(have, want []state.Instance, what string, force bool) error {
	before := countAddresses(have)
	if force || before == 0 || countAddresses(want) > 0 {
		return nil
	}
	which := "the only virtual address"
	if before > 1 {
		which = "all virtual addresses"
	}
	return state.Refuse(state.CodeSilences, "add another address first, or repeat with --force",
		"%s would take away %s: %s", what, which, strings.Join(addressTexts(have), ", "))
}

func countAddresses(instances []state.Instance) int {
	n := 0
	for _, in := range instances {
		n += len(in.Addresses)
	}
	return n
}

// maxAddresses is how many addresses a sentence names.
const maxAddresses = 5

func addressTexts(instances []state.Instance) []string {
	var out []string
	for _, in := range instances {
		for _, a := range in.Addresses {
			if len(out) == maxAddresses {
				return append(out, "...")
			}
			out = append(out, a.Prefix.Addr().String())
		}
	}
	return out
}

// electable are the members as the leader's policy sees them, for requests of
// operators.
func (d *Daemon) electable(s *state.State) []policy.Node {
	group := d.node.Group(state.DefaultGroup)
	connected := func(id string) bool {
		ago, ok := group.Contact(id)
		return ok && ago < max(s.Heartbeat.Current, time.Second)
	}
	return d.candidates(s, d.seen(), connected)
}

// ownerID is the node that owns, as this leader knows it, or "".
func (d *Daemon) ownerID() string {
	if d.owner.View().Owning {
		return d.node.Self().NodeID
	}
	return ""
}
