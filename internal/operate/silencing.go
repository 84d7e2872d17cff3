package operate

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
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
func refuseSilence(s *state.State, nodes []policy.Node, owner, id, what, where string, force bool) error {
	if force || countAddresses(s.Instances) == 0 {
		return nil
	}
	if others, last := lastEligible(nodes, id, owner); last {
		return state.Refuse(state.CodeSilences, silenceHint,
			"%s would silence all addresses%s: no other node may own (%s)", what, where, others)
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

// unfit says why this node could not own with a file, as far as its addresses have no
// interface.
func (srv *Server) unfit(s *state.State, c *config.Config) map[netip.Addr]string {
	out := make(map[netip.Addr]string)
	for _, p := range place.Resolve(place.Proposal(s.Instances, place.InstancesOf(c)), c, srv.Links.Current(), new(place.Sites)) {
		if p.Err != nil {
			out[p.Address.Prefix.Addr()] = p.Err.Error()
		}
	}
	return out
}

// RefuseUnfit refuses a file with which this node could own no more, if it is the last
// one that may, with state.CodeSilences.
func (srv *Server) RefuseUnfit(c *config.Config, force bool) error {
	if srv.Node == nil || srv.Places == nil || force {
		return nil
	}
	s := srv.Node.State()
	had, why := srv.unfit(s, srv.File()), ""
	for ip, text := range srv.unfit(s, c) {
		if had[ip] == "" {
			why = text
		}
	}
	if why == "" {
		return nil
	}
	self := srv.Node.Self()
	hints := srv.Hints.Seen()
	connected := func(id string) bool { return hints[id].Known && hints[id].Age < aliveAge }
	for _, t := range srv.Seats() {
		nodes := srv.candidates(t, hints, connected)
		if err := refuseSilence(t.State(), nodes, srv.ownerID(t), self.NodeID, "to take this file ("+why+")", "", false); err != nil {
			return err
		}
	}
	return nil
}
