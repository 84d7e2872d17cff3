package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// starve takes from a daemon the descriptors that it does not have yet, and returns
// how to give them back.
func starve(t *testing.T, n *Node) (end func()) {
	t.Helper()
	pid := n.Daemon().Pid()
	var old unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old))
	// Those that it has it keeps.
	short := unix.Rlimit{Cur: 0, Max: old.Max}
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &short, nil))
	return func() { must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil)) }
}

// TestOutOfDescriptors: an owner that is well stays owner when it has no descriptor
// left to run its checks and to look after its guard with; status says so.
func TestOutOfDescriptors(t *testing.T) {
	c := newCluster(t, setup{nodes: 3})
	for _, n := range c.Nodes {
		must(t, os.MkdirAll(n.Dir, 0o755))
		n.Config = filepath.Join(n.Dir, "raftvip.conf")
		must(t, os.WriteFile(n.Config, []byte(`global_defs {
	script_user root
}
vrrp_script chk_lb {
	script "/bin/true"
	interval 0.2
	fall 2
}
vrrp_instance VI_1 {
	interface eth0
	virtual_router_id 51
	priority 100
	virtual_ipaddress {
		`+vip4.String()+`/24 dev eth0
	}
	track_script {
		chk_lb
	}
}
`), 0o644))
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	p := get[*testnet.Prober](t)(c.Lab.StartProber(testnet.ProberOptions{VIPs: []netip.Addr{vip4}}))
	defer p.Stop()
	// All at once, as whatever takes descriptors on one may on all.
	var ends []func()
	for _, n := range c.Nodes {
		ends = append(ends, starve(t, n))
	}
	time.Sleep(8 * time.Second) // two periods of the guard's check, many of the script's
	for i, n := range c.Nodes {
		if !n.Running() {
			t.Errorf("%s has ended: %s", n.Name, n.Daemon().Tail(2000))
		}
		ends[i]()
	}
	st := status(t, o)
	if st.Groups[0].Owner != o.Name {
		t.Errorf("the owner is %q: %s", st.Groups[0].Owner, st.Groups[0].Why)
	}
	moves := get[[]api.Move](t)(o.History(t.Context()))
	if k := len(moves); k != 1 {
		t.Errorf("moves: %+v", moves)
	}
	for _, n := range c.Nodes {
		if out := n.Daemon().Output(); !strings.Contains(out, "too many open files") {
			t.Errorf("%s does not say what it lacks", n.Name)
		}
	}
	testnet.MustWait(t, 10*time.Second, "no warnings once there are descriptors again", func() error {
		for _, n := range c.Nodes {
			st, err := n.Status(t.Context())
			if err != nil || strings.Contains(strings.Join(st.Warnings, " "), "open files") {
				return fmt.Errorf("%s: %q, %v", n.Name, st.Warnings, err)
			}
		}
		return nil
	})
}
