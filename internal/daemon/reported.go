package daemon

import (
	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/policy"
)

// reported are the members' reports as far as their hints go.
func reported(reports []cluster.SeenReport) []hintReport {
	out := make([]hintReport, len(reports))
	for i, r := range reports {
		out[i] = hintReport{nodeID: r.NodeID, raw: r.Hint, age: r.Age, offset: r.ClockOffset, applied: r.Applied}
	}
	return out
}

// votes tells of a node whether it is a voter.
func votes(suffrages map[string]cluster.Suffrage) func(nodeID string) bool {
	return func(id string) bool { return suffrages[id] == cluster.SuffrageVoter }
}

// seen is what the newest reports say, by node ID.
func (d *Daemon) seen() map[string]seenHint { return d.hints.read(reported(d.node.Reports())) }

// candidates are the members as the policy sees them. connected tells whether a node
// answers.
func (d *Daemon) candidates(s *state.State, hints map[string]seenHint, connected func(nodeID string) bool) []policy.Node {
	return candidates(s, d.node.Self().NodeID, hints, votes(d.node.Suffrages()), connected, false)
}
