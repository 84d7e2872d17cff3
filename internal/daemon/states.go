package daemon

import (
	"reflect"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/place"
)

// joinStates is what an owner acts on: the cluster's members and settings, which are in
// the default group's log, with what a group's own log says that it may own, and its
// history. Without a list there is nothing to act on yet.
func joinStates(id string, s, own *state.State) *state.State {
	if id == state.DefaultGroup {
		list := s.ListOf(id)
		if place.Same(list, s.Instances) {
			return s
		}
		joined := *s
		joined.Instances = list
		return &joined
	}
	joined := *s
	joined.Instances, joined.Moves, joined.ListVersion = own.Instances, own.Moves, own.ListVersion
	if own.ListVersion == 0 {
		joined.ClusterID = "" // not founded
	}
	return &joined
}

// sameList tells whether two lists of instances say the same.
func sameList(a, b []state.Instance) bool {
	return place.Same(a, b) || len(a) == len(b) && reflect.DeepEqual(a, b)
}
