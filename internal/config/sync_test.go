package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

// vi is an instance with what else is to stand in it.
func vi(name string, more ...string) string {
	return fmt.Sprintf("vrrp_instance %q {\ninterface eth0\nvirtual_router_id %d\nno_virtual_ipaddress\n%s\n}\n", name, len(name)+int(name[len(name)-1]), strings.Join(more, "\n"))
}

// members tells who is in which sync group.
func members(c *config.Config) string {
	var out []string
	for _, in := range c.Instances {
		if in.SyncGroup != "" {
			out = append(out, in.Name+"="+in.SyncGroup)
		}
	}
	return strings.Join(out, " ")
}

// TestSyncGroup: the forms that keepalived 2.2.7 takes, and what it leaves out of a group
// with a word about it.
func TestSyncGroup(t *testing.T) {
	instances := vi("a") + vi("b") + vi("c d")
	for _, tt := range []struct{ name, in, want, warns string }{
		{"one per line", "vrrp_sync_group G {\ngroup {\na\nb\n}\n}", "a=G b=G", ""},
		{"one line", "vrrp_sync_group G { group { a  b } }", "a=G b=G", ""},
		{"several on lines, quoted", "vrrp_sync_group \"my group\" {\ngroup {\na b\n\"c d\"\n}\n}", "a=my group b=my group c d=my group", ""},
		{"no such instance", "vrrp_sync_group G {\ngroup {\na\nbb\nb\n}\n}", "a=G b=G", "x.conf:4: warning: vrrp_sync_group G: there is no vrrp_instance bb; it is ignored"},
		{"nobody", "vrrp_sync_group G {\ngroup { }\n}", "", "x.conf:1: warning: vrrp_sync_group G: no instance in it"},
		{"nothing", "vrrp_sync_group G {\n}", "", "x.conf:1: warning: vrrp_sync_group G: no instance in it"},
		{"one", "vrrp_sync_group G {\ngroup { a }\n}", "a=G", "x.conf:1: warning: vrrp_sync_group G: only one instance in it, a"},
		{"twice", "vrrp_sync_group G {\ngroup { a b a }\n}", "a=G b=G", "x.conf:2: warning: vrrp_sync_group G: a is in it already"},
		{"in two", "vrrp_sync_group G { group { a b } }\nvrrp_sync_group H {\ngroup {\nb\na\n\"c d\"\n}\n}", "a=G b=G c d=H",
			"x.conf:2: warning: vrrp_sync_group H: only one instance in it|x.conf:4: warning: vrrp_sync_group H: b is in vrrp_sync_group G already and stays there, as in keepalived|x.conf:5: warning"},
	} {
		for order, text := range []string{tt.in + "\n" + instances, instances + tt.in} {
			cfg := load(t, text, machine())
			if got := members(cfg); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
			want := strings.FieldsFunc(tt.warns, func(r rune) bool { return r == '|' })
			if len(cfg.Warnings) != len(want) {
				t.Errorf("%s: got\n%swant %q", tt.name, list(cfg.Warnings), want)
				continue
			}
			for i, w := range want {
				if order == 0 && !strings.HasPrefix(cfg.Warnings[i].String(), w) {
					t.Errorf("%s: got %s, want %s", tt.name, cfg.Warnings[i], w)
				}
			}
		}
	}
	for in, want := range map[string]string{
		"vrrp_sync_group {\ngroup { a b }\n}":                                          "x.conf:1: vrrp_sync_group: missing name",
		"vrrp_sync_group G { group { a b } }\nvrrp_sync_group G { group { \"c d\" } }": "x.conf:2: vrrp_sync_group G: defined before, at x.conf:1",
		"vrrp_sync_group G {\ngroup { a }\ngroup { b }\n}":                             "x.conf:3: group: second block",
		"vrrp_sync_group G {\ngroup a b\n}":                                            "x.conf:2: group: missing {",
		"vrrp_sync_group G {\ngroup {\na { b }\n}\n}":                                  "x.conf:3: group: no block",
		"vrrp_sync_group G {\ngroups { a b }\n}":                                       "x.conf:2: unknown block \"groups\"; did you mean group?",
		"vrrp_sync_gruop G {\ngroup { a b }\n}":                                        "x.conf:1: unknown block \"vrrp_sync_gruop\"; did you mean vrrp_sync_group?",
	} {
		if cfg, diags := config.LoadBytes("x.conf", []byte(in+"\n"+instances), machine()); cfg != nil || !strings.Contains(list(diags), want) {
			t.Errorf("%q: got\n%swant %s", in, list(diags), want)
		}
	}
}

// TestVRRPInSyncGroup: VRRP moves what Raft would move together.
func TestVRRPInSyncGroup(t *testing.T) {
	vrrp := func(name string, id int, mode string) string {
		return fmt.Sprintf("vrrp_instance %s {\nvrrp %s\ninterface eth0\nvirtual_router_id %d\nvirtual_ipaddress { 10.0.0.%d/24 }\n}\n", name, mode, id, id)
	}
	group := "vrrp_sync_group G { group { a b } }\n"
	for _, tt := range []struct{ in, want string }{
		{vrrp("a", 1, "off") + vrrp("b", 2, "off"), ""},
		{vrrp("a", 1, "off") + vrrp("b", 2, "only"), "b moves without the others"},
		{vrrp("a", 1, "only") + vrrp("b", 2, "only"), "a, b moves without the others"},
		{vrrp("a", 1, "off") + vrrp("b", 2, "hybrid"), "b has the same owner in this cluster as the others, but"},
	} {
		var got []config.Diagnostic
		for _, w := range load(t, group+tt.in, machine()).Warnings {
			if strings.Contains(w.Message, "vrrp_sync_group") {
				got = append(got, w)
			}
		}
		if (tt.want == "") != (len(got) == 0) || len(got) > 1 || !strings.Contains(list(got), tt.want) {
			t.Errorf("%q: got %s, want %q", tt.in, list(got), tt.want)
		}
	}
}

// TestOwnership: what is refused with "ownership separate", and what is not.
func TestOwnership(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "vrrp_instance i%d {\ninterface eth0\nvirtual_router_id %d\nno_virtual_ipaddress\n}\n", i, i+1)
		}
		return b.String()
	}
	pair := vi("a") + vi("b") + vi("x")
	for _, tt := range []struct{ name, in, want string }{
		{"each alone", pair, ""},
		{"a group and its name in it", pair + "vrrp_sync_group x { group { a x } }", ""},
		{"a group with the name of an instance that is in none", "vrrp_sync_group x { group { a b } }\n" + pair, "x.conf:4: vrrp_sync_group x: vrrp_instance x at x.conf:"},
		{"and one that is in another", pair + "vrrp_sync_group x { group { a b } }\nvrrp_sync_group y { group { x } }", ""},
		{"a group with the name of a plain VRRP router", "vrrp_sync_group v { group { a b } }\n" + pair + vi("v", "vrrp only"), ""},
		{"64 and default", many(64) + vi("default"), ""},
		{"65", many(65), "x.conf:2: ownership separate: 65 groups"},
		{"65 in two", many(65) + "vrrp_sync_group G { group { i1 i2 } }", ""},
	} {
		cfg, diags := config.LoadBytes("x.conf", []byte("raft {\nownership separate\n}\n"+tt.in), machine())
		if (tt.want == "") != (cfg != nil) || !strings.Contains(list(diags), tt.want) {
			t.Errorf("%s: got\n%swant %q", tt.name, list(diags), tt.want)
		}
		if cfg, diags := config.LoadBytes("x.conf", []byte("raft {\nownership together\n}\n"+tt.in), machine()); cfg == nil {
			t.Errorf("%s, together: %s", tt.name, list(diags))
		}
	}
}

// TestApart: a file that looks as if its instances were to be on different nodes gives one
// warning, unless it says who owns what.
func TestApart(t *testing.T) {
	const sync = "vrrp_sync_group G { group { a b } }\n"
	for _, tt := range []struct{ name, in, want string }{
		{"one instance", vi("a", "state MASTER", "priority 150"), ""},
		{"equal", vi("a", "priority 101", "state MASTER") + vi("b", "priority 101", "state MASTER"), ""},
		{"nothing said", vi("a") + vi("b"), ""},
		{"state BACKUP or none", vi("a", "state BACKUP") + vi("b"), ""},
		{"priority", vi("a", "priority 101") + vi("b", "priority 90") + vi("c", "priority 80"), "vrrp_instance b: another priority than a, but all instances move together"},
		{"state", vi("a", "priority 101", "state MASTER") + vi("b", "priority 101"), "vrrp_instance b: another state than a"},
		{"in one group", sync + vi("a", "priority 101") + vi("b", "priority 90"), ""},
		{"beside a group", sync + vi("a", "priority 101") + vi("b", "priority 90") + vi("c", "priority 90"), "vrrp_instance c: another priority than a"},
	} {
		said := 0
		cfg := load(t, tt.in, machine())
		for _, w := range cfg.Warnings {
			if strings.Contains(w.Message, "move together") {
				said++
			}
		}
		if want := min(len(tt.want), 1); said != want || !strings.Contains(list(cfg.Warnings), tt.want) {
			t.Errorf("%s: got\n%swant %q", tt.name, list(cfg.Warnings), tt.want)
		}
		for _, said := range []string{"together", "separate"} {
			cfg := load(t, "raft {\nownership "+said+"\n}\n"+tt.in, machine())
			if strings.Contains(list(cfg.Warnings), "move together") {
				t.Errorf("%s, %s: got\n%s", tt.name, said, list(cfg.Warnings))
			}
		}
	}
}
