package operate

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
)

// An Owner is what owns a group's addresses: an owner.Owner.
type Owner interface {
	View() owner.View
	// Move hands the group over, and returns when that is done or cannot be.
	Move(context.Context, *owner.Request) error
	// Stay takes back that this node leaves.
	Stay()
}

// A Group is looked at, and not acted for: a group.Group.
type Group interface {
	Standing() group.Standing
	Contact(nodeID string) (time.Duration, bool)
}

// A Seat is this node's in one ownership group.
type Seat struct {
	ID, Name string
	Group    Group
	Owner    Owner
	// Kept has the group's addresses.
	Kept interface{ Status() vip.Status }
	// State is the cluster's, with the instances of the group and its history.
	State func() *state.State
	// Report is what the checks say about the group's instances.
	Report func() check.Report
	// Apply commits to the group's log; only its leader can.
	Apply func(context.Context, state.Command) error
}

// base is the seat in the default group, whose leader leads the cluster.
func (srv *Server) base() Seat { return srv.Seats()[0] }

// named is how a request to another member names the group: the default one not at all, so
// that programs that know of no other understand it.
func (t Seat) named() string {
	if t.ID == state.DefaultGroup {
		return ""
	}
	return t.ID
}

// leadership is the default group's.
func (srv *Server) leadership() Group { return srv.base().Group }

// shown are the seats that operators are told of: the default group's only where it has
// addresses, or is the only one.
func (srv *Server) shown() []Seat {
	all := srv.Seats()
	if len(all) > 1 && countAddresses(all[0].State().Instances) == 0 {
		return all[1:]
	}
	return all
}

// seat finds a group by its ID.
func (srv *Server) seat(id string) (Seat, error) {
	if id == "" {
		return srv.base(), nil
	}
	for _, t := range srv.Seats() {
		if t.ID == id {
			return t, nil
		}
	}
	return Seat{}, state.Refuse(state.CodeNotFound, "", "no group %.80q runs here", id)
}

// choose finds the group that an operator names. Without a name it is the only one that
// there is to be told of.
func (srv *Server) choose(name string) (Seat, error) {
	var names []string
	shown := srv.shown()
	for _, t := range shown {
		names = append(names, t.Name)
	}
	if name == "" {
		if len(shown) == 1 {
			return shown[0], nil
		}
		return Seat{}, state.Refuse(state.CodeBadRequest, "name one with -g: "+strings.Join(names, ", "), "there are %d groups, each with an owner of its own", len(shown))
	}
	for _, t := range srv.Seats() {
		if t.Name == name || t.ID == name {
			return t, nil
		}
	}
	return Seat{}, state.Refuse(state.CodeNotFound, "the groups are: "+strings.Join(names, ", "), "no group %.80q", name)
}

// candidates are the members as the policy sees them in a group. connected tells whether
// a node answers.
func (srv *Server) candidates(t Seat, hints map[string]hint.Seen, connected func(nodeID string) bool) []policy.Node {
	suffrages := srv.Node.SuffragesIn(t.ID)
	votes := func(id string) bool { return suffrages[id] == cluster.SuffrageVoter }
	return hint.Candidates(t.State(), t.ID, srv.Node.Self().NodeID, hint.In(t.ID, hints), votes, connected, false)
}

// electable are the members as the policy of a group's leader sees them, as far as this
// leader of the default group knows, for requests of operators.
func (srv *Server) electable(t Seat) []policy.Node {
	s, leads := srv.Node.State(), srv.leadership()
	connected := func(id string) bool {
		ago, ok := leads.Contact(id)
		return ok && ago < max(s.Heartbeat.Current, time.Second)
	}
	return srv.candidates(t, srv.Hints.Seen(), connected)
}

// ownerID is the node that owns in a group, as far as this node knows without asking, or "".
func (srv *Server) ownerID(t Seat) string {
	if t.Owner.View().Owning {
		return srv.Node.Self().NodeID
	}
	if standing := t.Group.Standing(); hint.Owns(hint.In(t.ID, srv.Hints.Seen()))(standing.LeaderID, standing.Term) {
		return standing.LeaderID
	}
	return ""
}

// refuseSilences refuses what would take the last node that may own in some group.
func (srv *Server) refuseSilences(id, what string, force bool) error {
	all := srv.Seats()
	for _, t := range all {
		where := ""
		if len(all) > 1 {
			where = " of group " + t.Name
		}
		if err := refuseSilence(t.State(), srv.electable(t), srv.ownerID(t), id, what, where, force); err != nil {
			return err
		}
	}
	return nil
}

// inGroup carries a request out here, if this node leads the group, or at its leader. The
// request names the group by its ID.
func inGroup[In, Out any](ctx context.Context, srv *Server, t Seat, path string, in In, here func(context.Context, In) (Out, error)) (Out, error) {
	return askWho(ctx, srv, func() (bool, string, error) {
		standing := t.Group.Standing()
		if standing.Leading {
			return true, "", nil
		}
		if t.ID == state.DefaultGroup {
			return false, srv.Node.LeaderAddress(), srv.noLeader()
		}
		err := state.Refuse(state.CodeNoLeader, `see "raftvip status", and try again`, "this node knows no leader of group %s now", t.Name)
		return false, srv.Node.State().Nodes[standing.LeaderID].Address, err
	}, path, in, here)
}

// eachSeat calls f for all seats that are shown at the same time, and returns when all
// calls have: each may ask another node.
func eachSeat[T any](seats []Seat, f func(Seat) T) []T {
	out := make([]T, len(seats))
	var all sync.WaitGroup
	for i, t := range seats {
		all.Go(func() { out[i] = f(t) })
	}
	all.Wait()
	return out
}

// problemsFirst orders groups by how badly they are off, and keeps their order otherwise.
func problemsFirst(groups []api.Group) {
	rank := func(g api.Group) int {
		switch {
		case g.Owner == "" && !g.Unknown && len(g.Addresses) > 0:
			return 0
		case g.Unknown:
			return 1
		case g.State == "fault" || g.NotRemoved > 0 || slices.ContainsFunc(g.Addresses, func(a api.Address) bool { return a.Problem != "" }):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(groups, func(a, b api.Group) int { return rank(a) - rank(b) })
}
