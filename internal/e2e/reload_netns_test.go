package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestReload: an invalid file changes nothing and is told everywhere, a node whose
// file differs follows the cluster and says so, and a reload proposes.
func TestReload(t *testing.T) {
	c := newCluster(t, setup{nodes: 3})
	file := func(lines string) string {
		return "vrrp_instance v {\n    interface eth0\n    virtual_router_id 51\n    virtual_ipaddress {\n" + lines + "    }\n}\n"
	}
	one := fmt.Sprintf("        %v/24\n", vip4)
	two := one + "        10.99.0.101/24\n"
	write := func(n *Node, content string) {
		t.Helper()
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", content))
	}
	for _, n := range c.Nodes {
		write(n, file(one))
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	n, third := c.Others(o)[0], c.Others(o)[1]
	before := status(t, n)

	// An error in the file: line 5.
	write(n, file("        10.99.0.300/24\n        10.99.0.101/24\n"))
	at := n.Config + ":5"
	fails(t, n, 1, []string{at}, "reload")
	if st := status(t, n); !strings.Contains(st.Config.Error, at) {
		t.Errorf("status does not tell: %+v", st.Config)
	}
	if out := run(t, n, "status"); !strings.Contains(out, "the last reload changed nothing") || !strings.Contains(out, at) {
		t.Errorf("status as text does not tell:\n%s", out)
	}
	if log := n.Daemon().Output(); !strings.Contains(log, "reload changed nothing") || !strings.Contains(log, at) {
		t.Errorf("the log does not tell:\n%s", log)
	}
	told := func(says string, is func(api.Node) bool) {
		t.Helper()
		_, err := c.WaitAgreed(bounded(t, 10*time.Second), o.Name, func(st api.Status) error {
			for _, m := range st.Nodes {
				if m.Name == n.Name && !is(m) {
					return fmt.Errorf("%s: %+v", says, m)
				}
			}
			return nil
		})
		must(t, err)
	}
	told("its file has an error", func(m api.Node) bool { return strings.Contains(m.ConfigError, at) })
	if st := status(t, third); len(st.Warnings) == 0 || !strings.Contains(strings.Join(st.Warnings, "\n"), n.Name) {
		t.Errorf("%s does not warn: %v", third.Name, st.Warnings)
	}
	if now := status(t, n); now.Cluster.Version != before.Cluster.Version || now.Cluster.Term != before.Cluster.Term {
		t.Errorf("something has changed: %+v, was %+v", now.Cluster, before.Cluster)
	}
	if r, err := n.Run(t.Context(), "check-config", n.Config); err != nil || r.Code != 1 || !strings.Contains(r.Stdout, at) {
		t.Errorf("check-config: %v %v", r, err)
	}

	// A valid file that differs, read at a restart: drift.
	write(n, file(two))
	_, err := n.Stop()
	must(t, err)
	must(t, n.Start())
	must(t, n.WaitServing(t.Context()))
	told("its file differs", func(m api.Node) bool {
		return m.ConfigError == "" && len(m.Drift) == 1 && strings.Contains(m.Drift[0], "10.99.0.101/24")
	})
	if out := run(t, n, "status"); !strings.Contains(out, "drift: instance v: address 10.99.0.101/24 is in the file only") {
		t.Errorf("status as text does not show the drift:\n%s", out)
	}
	added := c.Lab.VIP4(101)
	if names := get[[]string](t)(c.Holders(added)); len(names) != 0 {
		t.Errorf("a start has changed the cluster: %v is on %v", added, names)
	}

	// A reload proposes it: now the others drift.
	var r api.ReloadResult
	must(t, n.JSON(t.Context(), &r, "reload"))
	if len(r.Changes) != 1 || r.Changes[0] != "instance v: address 10.99.0.101/24 added" {
		t.Errorf("reload: %+v", r)
	}
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), o, added))
	told("its file is the cluster's", func(m api.Node) bool { return len(m.Drift) == 0 })
	testnet.MustWait(t, 10*time.Second, "drift of the others", func() error {
		for _, m := range status(t, n).Nodes {
			if m.Name != n.Name && (len(m.Drift) != 1 || !strings.Contains(m.Drift[0], "in the cluster only")) {
				return fmt.Errorf("%+v", m)
			}
		}
		return nil
	})

	// A file that is older than that is not taken, also after a restart, until it is
	// asked for.
	older := []string{"the file would undo changes of the cluster", "instance v: address 10.99.0.101/24 added", "--force"}
	fails(t, third, 9, older, "reload")
	if vips := get[[]api.VIP](t)(vipList(t, third)); len(vips) != 2 {
		t.Errorf("a refused reload changed the addresses: %+v", vips)
	}
	_, err = third.Stop()
	must(t, err)
	must(t, third.Start())
	must(t, third.WaitServing(t.Context()))
	write(third, strings.Replace(file(one), "virtual_router_id 51", "virtual_router_id 52", 1))
	testnet.MustWait(t, 10*time.Second, "a reload to be refused after a restart", func() error {
		r, err := third.Run(t.Context(), "reload")
		if err == nil && (r.Code != 9 || !strings.Contains(r.Stderr, older[1])) {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
	write(third, file(one))
	if out := run(t, third, "reload", "--force"); !strings.Contains(out, "cluster: instance v: address 10.99.0.101/24 removed") {
		t.Errorf("reload --force: %s", out)
	}
	write(third, file(two))
	run(t, third, "reload")
	if st := status(t, third); len(st.Config.Drift) != 0 {
		t.Errorf("drift: %v", st.Config.Drift)
	}

	// What vip add puts into an instance of a file is apart from the file.
	run(t, third, "vip", "add", "10.99.0.107/24@eth0", "--instance", "v")
	write(third, file(one))
	run(t, third, "reload")
	// The node that reloads may learn of the change a moment later than the leader.
	testnet.MustWait(t, 10*time.Second, "the addresses after the reload", func() error {
		var left []string
		for _, v := range get[[]api.VIP](t)(vipList(t, third)) {
			left = append(left, v.Prefix.String())
		}
		if fmt.Sprint(left) != "[10.99.0.100/24 10.99.0.107/24]" {
			return fmt.Errorf("%v", left)
		}
		return nil
	})

	// A near miss of a keyword, and a file that was cut off, change nothing.
	write(third, strings.Replace(file(one), "virtual_router_id", "priorty 7\n    virtual_router_id", 1))
	fails(t, third, 1, []string{third.Config + ":3: unknown keyword \"priorty\"; did you mean priority?"}, "reload")
	write(third, "")
	fails(t, third, 1, []string{third.Config + ":1: there is no block in this file"}, "reload")
	// Nor does one with which the last node that may own could own no more.
	now := owner(t, c, nil)
	for _, m := range c.Others(now) {
		run(t, m, "drain", m.Name)
	}
	write(now, "global_defs {\n    dynamic_interfaces\n}\n"+strings.Replace(file(one), "interface eth0", "interface nosuch0", 1))
	fails(t, now, 9, []string{"to take this file (", "nosuch0", "would silence all addresses: no other node may own"}, "reload")
	owner(t, c, now)
	for _, m := range c.Others(now) {
		run(t, m, "undrain", m.Name)
	}
	// Nor does a file without the last address.
	write(third, strings.Replace(file(""), "virtual_ipaddress {\n    }", "no_virtual_ipaddress", 1))
	run(t, third, "vip", "del", "10.99.0.107")
	fails(t, third, 9, []string{"the file would take away the only virtual address: 10.99.0.100"}, "reload")
}

// TestReloadAsksTheNetwork: a typing error in a file does not take the address of
// another machine.
func TestReloadAsksTheNetwork(t *testing.T) {
	c := newCluster(t, setup{nodes: 1})
	n := c.Nodes[0]
	file := func(addresses ...string) string {
		return "vrrp_instance VI {\n    interface eth0\n    virtual_router_id 51\n    virtual_ipaddress {\n" +
			strings.Join(addresses, "\n") + "\n    }\n}\n"
	}
	n.Config = get[string](t)(n.WriteFile("raftvip.conf", file(vip4.String())))
	must(t, c.Found(bounded(t, 60*time.Second)))
	taken := c.Lab.VIP4(102)
	other := c.Lab.Client(0)
	must(t, other.AddAddr(taken))
	get[string](t)(n.WriteFile("raftvip.conf", file(vip4.String(), taken.String())))
	fails(t, n, 1, []string{"already on another machine", other.MAC(testnet.Front).String()}, "reload")
	if vips := get[[]api.VIP](t)(vipList(t, n)); len(vips) != 1 {
		t.Errorf("a refused reload changed the addresses: %+v", vips)
	}
	must(t, other.DelAddr(taken))
	run(t, n, "reload")
	must(t, c.WaitHeldBy(bounded(t, 10*time.Second), n, taken))
}
