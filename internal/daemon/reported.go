package daemon

import (
	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/internal/hint"
)

// reported are the members' reports as far as their hints go.
func reported(reports []cluster.SeenReport) []hint.Report {
	out := make([]hint.Report, len(reports))
	for i, r := range reports {
		out[i] = hint.Report{NodeID: r.NodeID, Raw: r.Hint, Age: r.Age, Offset: r.ClockOffset, Applied: r.Applied}
	}
	return out
}

// votes tells of a node whether it is a voter.
func votes(suffrages map[string]cluster.Suffrage) func(nodeID string) bool {
	return func(id string) bool { return suffrages[id] == cluster.SuffrageVoter }
}

// seen is what the newest reports say, by node ID.
func (d *Daemon) seen() map[string]hint.Seen { return d.hints.Read(reported(d.node.Reports())) }
