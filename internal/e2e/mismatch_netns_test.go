package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// hasProblem reports whether a node names a problem with this router, in --json
// and for people.
func hasProblem(t *testing.T, n *Node, instance, reason string, from netip.Addr, says string) error {
	st, err := n.Status(t.Context())
	if err != nil {
		return err
	}
	v, err := router(st, instance)
	if err != nil {
		return err
	}
	for _, p := range v.Problems {
		if p.Reason != reason || p.From != from {
			continue
		}
		r, err := n.Run(t.Context(), "status")
		if err != nil {
			return err
		}
		if !strings.Contains(p.Text, says) || !strings.Contains(r.Stdout, p.Text) {
			return fmt.Errorf("%q lacks %q, or is not in\n%s", p.Text, says, r.Stdout)
		}
		if !strings.Contains(r.Stdout, fmt.Sprintf("warning: vrrp %s: %s", instance, from)) {
			return fmt.Errorf("no warning names %s:\n%s", from, r.Stdout)
		}
		if strings.Contains(r.Stdout, "swordfish") || strings.Contains(fmt.Sprint(st), "swordfish") {
			return fmt.Errorf("the password is shown:\n%s", r.Stdout)
		}
		return nil
	}
	return fmt.Errorf("%s has no problem %s from %s: %+v", instance, reason, from, v.Problems)
}

// TestVRRPMismatch: whatever differs between a keepalived and the cluster is named
// in status, with the peer's address.
func TestVRRPMismatch(t *testing.T) {
	c := newCluster(t, setup{nodes: 1, rivals: 1, unjudged: true})
	n, k := c.Nodes[0], rivals(t, c)[0]
	vip := func(i int) netip.Addr { return c.Lab.VIP4(i) }
	password := func(p string) []string { return []string{"authentication {", "auth_type PASS", "auth_pass " + p, "}"} }
	cases := []struct {
		reason, says string
		ours, theirs Instance // what differs
	}{
		{"version", "version 2", Instance{}, Instance{Version: 2, AdvertInt: "1"}},
		{"auth_type", "authentication", Instance{Version: 2, AdvertInt: "1"}, Instance{Version: 2, AdvertInt: "1", More: password("sword1")}},
		{"auth_data", "password", Instance{Version: 2, AdvertInt: "1", More: password("swordfis")}, Instance{Version: 2, AdvertInt: "1", More: password("sword2")}},
		{"interval", "advert_int", Instance{Version: 2, AdvertInt: "1"}, Instance{Version: 2, AdvertInt: "2"}},
		{"interval", "the master's counts", Instance{}, Instance{AdvertInt: "0.3", Priority: 200}},
		{"address_list", "10.99.0.151", Instance{}, Instance{VIPs: []netip.Addr{vip(105), vip(151)}}},
		{"vrid_collision", "same virtual_router_id 57", Instance{}, Instance{VIPs: []netip.Addr{vip(152)}}},
		{"not_multicast", "does not send to the group", Instance{}, Instance{More: []string{"unicast_peer {", n.Host.Addr4(testnet.Front).String(), "}"}}},
		{"checksum_form", "v3_checksum_as_v2", Instance{More: []string{"v3_checksum_as_v2"}}, Instance{}},
	}
	var ours, theirs []Instance
	for i, x := range cases {
		base := Instance{Name: fmt.Sprintf("V%d", i), VRID: 51 + i, Priority: 150, VIPs: []netip.Addr{vip(100 + i)}, VRRP: "hybrid"}
		with := func(d Instance) Instance {
			in := base
			in.Version, in.AdvertInt, in.More = d.Version, d.AdvertInt, d.More
			if d.Priority != 0 {
				in.Priority = d.Priority
			}
			if d.VIPs != nil {
				in.VIPs = d.VIPs
			}
			return in
		}
		ours = append(ours, with(x.ours))
		theirs = append(theirs, with(x.theirs))
		if x.theirs.Priority == 0 {
			theirs[i].Priority = 100
		}
	}
	configure(t, n, 0, ours...)
	must(t, c.Found(bounded(t, 60*time.Second)))
	k.start(t, theirs...)
	for i, x := range cases {
		testnet.MustWait(t, 20*time.Second, x.reason+" in status", func() error {
			return hasProblem(t, n, ours[i].Name, x.reason, k.host.Addr4(testnet.Front), x.says)
		})
	}
}

// TestVRRPDuplicateSpeaker: something on a member's machine speaks for the virtual
// router while this node owns the group.
func TestVRRPDuplicateSpeaker(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, unjudged: true})
	configureAll(t, c, hybridV(150))
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	n := c.Others(o)[0]
	must(t, n.Kill())
	k := &rival{host: n.Host, lab: c.Lab}
	k.start(t, hybridV(200))
	testnet.MustWait(t, 20*time.Second, "the duplicate in status", func() error {
		return hasProblem(t, o, "V", "duplicate_speaker", n.Host.Addr4(testnet.Front), "goes on advertising")
	})
	if v, err := router(status(t, o), "V"); err != nil || v.State != "master" || v.Problems[0].Node != n.Name {
		t.Errorf("%+v, %v", v, err)
	}
	// Raft alone decides among members: this one does not yield.
	waitRouter(t, o, "V", "still master", func(v api.VirtualRouter) bool { return v.State == "master" && v.Up })
}
