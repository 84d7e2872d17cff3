package cluster

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

// TestEndedGroupDoesNotBeginAnew: a node that starts again goes through the states of
// before. A group of which it has removed everything must not begin again then: without
// the log and the votes of before, it could help a node that has not heard of the end to
// own what others own by now.
func TestEndedGroupDoesNotBeginAnew(t *testing.T) {
	nodes, _ := threeNodes(t)
	all := nodes[:]
	configure(t, all, instancesIn("default", "default"))
	configure(t, all, instancesIn("a", "default"))
	eventually(t, "a has its list", func() bool {
		return listed(all, map[string]string{"a": "192.0.2.1 ", "default": "192.0.2.2 "})
	})
	node := all[0]
	if node == leading(all...) {
		node = all[1]
	}
	eventually(t, "the node has a", func() bool { return len(node.State().Groups) == 1 && len(node.Groups()) == 2 })
	before, servers := node.State(), node.group.Configuration()
	var id string
	for id = range before.Groups {
	}
	configure(t, all, instancesIn("default", "default"))
	eventually(t, "a has ended", func() bool { return len(node.State().Groups) == 0 && len(node.Groups()) == 1 })
	for _, m := range all {
		m.stop()
	}

	// As Raft would have written it at that time.
	data, err := store.OpenDataDir(node.dir)
	if err != nil {
		t.Fatal(err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(data.GroupDir(state.DefaultGroup), 2, raftlog.New(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	sink, err := snapshots.Create(1, before.Version, 2, servers, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(sink).Encode(before); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := openMember(t, node.dir, node.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := again.State().Groups[id]; !ok {
		t.Fatalf("the node does not start with the state of before: version %d, %+v", again.State().Version, again.State().Groups)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if again.Group(id) != nil {
			t.Fatal("the group begins anew")
		}
	}
}
