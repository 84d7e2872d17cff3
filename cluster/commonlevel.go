package cluster

import "github.com/raftvip/raftvip/cluster/state"

// commonLevel returns the lowest level of all members, and their IDs, if each of them
// has said of late what it understands; else 0.
func commonLevel(s *state.State, self string, reports map[string]SeenReport) (level int, ids []string) {
	level = state.FeatureLevel
	for id := range s.Nodes {
		ids = append(ids, id)
		if id == self {
			continue
		}
		r, ok := reports[id]
		if !ok || r.Age >= reportFresh {
			return 0, nil
		}
		level = min(level, max(r.Level, 1))
	}
	return level, ids
}
