package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
)

func TestExitOfStatus(t *testing.T) {
	addrs := []api.Address{{Prefix: netip.MustParsePrefix("10.0.0.1/24"), State: "present"}}
	stray := api.Trouble{Node: "lb2", Kind: api.TroubleStray}
	down := api.Trouble{Node: "lb1", Kind: api.TroubleDown}
	led := func(g api.Group) api.Status {
		return api.Status{Cluster: api.Cluster{Leader: "lb1"}, Groups: []api.Group{g}}
	}
	now := time.Now()
	claim := func(ago time.Duration) api.Status {
		st := led(api.Group{Owner: "lb1", Addresses: addrs})
		st.Nodes = []api.Node{{Name: "lb1", Claims: []api.Claim{{Last: now.Add(-ago)}}}}
		return st
	}
	twin := led(api.Group{Owner: "lb1", Addresses: addrs})
	twin.Nodes = []api.Node{{Name: "lb1", AddressClaims: []api.Claim{{Last: now.Add(-9 * time.Minute)}}}}
	alone := func(v api.VirtualRouter) api.Status {
		return api.Status{Standalone: true, VRRP: []api.VirtualRouter{v}}
	}
	absent := []api.Address{addrs[0], {Prefix: addrs[0].Prefix, State: "absent"}}
	for _, tt := range []struct {
		name string
		st   api.Status
		want int
	}{
		{"well", led(api.Group{Owner: "lb1", Addresses: addrs}), 0},
		{"no leader", api.Status{Groups: []api.Group{{Addresses: addrs, Unknown: true}}}, 4},
		{"nobody owns", led(api.Group{Addresses: addrs}), 5},
		{"nobody owns, and a standby answers", led(api.Group{Addresses: addrs, Troubles: []api.Trouble{stray}}), 5},
		{"not known", led(api.Group{Addresses: addrs, Unknown: true}), 6},
		{"a standby answers", led(api.Group{Owner: "lb1", Addresses: addrs, Troubles: []api.Trouble{down, stray}}), 7},
		{"an address is down", led(api.Group{Owner: "lb1", Addresses: addrs, Troubles: []api.Trouble{down}}), 8},
		{"another machine claims it", claim(time.Second), 7},
		{"another machine claimed it once", claim(time.Minute), 0},
		{"another machine uses a node's own", twin, 7},
		{"there is nothing to own", led(api.Group{}), 0},
		{"vrrp only, backup", alone(api.VirtualRouter{State: "backup", Addresses: absent}), 0},
		{"vrrp only, master", alone(api.VirtualRouter{State: "master", Up: true, Addresses: addrs}), 0},
		{"vrrp only, master, half of the addresses", alone(api.VirtualRouter{State: "master", Up: true, Addresses: absent}), 8},
		{"vrrp only, fault", alone(api.VirtualRouter{State: "fault"}), 8},
	} {
		if got := exitOf(tt.st, now); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestStatusText: what is printed of the voters and of the owner fits together.
func TestStatusText(t *testing.T) {
	for _, tt := range []struct {
		c    api.Cluster
		want string
	}{
		{api.Cluster{Voters: 3, Reachable: 3, Tolerates: 1}, "3 voters, survives the loss of 1"},
		{api.Cluster{Voters: 3, Reachable: 2}, "3 voters, 2 of them answer, survives no further loss"},
		{api.Cluster{Voters: 5, Reachable: 4, Tolerates: 1}, "5 voters, 4 of them answer, survives the loss of 1"},
		{api.Cluster{Voters: 1, Reachable: 1}, "1 voter, survives no further loss"},
		{api.Cluster{Voters: 3}, "3 voters"},
	} {
		if got := votersText(tt.c); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	var out strings.Builder
	printGroup(&out, api.Group{Unknown: true, Why: "lb2 does not say", State: "standby"})
	if got := out.String(); !strings.HasPrefix(got, "owner     not known here\nwhy       lb2 does not say\n") {
		t.Errorf("got %q", got)
	}
	out.Reset()
	if printNodes(&out, []api.Node{{Name: "lb1"}}); !strings.HasPrefix(out.String(), "NODE ") {
		t.Errorf("node list begins with %q", out.String())
	}
	if strings.Contains(out.String(), "PRIORITY") {
		t.Errorf("priorities of nodes that have none of their own:\n%s", out.String())
	}
	why := unownedWhy([]api.Group{
		{Name: "a", Why: "no quorum", Addresses: make([]api.Address, 1)}, {Name: "b", Owner: "lb1", Why: "it is the best", Addresses: make([]api.Address, 1)},
		{Name: "c", Why: "no quorum", Addresses: make([]api.Address, 1)}, {Name: "d", Why: "a check failed", Addresses: make([]api.Address, 1)}, {Name: "e", Why: "no quorum"},
	})
	if !slices.Equal(why, []string{"a, c: no quorum", "d: a check failed"}) {
		t.Errorf("why nobody owns: %q", why)
	}
	st := api.Status{
		Groups: []api.Group{{Name: "a"}, {Name: "b", Nodes: []api.GroupNode{{Name: "lb1", Priority: 120, Arithmetic: "120 = 120"}}}},
		Nodes:  []api.Node{{Name: "lb1"}},
	}
	if err := keepGroup(&st, "b"); err != nil || st.Nodes[0].Arithmetic != "120 = 120" {
		t.Errorf("priority in one group: %+v, %v", st.Nodes, err)
	}
	for _, tt := range []struct {
		m    api.Move
		want string
	}{
		{api.Move{From: "a", To: "b", Gap: 0.296, GapLeast: 0.026}, "26ms to 296ms"},
		{api.Move{From: "a", To: "b", Gap: 0.003, GapLeast: 0.003}, "3ms"},
		{api.Move{From: "a", To: "b", Gap: 0.2}, "up to 200ms"},
		{api.Move{From: "a", To: "b"}, "unknown"},
		{api.Move{To: "b"}, "-"},
		{api.Move{From: "a"}, "-"},
	} {
		if got := gapText(tt.m); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.m, got, tt.want)
		}
	}
}
