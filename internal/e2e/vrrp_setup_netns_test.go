package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// rival is a keepalived beside the cluster.
type rival struct {
	host *testnet.Host
	lab  *testnet.Lab
	proc *testnet.Proc
	// logs are those of earlier runs.
	logs string
}

// rivals are the hosts of the lab that are no nodes of the cluster.
func rivals(t *testing.T, c *Cluster) []*rival {
	t.Helper()
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Fatal("keepalived is not installed: make setup")
	}
	var out []*rival
	for _, h := range c.Lab.Nodes()[len(c.Nodes):] {
		out = append(out, &rival{host: h, lab: c.Lab})
	}
	return out
}

func (r *rival) start(t *testing.T, all ...Instance) {
	t.Helper()
	for i := range all {
		all[i].VRRP = ""
	}
	if r.proc != nil {
		r.logs += r.proc.Output()
	}
	r.proc = get[*testnet.Proc](t)(r.lab.StartKeepalived(r.host, Confs(all...)))
	testnet.MustWait(t, 15*time.Second, "keepalived to listen", func() error {
		if !strings.Contains(r.proc.Output(), "Entering BACKUP STATE") {
			return fmt.Errorf("its log: %s", r.proc.Tail(500))
		}
		return nil
	})
}

func (r *rival) stop(t *testing.T) {
	t.Helper()
	must(t, r.proc.Term())
	if _, err := r.proc.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// masterships counts how often it became master of an instance.
func (r *rival) masterships(instance string) int {
	return strings.Count(r.logs+r.proc.Output(), fmt.Sprintf("(%s) Entering MASTER STATE", instance))
}

// owns waits until it has the address.
func (r *rival) owns(t *testing.T, a netip.Addr) {
	t.Helper()
	testnet.MustWait(t, 20*time.Second, fmt.Sprintf("%v on keepalived", a), func() error {
		if has, err := r.host.Has(a); err != nil || !has {
			return fmt.Errorf("it is not there, %v; log: %s", err, r.proc.Tail(800))
		}
		return nil
	})
}

// wire records the advertisements on the front network, as tcpdump reads them.
type wire struct{ proc *testnet.Proc }

func listenVRRP(t *testing.T, c *Cluster) wire {
	t.Helper()
	p := get[*testnet.Proc](t)(c.Lab.Observer().Start(testnet.Cmd{
		Args: []string{"tcpdump", "-l", "-n", "-i", testnet.Front.String(), "-Z", "root", "ip", "proto", "112"},
	}))
	testnet.MustWait(t, 10*time.Second, "tcpdump to listen", func() error {
		if !strings.Contains(p.Output(), "listening on") {
			return fmt.Errorf("%s", p.Output())
		}
		return nil
	})
	return wire{p}
}

type advert struct{ from, vrid, priority string }

var advertLine = regexp.MustCompile(`IP (\S+) > \S+ VRRPv[23], Advertisement, vrid (\d+), prio (\d+),`)

// adverts are those so far, in order.
func (w wire) adverts() (all []advert) {
	for _, m := range advertLine.FindAllStringSubmatch(w.proc.Output(), -1) {
		all = append(all, advert{m[1], m[2], m[3]})
	}
	return all
}

// resigned tells who has said so far that it leaves.
func (w wire) resigned() (from []string) {
	for _, a := range w.adverts() {
		if a.priority == "0" && !slices.Contains(from, a.from) {
			from = append(from, a.from)
		}
	}
	return from
}

// waitResigned waits until this node has said that it leaves, and nobody else.
func (w wire) waitResigned(t *testing.T, n *Node) {
	t.Helper()
	testnet.MustWait(t, 5*time.Second, "priority 0 from "+n.Name, func() error {
		if from := w.resigned(); !slices.Equal(from, []string{n.Host.Addr4(testnet.Front).String()}) {
			return fmt.Errorf("it came from %v: %v", from, w.adverts())
		}
		return nil
	})
}

// configureAll writes each node's file; priorities fall from node to node.
func configureAll(t *testing.T, c *Cluster, all ...Instance) {
	t.Helper()
	for i, n := range c.Nodes {
		configure(t, n, i, all...)
	}
}

func configure(t *testing.T, n *Node, lower int, all ...Instance) {
	t.Helper()
	mine := slices.Clone(all)
	for k := range mine {
		mine[k].Priority -= lower
	}
	n.Config = get[string](t)(n.WriteFile("raftvip.conf", patient+Confs(mine...)))
}

// patient has a cluster bear a machine that stalls: these tests are about what
// VRRP makes of a change, not how fast it is noticed.
const patient = "raft {\n heartbeat_timeout 2s\n}\n"

// router is what a node says of one of its virtual routers.
func router(st api.Status, instance string) (api.VirtualRouter, error) {
	for _, v := range st.VRRP {
		if v.Instance == instance {
			return v, nil
		}
	}
	return api.VirtualRouter{}, fmt.Errorf("%s: no virtual router %s in %+v", st.Node.Name, instance, st.VRRP)
}

// waitRouter waits until a node says so of one of its virtual routers.
func waitRouter(t *testing.T, n *Node, instance, what string, ok func(api.VirtualRouter) bool) {
	t.Helper()
	must(t, waitFor(bounded(t, 20*time.Second), n.Name+": "+instance+" "+what, func() error {
		st, err := n.Status(t.Context())
		if err != nil {
			return err
		}
		v, err := router(st, instance)
		if err == nil && !ok(v) {
			err = fmt.Errorf("%+v", v)
		}
		return err
	}))
}

func inState(state string) func(api.VirtualRouter) bool {
	return func(v api.VirtualRouter) bool { return v.State == state }
}
