package machine

import "testing"

func TestDiffers(t *testing.T) {
	host := Facts{MachineID: "m1", ProductUUID: "u1", Hardware: []string{"a", "b"}, Device: true}
	with := func(change func(*Facts)) Facts { f := host; change(&f); return f }
	for _, tt := range []struct {
		name       string
		bound, now Facts
		same       bool
	}{
		{"the same", host, host, true},
		{"an interface more and one less", host, with(func(f *Facts) { f.Hardware = []string{"b", "c"} }), true},
		{"all interfaces replaced", host, with(func(f *Facts) { f.Hardware = []string{"c"} }), true},
		{"a disk in another machine", host, with(func(f *Facts) { f.ProductUUID = "u2"; f.Hardware = []string{"c"} }), false},
		{"a copied directory", host, with(func(f *Facts) { f.MachineID = "m2" }), false},
		{"a virtual machine's clone", host, with(func(f *Facts) { f.ProductUUID = "u2" }), false},
		{"another namespace of the host", host, with(func(f *Facts) { f.Hardware = []string{"c"}; f.Device = false }), false},
		{"the same namespace", host, with(func(f *Facts) { f.Device = false }), true},
		{"not root any more", host, with(func(f *Facts) { f.ProductUUID = "" }), true},
		{"not root any more, other interfaces", host, with(func(f *Facts) { f.ProductUUID = ""; f.Hardware = []string{"c"} }), false},
		{"no interfaces yet", host, with(func(f *Facts) { f.Hardware = nil }), true},
		{"nothing known", Facts{}, host, true},
		{"nothing to be read", host, Facts{}, true},
	} {
		if why := Differs(tt.bound, tt.now); (why == "") != tt.same {
			t.Errorf("%s: differs %q", tt.name, why)
		}
	}
}

func TestMergeRemembersInterfaces(t *testing.T) {
	bound := Facts{MachineID: "m1", Hardware: []string{"a"}}
	bound = Merge(bound, Facts{ProductUUID: "u1", Hardware: []string{"b"}})
	if bound.MachineID != "m1" || bound.ProductUUID != "u1" || len(bound.Hardware) != 2 {
		t.Errorf("got %+v", bound)
	}
	if why := Differs(bound, Facts{Hardware: []string{"a"}}); why != "" {
		t.Errorf("an interface that was away and is back: %s", why)
	}
}
