package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestReloadOwnership: a reload takes who owns what from a file into the cluster, and back.
// A file that does not say it follows, one that says otherwise is told, and refused where
// it would undo that.
func TestReloadOwnership(t *testing.T) {
	c := newCluster(t, setup{nodes: 3})
	vip5 := c.Lab.VIP4(101)
	file := func(n *Node, ownership string, more ...string) {
		t.Helper()
		text := fmt.Sprintf("raft {\n%s\n}\n", ownership)
		for i, a := range []any{vip4, vip5} {
			text += fmt.Sprintf("vrrp_instance v%d {\n    interface eth0\n    virtual_router_id %d\n    virtual_ipaddress { %v/24 }\n}\n", i, 51+i, a)
		}
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", text+strings.Join(more, "")))
	}
	for _, n := range c.Nodes {
		file(n, "")
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	must(t, c.WaitHeldBy(bounded(t, 10*time.Second), o, vip5))
	n, third := c.Others(o)[0], c.Others(o)[1]

	reload := func(n *Node, want ...string) {
		t.Helper()
		var r api.ReloadResult
		must(t, n.JSON(t.Context(), &r, "reload"))
		if !slices.Equal(r.Changes, want) {
			t.Errorf("reload: got %q, want %q", r.Changes, want)
		}
	}
	drift := func(n *Node, want string) {
		t.Helper()
		testnet.MustWait(t, 10*time.Second, "drift of "+n.Name, func() error {
			st, err := n.Status(t.Context())
			if err == nil && ((want == "") != (len(st.Config.Drift) == 0) || !strings.Contains(strings.Join(st.Config.Drift, "; "), want)) {
				err = fmt.Errorf("got %q, want %q", st.Config.Drift, want)
			}
			return err
		})
	}
	file(third, "ownership together")
	reload(third)
	file(n, "ownership separate")
	reload(n, "instance v0: ownership group changed from default to v0", "instance v1: ownership group changed from default to v1")
	drift(n, "")
	drift(o, "") // its file does not say
	reload(o)
	drift(n, "")

	fails(t, third, 9, []string{"the file would undo changes of the cluster", "instance v0: ownership group changed from default to v0", "--force"}, "reload")
	drift(third, "instance v0: ownership group is default in the file, v0 in the cluster")

	// What no file names stays where it is.
	run(t, n, "vip", "add", "10.99.0.107/24@eth0", "--instance", "more")
	file(n, "ownership separate", "vrrp_sync_group more { group { v0 v1 } }\n")
	fails(t, n, 1, []string{"instance v0 would come into ownership group more", "give the vrrp_sync_group another name"}, "reload")
	file(n, "ownership together")
	reload(n, "instance v0: ownership group changed from v0 to default", "instance v1: ownership group changed from v1 to default")
	drift(third, "")
	drift(o, "")
	file(o, "ownership together")
	reload(o)
	testnet.MustWait(t, 20*time.Second, "one owner of both", func() error {
		first, err := c.Holders(vip4)
		if err != nil {
			return err
		}
		second, err := c.Holders(vip5)
		if err == nil && (len(first) != 1 || !slices.Equal(first, second)) {
			err = fmt.Errorf("%v and %v", first, second)
		}
		return err
	})
}
