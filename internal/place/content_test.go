package place

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
)

func addressesOf(texts ...string) []state.Address {
	var out []state.Address
	for _, text := range texts {
		out = append(out, state.Address{Prefix: netip.MustParsePrefix(text)})
	}
	return out
}

func TestDifference(t *testing.T) {
	file := func(name string, addrs ...state.Address) state.Instance {
		return state.Instance{Name: name, FromFile: true, VirtualRouterID: 51, Addresses: addrs}
	}
	a, b := addressesOf("10.0.0.1/24")[0], addressesOf("10.0.0.2/24")[0]
	labelled := a
	labelled.Label, labelled.Dev = "eth0:vip", "eth7"
	wider := a
	wider.Prefix = netip.MustParsePrefix("10.0.0.1/16")
	other := file("VI", a)
	other.VirtualRouterID = 52
	byHand := state.Instance{Name: "default", Addresses: addressesOf("10.0.0.9/24")}
	for _, tt := range []struct {
		name       string
		have, want []state.Instance
		lines      []string
	}{
		{"same", []state.Instance{file("VI", a)}, []state.Instance{file("VI", a)}, nil},
		{"device and label are the node's own", []state.Instance{file("VI", a)}, []state.Instance{file("VI", labelled)}, nil},
		{"in the file only", []state.Instance{file("VI", a)}, []state.Instance{file("VI", a, b)}, []string{"10.0.0.2/24 is in the file only"}},
		{"in the cluster only", []state.Instance{file("VI", a, b)}, []state.Instance{file("VI", a)}, []string{"10.0.0.2/24 is in the cluster only"}},
		{"other length", []state.Instance{file("VI", a)}, []state.Instance{file("VI", wider)}, []string{"10.0.0.1 is 10.0.0.1/16 in the file, 10.0.0.1/24 in the cluster"}},
		{"other VRID", []state.Instance{file("VI", a)}, []state.Instance{other}, []string{"virtual_router_id is 52 in the file, 51 in the cluster"}},
		{"new instance, old instance", []state.Instance{file("old", a)}, []state.Instance{file("new", b)}, []string{"instance new: the file has it", "instance old: the cluster has it"}},
		{"an address of vip add is in the file", []state.Instance{byHand}, []state.Instance{file("VI", byHand.Addresses[0])},
			[]string{"instance VI: the file has it", "10.0.0.9/24: in instance VI of the file, in default of the cluster"}},
		{"added by vip add is no drift", []state.Instance{file("VI", a), byHand}, []state.Instance{file("VI", a)}, nil},
		{"a file without instances has no say", []state.Instance{file("VI", a)}, nil, nil},
	} {
		got := Difference(tt.have, tt.want, time.Second, 0)
		if len(got) != len(tt.lines) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.lines)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], tt.lines[i]) {
				t.Errorf("%s: got %q, want %q", tt.name, got[i], tt.lines[i])
			}
		}
	}
	if got := Difference(nil, nil, time.Second, 300*time.Millisecond); len(got) != 1 || !strings.Contains(got[0], "heartbeat_timeout is 300ms in the file, 1s in the cluster") {
		t.Errorf("heartbeat: %q", got)
	}
}

func TestProposalKeepsWhatNoFileBroughtIn(t *testing.T) {
	byHand := state.Instance{Name: "default", Addresses: addressesOf("10.0.0.9/24")}
	old := state.Instance{Name: "old", FromFile: true}
	fresh := state.Instance{Name: "new", FromFile: true}
	names := func(list []state.Instance) (out []string) {
		for _, in := range list {
			out = append(out, in.Name)
		}
		return out
	}
	if got := names(Proposal([]state.Instance{old, byHand}, []state.Instance{fresh})); !slices.Equal(got, []string{"new", "default"}) {
		t.Errorf("got %v", got)
	}
	if got := names(Proposal([]state.Instance{old, byHand}, nil)); !slices.Equal(got, []string{"old", "default"}) {
		t.Errorf("no file: got %v", got)
	}
}

// A cluster that was founded with "init --vip" gets a file that names the same address.
func TestProposalTakesOverAddresses(t *testing.T) {
	byHand := state.Instance{Name: "default", Addresses: addressesOf("10.0.0.1/24", "10.0.0.9/24")}
	file := state.Instance{Name: "VI", FromFile: true, Addresses: addressesOf("10.0.0.1/24")}
	got := Proposal([]state.Instance{byHand}, []state.Instance{file})
	if len(got) != 2 || len(got[1].Addresses) != 1 || got[1].Addresses[0].Prefix.String() != "10.0.0.9/24" {
		t.Errorf("one of two: got %+v", got)
	}
	if len(byHand.Addresses) != 2 {
		t.Error("the state was changed")
	}
	byHand.Addresses = byHand.Addresses[:1]
	if got := Proposal([]state.Instance{byHand}, []state.Instance{file}); len(got) != 1 || got[0].Name != "VI" {
		t.Errorf("the only one: got %+v", got)
	}
}

func TestPlace(t *testing.T) {
	links := []vip.Link{
		{Name: "eth0", Up: true, Addresses: []vip.KernelAddress{{
			Prefix: netip.MustParsePrefix("10.0.0.11/24"), Subnet: netip.MustParsePrefix("10.0.0.0/24"),
		}}},
		{Name: "eth1", Up: true},
	}
	named := addressesOf("10.0.0.50/24")
	named[0].Dev = "ens5" // another node's name for it
	conf := &config.Config{Instances: []*config.Instance{{Name: "VI", Interface: "eth1", Addresses: []config.Address{
		{Prefix: netip.MustParsePrefix("10.0.0.60/24"), Dev: "eth0", Label: "eth0:vip"},
	}}}}
	for _, tt := range []struct {
		name, instance string
		address        state.Address
		link, label    string
		fails          string
	}{
		{"by subnet", "default", addressesOf("10.0.0.50/24")[0], "eth0", "", ""},
		{"no subnet", "default", addressesOf("192.0.2.1/24")[0], "", "", "no interface has an address in its subnet"},
		{"another node's device", "default", named[0], "eth0", "", ""},
		{"the own file's line counts", "VI", addressesOf("10.0.0.60/24")[0], "eth0", "eth0:vip", ""},
		{"the own file's instance counts", "VI", addressesOf("192.0.2.1/24")[0], "eth1", "", ""},
	} {
		got := Resolve([]state.Instance{{Name: tt.instance, Addresses: []state.Address{tt.address}}}, conf, links, nil)[0]
		a, err := got.addressOf(vip.Schedule{})
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: got %v, want error with %q", tt.name, err, tt.fails)
			}
			continue
		}
		if err != nil || a.Link != tt.link || a.Label != tt.label {
			t.Errorf("%s: got %+v, %v; want link %s label %s", tt.name, a, err, tt.link, tt.label)
		}
	}
	// A label that belongs to another interface's name would be refused by the kernel.
	p := Placement{Address: state.Address{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Label: "eth0:vip"}, Link: "ens5"}
	if a, err := p.addressOf(vip.Schedule{}); err != nil || a.Label != "" {
		t.Errorf("foreign label: %+v, %v", a, err)
	}
}

// On the wire is virtual_ipaddress, in its order, without the excluded ones.
func TestAdvertised(t *testing.T) {
	c, diags := config.LoadBytes("x", []byte("vrrp_instance V {\ninterface eth0\nvirtual_router_id 51\nvrrp hybrid\nvirtual_ipaddress {\n10.0.0.2/24\n10.0.0.1/24\n}\n"+
		"virtual_ipaddress_excluded {\n10.0.0.3/24\n}\n}"), config.Options{HostName: "h"})
	if c == nil {
		t.Fatal(diags)
	}
	got := Advertised(InstanceOf(c.Instances[0]))
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
