package daemon

import (
	"testing"

	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
)

// Instances with "vrrp only" are none of the cluster's, and do not count there.
func TestSplitReport(t *testing.T) {
	c, _ := config.LoadBytes("x", []byte("vrrp_instance A {\nvirtual_router_id 1\n}\nvrrp_instance P {\nvrrp only\ninterface eth0\nvirtual_router_id 2\nversion 2\n}\n"),
		config.Options{HostName: "h"})
	if c == nil {
		t.Fatal("not loaded")
	}
	all := check.Combine([]check.InstanceReport{
		{Name: "A", Effective: 100, Ready: true}, {Name: "P", Effective: 50, Ready: false, Faults: []string{"bad"}},
	})
	group := splitReport(all, c, func(string) bool { return true })
	if group.Priority != 100 || !group.Ready || len(group.Faults) != 0 || len(group.Instances) != 1 {
		t.Errorf("group: %+v", group)
	}
	if none := splitReport(all, c, func(string) bool { return false }); len(none.Instances) != 0 || !none.Ready {
		t.Errorf("a group without instances in this file: %+v", none)
	}
	if got := place.InstancesOf(c); len(got) != 1 || got[0].Name != "A" {
		t.Errorf("the cluster's: %+v", got)
	}
	if needsNoCluster(c) {
		t.Error("this file needs a cluster")
	}
	c.Instances = c.Instances[1:]
	if !needsNoCluster(c) {
		t.Error("this file needs none")
	}
}
