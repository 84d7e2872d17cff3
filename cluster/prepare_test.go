package cluster

import (
	"context"
	"testing"

	"github.com/raftvip/raftvip/cluster/state"
)

// What takes long in a hand-over is done while the addresses are still up: the votes for
// the one that takes over are on the disks of a majority before the gate is shut.
func TestVotesAreOnDiskBeforeTheHandOver(t *testing.T) {
	all, _ := threeNodes(t)
	eventually(t, "votes written ahead", func() bool {
		leader := leading(all[:]...)
		if leader == nil {
			return false
		}
		to := all[0]
		if leader == to {
			to = all[1]
		}
		g := leader.Group(state.DefaultGroup)
		term := g.Standing().Term
		if err := g.Prepare(context.Background(), to.Self().NodeID); err != nil {
			t.Logf("prepare: %v", err) // on a busy machine the leader may have lost it
			return false
		}
		written := 0
		for _, m := range all {
			if m.votes.MayHaveVotedIn() == term+1 {
				written++
			}
		}
		return written >= 2
	})
}
