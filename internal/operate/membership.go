package operate

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/owner"
)

// transfer hands a group to a node.
func (srv *Server) transfer(ctx context.Context, in api.TransferRequest) (api.TransferResult, error) {
	started := time.Now()
	r := &owner.Request{Reason: "requested with raftvip transfer", Manual: !in.Preemptible}
	if in.Reason != "" {
		r.Reason = in.Reason
	}
	if len(in.Reason) > maxHistoryText {
		return api.TransferResult{}, state.Refuse(state.CodeBadRequest, "", "reason: must be at most %d bytes", maxHistoryText)
	}
	s := srv.Node.State()
	if in.Node != "" {
		n, ok := s.NodeByName(in.Node)
		if !ok {
			return api.TransferResult{}, noNode(s, in.Node)
		}
		r.To = n.ID
	}
	t, err := srv.seat(in.Group)
	if err != nil {
		return api.TransferResult{}, err
	}
	if err := t.Owner.Move(ctx, r); err != nil {
		return api.TransferResult{}, err
	}
	return api.TransferResult{From: srv.Node.Self().Name, To: s.Nodes[r.Moved].Name, Took: time.Since(started).Seconds()}, nil
}

func noNode(s *state.State, name string) error {
	var names []string
	for _, n := range s.SortedNodes() {
		names = append(names, n.Name)
	}
	return state.Refuse(state.CodeNotFound, "the nodes are: "+strings.Join(names, ", "), "no node %s", name)
}

func (srv *Server) drain(ctx context.Context, in api.DrainRequest) (api.Done, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	s := srv.Node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if in.Drained && !n.Drained {
		if err := srv.refuseSilences(n.ID, "to drain "+n.Name, in.Force); err != nil {
			return api.Done{}, err
		}
	}
	if err := srv.Node.Apply(ctx, state.Command{Drain: &state.DrainCommand{NodeID: n.ID, Drained: in.Drained}}); err != nil {
		return api.Done{}, err
	}
	return api.Done{}, nil
}

func (srv *Server) nodeRemove(ctx context.Context, in api.NodeRequest) (api.Done, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	s := srv.Node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if n.ID == srv.Node.Self().NodeID {
		if len(s.Nodes) == 1 {
			return api.Done{}, state.Refuse(state.CodeLastVoter, "stop the daemon and delete its data dir to end the cluster",
				"%s is the only node of the cluster", n.Name)
		}
		return api.Done{}, state.Refuse(state.CodeLastVoter, `move the group first: raftvip transfer`, "%s leads the cluster now", n.Name)
	}
	if err := srv.awaitQuorumWithout(ctx, s, n); err != nil {
		return api.Done{}, err
	}
	if err := srv.refuseSilences(n.ID, "to remove "+n.Name, in.Force); err != nil {
		return api.Done{}, err
	}
	left := len(srv.voters(s))
	if srv.Node.Suffrages()[n.ID] == cluster.SuffrageVoter {
		left--
	}
	if err := srv.Node.Apply(ctx, state.Command{RemoveNode: &n.ID}); err != nil {
		return api.Done{}, err
	}
	done := api.Done{Message: n.Name + " is no member any more"}
	if text := SurvivalWarning(left); text != "" {
		done.Message += "; " + text
	}
	return done, nil
}

// newLeader is how long a leader is given to hear its voters: one that has just been
// elected, or handed the group, has heard of nobody.
const newLeader = time.Second

// awaitQuorumWithout refuses a removal after which, in some group, no majority of the voters
// would answer, or which the leader of a group would have to carry out without itself. It
// bears with a new leader, and with a group that follows the removal before.
func (srv *Server) awaitQuorumWithout(ctx context.Context, s *state.State, removed state.NodeRecord) error {
	bounded, cancel := context.WithTimeout(ctx, newLeader)
	defer cancel()
	for {
		err := srv.refuseWithout(s, removed)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-bounded.Done():
			return err
		}
	}
}

func (srv *Server) refuseWithout(s *state.State, removed state.NodeRecord) error {
	if err := srv.refuseLeader(s, removed); err != nil {
		return err
	}
	for _, id := range srv.Node.Groups() {
		voters := srv.votersIn(s, id)
		if len(voters) == 0 {
			continue // nothing of it is here yet
		}
		if silent, ok := quorumWithout(voters, removed.Name); !ok {
			return noMajorityWithout(s, removed.Name, id, silent)
		}
	}
	return nil
}

// refuseLeader keeps a group from losing its leader and, of two voters, the vote that the
// next leader would need. One that does not answer leads nothing any more. The default
// group's leader is who removes.
func (srv *Server) refuseLeader(s *state.State, removed state.NodeRecord) error {
	if ago, ok := srv.leadership().Contact(removed.ID); !ok || ago >= max(s.Heartbeat.Current, time.Second) {
		return nil
	}
	for _, t := range srv.Seats() {
		if t.ID != state.DefaultGroup && t.Group.Standing().LeaderID == removed.ID {
			return state.Refuse(state.CodeLastVoter, "move it first: raftvip transfer -g "+t.Name, "%s leads group %s now", removed.Name, t.Name)
		}
	}
	return nil
}

func noMajorityWithout(s *state.State, name, group string, silent []string) error {
	where, hint := "", "bring these back, or remove them first: raftvip node remove "+silent[0]
	if group != state.DefaultGroup {
		where = " of group " + s.GroupName(group)
	}
	if _, member := s.NodeByName(silent[0]); !member {
		hint = "try again: those that were removed are about to lose their votes"
	}
	return state.Refuse(state.CodeLastVoter, hint,
		"without %s no majority of the voters%s would answer: %s silent", name, where, strings.Join(silent, ", "))
}

// voters tells of each voter of the default group, by name, whether it answers this leader.
func (srv *Server) voters(s *state.State) map[string]bool { return srv.votersIn(s, state.DefaultGroup) }

// votersIn tells it of those of any group.
func (srv *Server) votersIn(s *state.State, group string) map[string]bool {
	return answering(s, srv.Node.Self().NodeID, srv.Node.SuffragesIn(group), srv.leadership().Contact)
}

// answering tells of each voter, by name, whether it answers. One that was removed, and that
// Raft has not removed yet, is cut off.
func answering(s *state.State, self string, suffrages map[string]cluster.Suffrage, contact func(id string) (time.Duration, bool)) map[string]bool {
	out := make(map[string]bool)
	for id, suffrage := range suffrages {
		if suffrage != cluster.SuffrageVoter {
			continue
		}
		node, member := s.Nodes[id]
		if !member {
			out[id] = false
			continue
		}
		ago, ok := contact(id)
		out[node.Name] = id == self || ok && ago < max(s.Heartbeat.Current, time.Second)
	}
	return out
}

// quorumWithout tells whether the voters that answer are a majority of those that
// are left when one is removed, and who is silent. Raft acts on a membership from
// the moment it is proposed: without that majority nobody could ever confirm it.
func quorumWithout(voters map[string]bool, removed string) (silent []string, ok bool) {
	left, answering := 0, 0
	for name, answers := range voters {
		switch {
		case name == removed:
			continue
		case answers:
			answering++
		default:
			silent = append(silent, name)
		}
		left++
	}
	slices.Sort(silent)
	return silent, 2*answering > left
}

func (srv *Server) nodePromote(ctx context.Context, in api.NodeRequest) (api.Done, error) {
	s := srv.Node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if srv.Node.Suffrages()[n.ID] == cluster.SuffrageVoter {
		return api.Done{Message: n.Name + " is a voter already"}, nil
	}
	if !slices.ContainsFunc(srv.Node.Reports(), func(r cluster.SeenReport) bool {
		return r.NodeID == n.ID && r.Age < aliveAge && r.Applied >= s.Version
	}) {
		return api.Done{}, state.Refuse(state.CodeNotReady, "start its daemon; it votes by itself once it has caught up",
			"%s does not answer or does not have the whole state yet, and as a voter it could cost the cluster its majority", n.Name)
	}
	if err := srv.Node.Promote(n); err != nil {
		return api.Done{}, err
	}
	return api.Done{Message: n.Name + " is a voter now"}, nil
}

// stay takes back that this node leaves.
func (srv *Server) stay() {
	for _, t := range srv.Seats() {
		t.Owner.Stay()
	}
}

// leaveCluster removes this node and stops the daemon.
func (srv *Server) leaveCluster(ctx context.Context, in api.LeaveRequest) (api.Done, error) {
	self := srv.Node.Self()
	s := srv.Node.State()
	if srv.leadership().Standing().Leading && len(s.Nodes) > 1 {
		if err := srv.awaitQuorumWithout(ctx, s, s.Nodes[self.NodeID]); err != nil {
			return api.Done{}, err
		}
		if err := srv.refuseSilences(self.NodeID, "to leave", in.Force); err != nil {
			return api.Done{}, err
		}
	}
	// The default group last: its leader removes this node.
	for _, t := range slices.Backward(srv.Seats()) {
		if !t.Group.Standing().Leading || len(s.Nodes) < 2 {
			continue
		}
		r := &owner.Request{Reason: self.Name + " leaves the cluster", Leaves: true, Anyone: in.Force}
		if err := t.Owner.Move(ctx, r); err != nil {
			srv.stay()
			return api.Done{}, err
		}
	}
	done, err := askLeader(ctx, srv, api.PathRemove, api.NodeRequest{Node: self.NodeID, Force: in.Force}, srv.nodeRemove)
	if err != nil {
		srv.stay()
		return done, err
	}
	srv.Log.Info("left the cluster")
	time.AfterFunc(50*time.Millisecond, srv.Leave)
	return done, nil
}
