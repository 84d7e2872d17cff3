package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

// TestLeaderThatJoinedInOnesAbsence: a voter comes back that has never heard of the
// node that leads now, and knows the members of before from its snapshot.
func TestLeaderThatJoinedInOnesAbsence(t *testing.T) {
	all, secret := threeNodes(t)
	absent := all[2]
	eventually(t, "the voter has its state in a snapshot", func() bool {
		leader := leading(all[:]...)
		if leader == nil {
			return false
		}
		err := leader.Apply(context.Background(), state.Command{PutNode: new(leader.State().Nodes[leader.Self().NodeID])})
		t.Logf("applied: %v", err)
		return absent.group.Raft().Snapshot().Error() == nil
	})
	address := absent.Advertise()
	absent.stop()
	present := all[:2]
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	token := pki.NewToken(authority)
	record := state.TokenRecord{ID: token.ID, Hash: token.Hash(), Expires: time.Now().Add(time.Hour), Uses: 1}
	var leader *member
	eventually(t, "the token is known", func() bool {
		leader = leading(present...)
		return leader != nil && leader.Apply(context.Background(), state.Command{PutToken: &record}) == nil
	})
	newcomer := joinMember(t, "lb4", leader, token)
	id := newcomer.Self().NodeID
	eventually(t, "the newcomer leads", func() bool {
		if leader = leading(present...); leader != nil && leader.Suffrages()[id] == SuffrageVoter {
			err := leader.Group(state.DefaultGroup).Transfer(context.Background(), id, "test", false)
			t.Logf("handed over: %v", err)
		}
		return leading(newcomer) != nil
	})
	back, err := openMember(t, absent.dir, address)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the voter that was absent follows it", func() bool {
		_, knows := back.State().Nodes[id]
		return knows && back.Group(state.DefaultGroup).Standing().LeaderID == id
	})
	// It counts: three of the four are left.
	present[0].stop()
	eventually(t, "a lease", func() bool {
		leader = leading(newcomer, present[1], back)
		return leader != nil && leader.Group(state.DefaultGroup).Standing().LeaseUntil > 0
	})
}

// TestWhoMayLead: whom a node lets speak Raft to it.
func TestWhoMayLead(t *testing.T) {
	s := &state.State{
		ClusterID: "c", Nodes: map[string]state.NodeRecord{"member": {ID: "member"}},
		Removed: map[string]state.RemovedNode{"gone": {Name: "lb9"}},
	}
	for _, c := range []struct {
		name, node string
		state      *state.State
		here       group.Standing
		code       string
	}{
		{name: "a member", node: "member", state: s, here: group.Standing{LeaderID: "member"}},
		{name: "anybody before the state is known", node: "new", state: &state.State{}},
		{name: "a node that may have joined in this one's absence", node: "new", state: s},
		{name: "a stranger while a leader is heard", node: "new", state: s, here: group.Standing{LeaderID: "member"}, code: state.CodeNotMember},
		{name: "a stranger to the leader", node: "new", state: s, here: group.Standing{Leading: true}, code: state.CodeNotMember},
		{name: "a removed node", node: "gone", state: s, code: state.CodeRemoved},
	} {
		err := mayLead(c.state, c.node, c.here)
		switch {
		case c.code != "":
			refusedWith(t, err, c.code)
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
