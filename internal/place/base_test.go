package place

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
)

func instance(name string, fromFile bool, addrs ...string) state.Instance {
	return state.Instance{Name: name, FromFile: fromFile, VirtualRouterID: 51, Addresses: addressesOf(addrs...)}
}

// added marks the last address of an instance as one that a command brought in.
func added(in state.Instance) state.Instance {
	in.Addresses[len(in.Addresses)-1].Added = true
	return in
}

// TestChanges: what was done is told as done.
func TestChanges(t *testing.T) {
	one := instance("v", true, "10.0.0.1/24")
	wider := instance("v", true, "10.0.0.1/16")
	vrid := one
	vrid.VirtualRouterID = 52
	spoken := instance("v", true, "10.0.0.1/24", "10.0.0.2/24")
	spoken.VRRP = "hybrid"
	turned := instance("v", true, "10.0.0.2/24", "10.0.0.1/24")
	turned.VRRP = "hybrid"
	more := instance("v", true, "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24")
	more.VRRP = "hybrid"
	garp := one
	garp.GARP.MasterRepeat = 9
	list := func(in ...state.Instance) []state.Instance { return in }
	for _, tt := range []struct {
		name          string
		before, after []state.Instance
		want          string
	}{
		{"nothing", list(one), list(one), ""},
		{"address", list(one), list(instance("v", true, "10.0.0.1/24", "10.0.0.2/24")), "instance v: address 10.0.0.2/24 added"},
		{"address gone", list(instance("v", true, "10.0.0.1/24", "10.0.0.2/24")), list(one), "instance v: address 10.0.0.2/24 removed"},
		{"length", list(one), list(wider), "instance v: address changed from 10.0.0.1/24 to 10.0.0.1/16"},
		{"number", list(one), list(vrid), "instance v: virtual_router_id changed from 51 to 52"},
		{"schedule", list(one), list(garp), "instance v: announcement schedule (garp_*) changed"},
		{"instance", list(one), list(one, instance("w", true, "10.0.0.2/24")), "instance w added; instance w: address 10.0.0.2/24 added"},
		{"instance gone", list(one, instance("w", true, "10.0.0.2/24")), list(one), "instance w removed; instance w: address 10.0.0.2/24 removed"},
		{"address of vip add is the file's now", list(instance("default", false, "10.0.0.1/24")), list(one), "instance default removed; instance v added; address 10.0.0.1/24 moved from instance default to instance v"},
		{"order", list(spoken), list(turned), "instance v: order of virtual_ipaddress changed"},
		{"address where the order counts", list(spoken), list(more), "instance v: address 10.0.0.3/24 added"},
		{"vrrp", list(instance("v", true, "10.0.0.1/24", "10.0.0.2/24")), list(spoken), "instance v: vrrp changed from off to hybrid"},
	} {
		if got := strings.Join(Changes(ContentOf(tt.before, 0), ContentOf(tt.after, 0), nil), "; "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := Changes(ContentOf(nil, time.Second), ContentOf(nil, 300*time.Millisecond), nil); !slices.Equal(got, []string{"heartbeat_timeout changed from 1s to 300ms"}) {
		t.Errorf("heartbeat: %q", got)
	}
}

// TestRefuseOlder: a file may change what is as it was, and not what is newer.
func TestRefuseOlder(t *testing.T) {
	one, two := instance("v", true, "10.0.0.1/24"), instance("v", true, "10.0.0.1/24", "10.0.0.2/24")
	three := instance("v", true, "10.0.0.1/24", "10.0.0.3/24")
	all := instance("v", true, "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24")
	vrid := one
	vrid.VirtualRouterID = 52
	stateOf := func(h time.Duration, in ...state.Instance) *state.State {
		return &state.State{ClusterID: "c", Instances: in, Heartbeat: state.HeartbeatSetting{Configured: h}}
	}
	base := func(h time.Duration, in ...state.Instance) Content { return ContentOf(in, h) }
	file := func(h time.Duration, in ...state.Instance) Content { return ContentOf(in, h) }
	for _, tt := range []struct {
		name   string
		base   Content
		s      *state.State
		file   Content
		refuse string
	}{
		{"the file is newer", base(time.Second, one), stateOf(time.Second, one), file(0, two), ""},
		{"the cluster is newer", base(time.Second, one), stateOf(time.Second, two), file(0, one), "instance v: address 10.0.0.2/24 added"},
		{"both are newer, and the file knows", base(time.Second, one), stateOf(time.Second, two), file(0, all), ""},
		{"both are newer, and the file does not know", base(time.Second, one), stateOf(time.Second, two), file(0, three), "instance v: address 10.0.0.2/24 added"},
		{"what the cluster deleted comes back", base(time.Second, two), stateOf(time.Second, one), file(0, two), "instance v: address 10.0.0.2/24 removed"},
		{"an instance of another file", base(time.Second, one), stateOf(time.Second, one, instance("w", true, "10.0.0.9/24")), file(0, one), "instance w added"},
		{"another number", base(time.Second, one), stateOf(time.Second, vrid), file(0, one), "virtual_router_id changed from 51 to 52"},
		{"heartbeat_timeout", base(time.Second, one), stateOf(2*time.Second, one), file(time.Second, one), "heartbeat_timeout changed from 1s to 2s"},
		{"heartbeat_timeout, of which the file says nothing", base(time.Second, one), stateOf(2*time.Second, one), file(0, two), ""},
		{"never agreed, nothing came from files", nil, stateOf(time.Second, instance("default", false, "10.0.0.9/24")), file(300*time.Millisecond, one), ""},
		{"never agreed, and it adds", nil, stateOf(time.Second, one), file(0, two), ""},
		{"never agreed, and it takes away", nil, stateOf(time.Second, two), file(0, one), "though it never was in force here"},
		{"what vip add brought in does not count", base(time.Second, one), stateOf(time.Second, added(instance("v", true, "10.0.0.1/24", "10.0.0.7/24"))), file(0, one), ""},
	} {
		err := RefuseOlder(tt.base, tt.s, tt.file)
		if tt.refuse == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var r *state.Refusal
		if !errors.As(err, &r) || r.Code != state.CodeOlder || !strings.Contains(r.Message, tt.refuse) || !strings.Contains(r.Hint, "--force") {
			t.Errorf("%s: got %v, want a refusal that says %q", tt.name, err, tt.refuse)
		}
	}
}

// TestAddedStays: what vip add put into an instance of a file stays at a reload, also
// when the instance goes, until a file names it.
func TestAddedStays(t *testing.T) {
	have := []state.Instance{added(instance("v", true, "10.0.0.1/24", "10.0.0.7/24"))}
	file := instance("v", true, "10.0.0.1/24")
	if got := Difference(have, []state.Instance{file}, 0, 0); len(got) != 0 {
		t.Errorf("drift: %q", got)
	}
	if !Agree(ClusterContent(&state.State{Instances: have, Heartbeat: state.HeartbeatSetting{Configured: time.Second}}), ContentOf([]state.Instance{file}, 0)) {
		t.Error("file and cluster do not agree")
	}
	texts := func(in state.Instance) (out []string) {
		for _, a := range in.Addresses {
			out = append(out, a.Prefix.String())
		}
		return out
	}
	got := Proposal(have, []state.Instance{instance("v", true, "10.0.0.2/24")})
	if len(got) != 1 || !slices.Equal(texts(got[0]), []string{"10.0.0.2/24", "10.0.0.7/24"}) || !got[0].Addresses[1].Added {
		t.Errorf("got %+v", got)
	}
	got = Proposal(have, []state.Instance{instance("w", true, "10.0.0.2/24")})
	if len(got) != 2 || got[1].Name != "v" || got[1].FromFile || !slices.Equal(texts(got[1]), []string{"10.0.0.7/24"}) {
		t.Errorf("the instance goes: %+v", got)
	}
	named := []state.Instance{instance("v", true, "10.0.0.1/24", "10.0.0.7/24")}
	if lines := Difference(have, named, 0, 0); len(lines) != 1 || !strings.Contains(lines[0], "by raftvip vip add") {
		t.Errorf("the file names it: %q", lines)
	}
	if got = Proposal(have, named); len(got) != 1 || got[0].Addresses[1].Added || len(got[0].Addresses) != 2 {
		t.Errorf("the file names it: %+v", got)
	}
}
