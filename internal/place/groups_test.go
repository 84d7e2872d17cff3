package place

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
)

// fileOf reads a file with instances of these names, each with the address of its place,
// and what else is to stand in it.
func fileOf(t *testing.T, more string, names ...string) *config.Config {
	t.Helper()
	for i, name := range names {
		more += fmt.Sprintf("vrrp_instance %s {\ninterface eth0\nvirtual_router_id %d\nvirtual_ipaddress { 10.0.0.%d/24 }\n}\n", name, i+1, i+1)
	}
	c, diags := config.LoadBytes("x", []byte(more), config.Options{HostName: "h"})
	if c == nil {
		t.Fatal(diags)
	}
	return c
}

const separate, together = "raft {\nownership separate\n}\n", "raft {\nownership together\n}\n"

func groupsOf(instances []state.Instance) string {
	var out []string
	for _, in := range instances {
		out = append(out, in.Name+"="+in.Group)
	}
	return strings.Join(out, " ")
}

// in is an instance of the cluster that a file brought in.
func in(name, group string, addrs ...string) state.Instance {
	return state.Instance{Name: name, Group: group, FromFile: true, Addresses: addressesOf(addrs...)}
}

func TestGroupOf(t *testing.T) {
	const sync = "vrrp_sync_group G { group { a b } }\n"
	for _, tt := range []struct{ name, file, want string }{
		{"nothing said", sync, "a=default b=default c=default"},
		{"together", together + sync, "a=default b=default c=default"},
		{"separate", separate, "a=a b=b c=c"},
		{"sync group", separate + sync, "a=G b=G c=c"},
		{"sync group called default", separate + "vrrp_sync_group default { group { a b } }\n", "a=default b=default c=c"},
	} {
		if got := groupsOf(InstancesOf(fileOf(t, tt.file, "a", "b", "c"))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := groupsOf(InstancesOf(fileOf(t, separate, "default", "x"))); got != "default=default x=x" {
		t.Errorf("an instance called default: got %s", got)
	}
}

// TestActiveActive: the example has two owners as soon as the file says so.
func TestActiveActive(t *testing.T) {
	for _, host := range []string{"lb1", "lb2"} {
		c, diags := config.Load("../../deploy/examples/nginx-active-active.conf", config.Options{HostName: host})
		if c == nil {
			t.Fatal(diags)
		}
		if got := groupsOf(InstancesOf(c)); got != "VI_A=default VI_B=default" {
			t.Errorf("%s, as it is: got %s", host, got)
		}
		text := "raft {\nownership separate\n}\ninclude nginx-active-active.conf\n"
		if c, diags = config.LoadBytes("../../deploy/examples/x.conf", []byte(text), config.Options{HostName: host}); c == nil {
			t.Fatal(diags)
		}
		if got := groupsOf(InstancesOf(c)); got != "VI_A=VI_A VI_B=VI_B" {
			t.Errorf("%s: got %s", host, got)
		}
	}
}

// TestInstancesIn: a file that does not say who owns what leaves that as it is.
func TestInstancesIn(t *testing.T) {
	const sync = "vrrp_sync_group G { group { a b } }\n"
	apart := []state.Instance{in("a", "a"), in("b", "")}
	for _, tt := range []struct {
		name, file string
		have       []state.Instance
		want       string
	}{
		{"no instance yet", sync, nil, "a=default b=default c=default"},
		{"together as ever", sync, []state.Instance{in("a", "default"), in("b", "")}, "a=default b=default c=default"},
		{"apart", "", apart, "a=a b=default c=c"},
		{"apart, and a sync group of which the cluster does not know", sync, apart, "a=a b=default c=c"},
		{"a new member of a sync group", "vrrp_sync_group G { group { a c } }\n", []state.Instance{in("a", "G")}, "a=G b=b c=G"},
		{"a new instance with the name of a sync group of others", "vrrp_sync_group c { group { a b } }\n", []state.Instance{in("a", "c"), in("b", "c")}, "a=c b=c c=default"},
		{"or of one that another file has", "", []state.Instance{in("a", "c"), in("b", "c")}, "a=c b=c c=default"},
		{"together is said", together, apart, "a=default b=default c=default"},
		{"separate is said", separate + sync, apart, "a=G b=G c=c"},
	} {
		if got := groupsOf(InstancesIn(fileOf(t, tt.file, "a", "b", "c"), tt.have)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestGroupChange: another group is drift, is said in words, and is what a reload
// proposes.
func TestGroupChange(t *testing.T) {
	have := []state.Instance{in("web", "default", "10.0.0.1/24"), in("db", "", "10.0.0.2/24")}
	want := []state.Instance{in("web", "web", "10.0.0.1/24"), in("db", "default", "10.0.0.2/24")}
	if got := Difference(have, want, 0, 0); !slices.Equal(got, []string{"instance web: ownership group is web in the file, default in the cluster"}) {
		t.Errorf("drift: %q", got)
	}
	if Agree(ContentOf(have, time.Second), ContentOf(want, 0)) {
		t.Error("file and cluster agree")
	}
	for _, tt := range []struct {
		name       string
		have, want []state.Instance
		lines      []string
	}{
		{"there", have, want, []string{"instance web: ownership group changed from default to web"}},
		{"and back", want, have, []string{"instance web: ownership group changed from web to default"}},
		{"to another", want, []state.Instance{in("web", "G", "10.0.0.1/24"), have[1]}, []string{"instance web: ownership group changed from web to G"}},
		{"a new instance", have[1:], []state.Instance{have[1], want[0]}, []string{"instance web added", "instance web: address 10.0.0.1/24 added"}},
	} {
		if got := Changes(ContentOf(tt.have, 0), ContentOf(Proposal(tt.have, tt.want), 0), nil); !slices.Equal(got, tt.lines) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.lines)
		}
	}
}

// TestGroupsAndBase: a base from before there were groups is that of a cluster with one,
// and a file that has not been touched since does not undo what came later.
func TestGroupsAndBase(t *testing.T) {
	stateOf := func(group string) *state.State {
		return &state.State{ClusterID: "c", Heartbeat: state.HeartbeatSetting{Configured: time.Second},
			Instances: []state.Instance{{Name: "a", Group: group, FromFile: true, VirtualRouterID: 1, GARP: InstanceOf(fileOf(t, "", "a").Instances[0]).GARP, Addresses: addressesOf("10.0.0.1/24")}}}
	}
	older := ClusterContent(stateOf("")) // the same keys as in an older version
	for k := range older {
		if strings.Contains(k, "group") {
			t.Errorf("key %q: a member of an older version has none of that name", k)
		}
	}
	if older.Hash() != ClusterContent(stateOf(state.DefaultGroup)).Hash() {
		t.Error("the default group has two hashes")
	}
	for _, tt := range []struct {
		name, file, group string
		agrees            bool
		refuse            string
	}{
		{"nothing said, together", "", "default", true, ""},
		{"nothing said, apart", "", "a", true, ""},
		{"together is said, and so it is", together, "default", true, ""},
		{"separate is said newly", separate, "default", false, ""},
		{"another file said separate", together, "a", false, "instance a: ownership group changed from default to a"},
		{"both said so", separate, "a", true, ""},
		{"another file has a sync group", separate, "G", false, "instance a: ownership group changed from default to G"},
	} {
		s := stateOf(tt.group)
		file := ContentOf(InstancesIn(fileOf(t, tt.file, "a"), s.Instances), 0)
		if got := Agree(ClusterContent(s), file); got != tt.agrees {
			t.Errorf("%s: agree %v, want %v", tt.name, got, tt.agrees)
		}
		err := RefuseOlder(older, s, file)
		if (err == nil) != (tt.refuse == "") || err != nil && !strings.Contains(err.Error(), tt.refuse) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.refuse)
		}
		var drift Drift
		if lines := drift.Lines(s, fileOf(t, tt.file, "a"), 0); (len(lines) == 0) != tt.agrees {
			t.Errorf("%s: drift %q", tt.name, lines)
		}
	}
}

// TestGroupsStay: instances that no file brought in keep their group.
func TestGroupsStay(t *testing.T) {
	byHand := in("hand", "hand", "10.0.0.9/24")
	byHand.FromFile = false
	gone := in("old", "G", "10.0.0.8/24", "10.0.0.7/24")
	gone.Addresses[1].Added = true
	got := Proposal([]state.Instance{byHand, gone}, InstancesOf(fileOf(t, separate, "a")))
	if groupsOf(got) != "a=a hand=hand old=G" {
		t.Errorf("got %s", groupsOf(got))
	}
}

func TestGroupOfNew(t *testing.T) {
	apart := []state.Instance{in("a", "G"), in("b", "G"), in("c", "c")}
	for _, tt := range []struct {
		name, file, instance string
		have                 []state.Instance
		want, refuse         string
	}{
		{"together", "", "new", []state.Instance{in("a", "default")}, "default", ""},
		{"apart", "", "new", apart, "new", ""},
		{"the file says separate", separate, "new", nil, "new", ""},
		{"an instance that is there", separate, "b", apart, "G", ""},
		{"one of the default group", separate, "b", []state.Instance{in("b", "")}, "default", ""},
		{"without --instance", separate, "default", append(apart, in("d", "default")), "default", ""},
		{"the name of others' group", "", "G", apart, "", "instance G: there is an ownership group of that name, with instance a"},
	} {
		got, err := GroupOfNew(fileOf(t, tt.file, "x"), tt.have, tt.instance)
		if got != tt.want || (err == nil) != (tt.refuse == "") || err != nil && err.Error() != tt.refuse {
			t.Errorf("%s: got %q %v, want %q %q", tt.name, got, err, tt.want, tt.refuse)
		}
	}
}

// TestRefuseMerged: nobody said that what vip add made is to move with a sync group that
// has its name.
func TestRefuseMerged(t *testing.T) {
	byHand := in("x", "x", "10.0.0.9/24")
	byHand.FromFile = false
	gone := in("old", "G", "10.0.0.8/24")
	gone.Addresses[0].Added = true
	for _, tt := range []struct {
		name   string
		have   []state.Instance
		file   string
		refuse string
	}{
		{"another name", []state.Instance{byHand}, "vrrp_sync_group G { group { a b } }\n", ""},
		{"its name", []state.Instance{byHand}, "vrrp_sync_group x { group { a b } }\n", "instance a would come into ownership group x, which is that of instance x alone"},
		{"it was one of several", []state.Instance{gone, in("a", "G")}, "vrrp_sync_group G { group { a b } }\n", ""},
	} {
		err := RefuseMerged(tt.have, Proposal(tt.have, InstancesOf(fileOf(t, separate+tt.file, "a", "b"))))
		if (err == nil) != (tt.refuse == "") || err != nil && !strings.Contains(err.Error(), tt.refuse) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.refuse)
		}
	}
}
