package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
)

// A file without instances, as beside "init --vip", still sets the timeout.
func TestReloadOfHeartbeatAlone(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	o := owner(t, c, nil)
	o.Config = get[string](t)(o.WriteFile("raftvip.conf", "raft {\n    heartbeat_timeout 500ms\n}\n"))
	get[time.Duration](t)(o.Stop())
	must(t, o.Start())
	owner(t, c, nil)
	if out := run(t, o, "reload"); !strings.Contains(out, "heartbeat_timeout changed from 300ms to 500ms") {
		t.Errorf("reload says %q", out)
	}
	_, err := c.WaitAgreed(bounded(t, 20*time.Second), o.Name, func(st api.Status) error {
		if st.Cluster.HeartbeatTimeout != 0.5 {
			return fmt.Errorf("heartbeat_timeout is %v s", st.Cluster.HeartbeatTimeout)
		}
		return nil
	})
	must(t, err)
	if out := run(t, o, "vip", "list"); !strings.Contains(out, vip4.String()) {
		t.Errorf("the addresses went: %q", out)
	}
}
