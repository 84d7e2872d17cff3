package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/keepalived"
)

// load loads a file that must have no errors.
func load(t *testing.T, text string, opt config.Options) *config.Config {
	t.Helper()
	cfg, diags := config.LoadBytes("x.conf", []byte(text), opt)
	if cfg == nil {
		t.Fatalf("not loaded:\n%s", list(diags))
	}
	return cfg
}

func addresses(in *config.Instance) string {
	var out []string
	for _, a := range in.Addresses {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s excluded=%t %s %s %s %s", a.Prefix, a.Excluded, a.Dev, a.Brd, a.Scope, a.Label)))
	}
	return strings.Join(out, "\n")
}

func TestExampleHAProxy(t *testing.T) {
	for name, want := range map[string]struct {
		id, state string
		priority  int
	}{"hapee-lb1.cfg": {"lb1", "MASTER", 101}, "hapee-lb2.cfg": {"lb2", "BACKUP", 100}} {
		cfg, diags := config.Load("../../deploy/examples/"+name, onDisk())
		if len(diags) > 0 {
			t.Fatalf("diagnostics:\n%s", list(diags))
		}
		in := cfg.Instances[0]
		if cfg.Global.RouterID != want.id || cfg.Global.ScriptUser != "root" || !cfg.Global.EnableScriptSecurity ||
			in.InitialState != want.state || in.Priority != want.priority || in.VirtualRouterID != 51 || in.Interface != "eth0" {
			t.Errorf("%s: %+v %+v", name, cfg.Global, in)
		}
		if got := addresses(in); got != "10.99.0.50/32 excluded=true\n10.99.0.51/24 excluded=true    eth0:vip" {
			t.Errorf("addresses %s", got)
		}
		s := cfg.Scripts[0]
		if !reflect.DeepEqual(s.Argv, []string{"pkill", "-0", "sshd"}) || s.Interval != 5*time.Second || s.Timeout != 5*time.Second ||
			s.Weight != -4 || s.Fall != 2 || s.Rise != 1 {
			t.Errorf("script %+v", s)
		}
		if got := fmt.Sprint(in.TrackScripts[0].Name, in.TrackScripts[0].Weight, in.TrackScripts[1].Name, in.TrackScripts[1].Weight,
			in.TrackInterfaces[0].Name, in.TrackInterfaces[0].Weight); got != "chk_sshd-4chk_lb6eth0-2" {
			t.Errorf("tracks %s", got)
		}
	}
}

// onDisk is the imaginary machine with real configuration files.
func onDisk() config.Options {
	opt := machine()
	opt.FS = nil
	return opt
}

func TestExampleActiveActive(t *testing.T) {
	for host, want := range map[string]string{"lb1": "MASTER150BACKUP100", "lb2.example.net": "BACKUP100MASTER150"} {
		opt := onDisk()
		opt.HostName = host
		cfg, diags := config.Load("../../deploy/examples/nginx-active-active.conf", opt)
		if cfg == nil {
			t.Fatal(list(diags))
		}
		a, b := cfg.Instances[0], cfg.Instances[1]
		if got := fmt.Sprint(a.InitialState, a.Priority, b.InitialState, b.Priority); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
		if addresses(a) != "10.99.0.60/24 excluded=false eth0" || a.AdvertInt != 500*time.Millisecond ||
			a.TrackScripts[0].Weight != 50 || b.TrackScripts[0].Weight != -60 || cfg.Scripts[0].User != "nobody" ||
			a.GARP.MasterRefresh != time.Minute || cfg.Global.VRRPVersion != 3 {
			t.Errorf("%+v\n%+v\n%+v", a, b, cfg.Global)
		}
		if len(diags) != 8 || strings.Count(list(diags), "another state and priority than VI_A") != 1 {
			t.Errorf("one warning each for vrrp_strict, unicast_src_ip, unicast_peer, notify, three notify_*, and that both move together, got\n%s", list(diags))
		}
	}
}

func TestDefaults(t *testing.T) {
	cfg := load(t, "vrrp_instance A {\nno_virtual_ipaddress\n}\nvrrp_script s {\nscript /x\n}", config.Options{HostName: "lb1.example.net"})
	want := config.Default("lb1.example.net")
	if cfg.Global != want.Global || !reflect.DeepEqual(cfg.Raft, want.Raft) {
		t.Errorf("%+v\n%+v\nwant %+v\n%+v", cfg.Global, cfg.Raft, want.Global, want.Raft)
	}
	if want.Raft.NodeID != "lb1" || want.Raft.Listen != ":7355" || want.Raft.HeartbeatTimeout != 300*time.Millisecond ||
		want.Global.GARP != (config.GARP{MasterDelay: 5 * time.Second, MasterRepeat: 5, MasterRefresh: time.Minute, MasterRefreshRepeat: 1}) {
		t.Errorf("%+v", want)
	}
	in := *cfg.Instances[0]
	in.Pos = config.Pos{}
	if wantIn := (config.Instance{Name: "A", Priority: 100, AdvertInt: time.Second, GARP: want.Global.GARP}); !reflect.DeepEqual(in, wantIn) {
		t.Errorf("%+v, want %+v", in, wantIn)
	}
	s := *cfg.Scripts[0]
	s.Pos = config.Pos{}
	if wantScript := (config.Script{Name: "s", Argv: []string{"/x"}, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1}); !reflect.DeepEqual(s, wantScript) {
		t.Errorf("%+v, want %+v", s, wantScript)
	}
}

// Blocks may stand in any order: global settings below the instances count.
func TestOrderIndependence(t *testing.T) {
	blocks := []string{
		"vrrp_instance A {\nvirtual_router_id 1\ngarp_master_repeat 2\nvirtual_ipaddress {\n10.0.0.1\n}\ntrack_script {\ns\n}\n}\n",
		"vrrp_script s {\nscript pgrep\nweight 7 reverse\n}\n",
		"global_defs {\nvrrp_garp_master_repeat 9\nvrrp_garp_master_delay 1.5\ndefault_interface eth1\n}\n",
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		text := ""
		for _, i := range order {
			text += blocks[i]
		}
		in := load(t, text, machine()).Instances[0]
		if in.GARP.MasterRepeat != 2 || in.GARP.MasterDelay != 1500*time.Millisecond || in.Interface != "eth1" ||
			len(in.TrackScripts) != 1 || in.TrackScripts[0].Weight != 7 || !in.TrackScripts[0].Reverse {
			t.Errorf("order %v: %+v", order, in)
		}
	}
}

func TestTrackWeights(t *testing.T) {
	in := load(t, `
vrrp_script a {
	script pgrep
	weight -3 reverse
}
vrrp_script b {
	script pgrep
	weight 4
}
vrrp_script c {
	script pgrep
}
vrrp_instance I {
	virtual_router_id 1
	no_virtual_ipaddress
	track_script {
		a
		b weight 5
	}
	track_script { 
		c reverse 
	}
	track_interface {
		eth0
		eth1 weight -20 reverse
	}
}
vrrp_instance J {
	virtual_router_id 2
	no_virtual_ipaddress
	track_script { 
		a weight 6
		b reverse 
		c weight 0 noreverse
	}
}`, machine())
	show := func(refs []config.TrackRef) (s string) {
		for _, r := range refs {
			s += fmt.Sprintf("%s %d %t; ", r.Name, r.Weight, r.Reverse)
		}
		return s
	}
	for i, want := range []string{"a -3 true; b 5 false; c 0 true; ", "a 6 false; b 4 true; c 0 false; "} {
		if got := show(in.Instances[i].TrackScripts); got != want {
			t.Errorf("instance %d: %s, want %s", i, got, want)
		}
	}
	if got := show(in.Instances[0].TrackInterfaces); got != "eth0 0 false; eth1 -20 true; " {
		t.Errorf("interfaces %s", got)
	}
}

func TestRaft(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want func(*config.Raft)
	}{
		{"", func(*config.Raft) {}},
		{"node_id node-1.a_b", func(r *config.Raft) { r.NodeID = "node-1.a_b" }},
		{"listen 10.0.0.1", func(r *config.Raft) { r.Listen = "10.0.0.1:7355" }},
		{"listen :1", func(r *config.Raft) { r.Listen = ":1" }},
		{"listen 0.0.0.0:1", func(r *config.Raft) { r.Listen = "0.0.0.0:1" }},
		{"listen [::]:1", func(r *config.Raft) { r.Listen = "[::]:1" }},
		{"listen ::1", func(r *config.Raft) { r.Listen = "[::1]:7355" }},
		{"advertise lb1.example.net:80", func(r *config.Raft) { r.Advertise = "lb1.example.net:80" }},
		{"peers a 10.0.0.1:5\npeers [fe80::1] 2001:db8::1", func(r *config.Raft) {
			r.Peers = []string{"a:7355", "10.0.0.1:5", "[fe80::1]:7355", "[2001:db8::1]:7355"}
		}},
		{"heartbeat_timeout 20ms", func(r *config.Raft) {
			r.HeartbeatTimeout, r.HeartbeatPos = 20*time.Millisecond, config.Pos{File: "x", Line: 2}
		}},
		{"heartbeat_timeout 1.5", func(r *config.Raft) {
			r.HeartbeatTimeout, r.HeartbeatPos = 1500*time.Millisecond, config.Pos{File: "x", Line: 2}
		}},
		{"heartbeat_timeout 10s\nownership together\non_quorum_loss release", func(r *config.Raft) {
			r.HeartbeatTimeout, r.HeartbeatPos = 10*time.Second, config.Pos{File: "x", Line: 2}
			r.OwnershipPos = config.Pos{File: "x", Line: 3}
		}},
		{"ownership separate", func(r *config.Raft) {
			r.Ownership, r.OwnershipPos = config.Separate, config.Pos{File: "x", Line: 2}
		}},
		{"witness\nguard lifetime\nsecret_file /a/../b\ndata_dir /c\nsocket /d", func(r *config.Raft) {
			r.Witness, r.Guard, r.SecretFile, r.DataDir, r.Socket = true, "lifetime", "/b", "/c", "/d"
		}},
	} {
		cfg, diags := config.LoadBytes("x", []byte("raft {\n"+tt.in+"\n}"), machine())
		if len(diags) > 0 {
			t.Errorf("%s: %s", tt.in, list(diags))
			continue
		}
		want := config.Default("lb1.example.net").Raft
		want.Pos = config.Pos{File: "x", Line: 1}
		tt.want(&want)
		if !reflect.DeepEqual(cfg.Raft, want) {
			t.Errorf("%s: %+v, want %+v", tt.in, cfg.Raft, want)
		}
	}
}

// Addresses keep what is written; excluded ones come last whatever the order.
func TestAddresses(t *testing.T) {
	in := load(t, `vrrp_instance I {
	virtual_router_id 1
	virtual_ipaddress_excluded {
		2001:DB8::1/64 scope site
	}
	virtual_ipaddress {
		10.0.0.1/24 dev eth1 brd + scope 253 label eth1:vip # comment
		10.0.0.2 broadcast 10.0.0.255
	}
}`, machine()).Instances[0]
	want := "10.0.0.1/24 excluded=false eth1 + 253 eth1:vip\n10.0.0.2/32 excluded=false  10.0.0.255\n2001:db8::1/64 excluded=true   site"
	if got := addresses(in); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if in.Addresses[1].Pos != (config.Pos{File: "x.conf", Line: 8}) {
		t.Errorf("position %s", in.Addresses[1].Pos)
	}
}

// keepalived: nopreempt and preempt_delay do nothing with state MASTER.
func TestPreemption(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "false 0s 100",
		"nopreempt":                            "true 0s 100",
		"nopreempt\npreempt":                   "false 0s 100",
		"nopreempt off":                        "false 0s 100",
		"preempt_delay 2.5":                    "false 2.5s 100",
		"nopreempt\npreempt_delay 5":           "true 0s 100",
		"state MASTER\npriority 9\nnopreempt":  "false 0s 9",
		"state MASTER":                         "false 0s 255",
		"state BACKUP\npriority 255":           "false 0s 255",
		"priority 255\nnopreempt":              "false 0s 255",
		"nopreempt\npriority 9\nstate MASTERX": "true 0s 9",
	} {
		i := load(t, "vrrp_instance I {\n"+in+"\n}", machine()).Instances[0]
		if got := fmt.Sprint(i.NoPreempt, i.PreemptDelay, i.Priority); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestDynamicInterfaces(t *testing.T) {
	text := "vrrp_instance I {\nvirtual_router_id 1\ninterface eth9\nvirtual_ipaddress {\n10.0.0.1 dev eth8\n}\n}\n"
	if _, diags := config.LoadBytes("x", []byte(text), machine()); len(diags) != 2 || !config.HasErrors(diags) {
		t.Errorf("two errors expected, got\n%s", list(diags))
	}
	for _, more := range []string{"dynamic_interfaces", "dynamic_interfaces allow_if_changes", "dynamic_interfaces on"} {
		if cfg := load(t, text+"global_defs {\n"+more+"\n}", machine()); len(cfg.Warnings) > 0 {
			t.Errorf("%s: %s", more, list(cfg.Warnings))
		}
	}
	if _, diags := config.LoadBytes("x", []byte(text), config.Options{HostName: "a"}); len(diags) > 0 {
		t.Errorf("without hook:\n%s", list(diags))
	}
}

// Diagnostics are in the order of the files, and lines within them.
func TestOrderOfDiagnostics(t *testing.T) {
	opt := machine()
	opt.FS = keepalived.Rooted(fstest.MapFS{
		"main":  {Data: []byte("include z\ninclude a\nvrrp_instance I {\npriority 0\n}\nbogus\n")},
		"z":     {Data: []byte("vrrp_script s {\n}\nbogus\n")},
		"a":     {Data: []byte("}\nvrrp_instance J {\npriority x\n}\n")},
		"other": {},
	})
	cfg, diags := config.Load("/main", opt)
	if cfg != nil {
		t.Error("loaded")
	}
	var got []string
	for _, d := range diags {
		if p := d.Pos.String(); len(got) == 0 || got[len(got)-1] != p {
			got = append(got, p)
		}
	}
	if want := "/main:3 /main:4 /main:6 /z:1 /z:3 /a:1 /a:2 /a:3"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestLoadMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raftvip.conf")
	cfg, diags := config.Load(path, config.Options{})
	if want := path + ": cannot read the file: no such file or directory\n"; cfg != nil || list(diags) != want {
		t.Errorf("%v, %s; want %s", cfg, list(diags), want)
	}
}

// A secret must not reach a message, wherever the line with it stands.
func TestSecretsAreNotShown(t *testing.T) {
	lines := []string{
		"auth_pass hunter2", "auth_passhunter2", `auth_pass "hunter2`, "authentication {\nauth_type PASS\nauth_pass hunter2\n}",
		"authentication { auth_pass hunter2 }", "authentication auth_pass hunter2", "auth_hmac {\nkey 1 text hunter2\n}",
		"script \"/x hunter2\"", "script /x hunter2", "notify \"/x hunter2", "authentification {\nauth_pass hunter2\n}",
	}
	for _, line := range lines {
		for _, block := range []string{"%s", "global_defs {\n%s\n}", "vrrp_instance I {\n%s\n}", "vrrp_script s {\n%s\n}", "raft {\n%s\n}"} {
			_, diags := config.LoadBytes("x", fmt.Appendf(nil, block, line), machine())
			if out := list(diags); strings.Contains(out, "hunter") {
				t.Errorf("secret shown: %s", out)
			}
		}
	}
}

// The real machine's hooks.
func TestSystem(t *testing.T) {
	opt := config.System(config.Options{HostName: "x"})
	dir := t.TempDir()
	script := filepath.Join(dir, "check")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(script, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	text := func(path, iface, user string) []byte {
		return fmt.Appendf(nil, "vrrp_script s {\nscript %s\nuser %s\n}\nvrrp_instance I {\nvirtual_router_id 1\ninterface %s\nno_virtual_ipaddress\ntrack_script {\ns\n}\n}", path, user, iface)
	}
	for _, good := range [][]byte{text(script, "lo", "root"), text(filepath.Join(dir, "link"), "lo", "0"), text("sh", "lo", "root root")} {
		if _, diags := config.LoadBytes("x", good, opt); len(diags) > 0 {
			t.Errorf("%s\n%s", good, list(diags))
		}
	}
	for _, bad := range [][]byte{text(script+"x", "lo", "root"), text(script, "no-such-if", "root"), text(script, "lo", "no-such-user"), text(script, "lo", "root no-such-group"), text("no-such-command", "lo", "root")} {
		if cfg, diags := config.LoadBytes("x", bad, opt); cfg != nil || len(diags) != 1 {
			t.Errorf("%s\n%s", bad, list(diags))
		}
	}
}

func FuzzLoadBytes(f *testing.F) {
	for _, pattern := range []string{"testdata/*.conf", "../../deploy/examples/*"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, diags := config.LoadBytes("x", data, machine())
		if (cfg == nil) != config.HasErrors(diags) {
			t.Fatal("configuration and errors disagree")
		}
		for _, d := range diags {
			if d.Message == "" || strings.ContainsAny(d.String(), "\n\x00") || d.Pos.Line < 1 {
				t.Fatalf("bad diagnostic %q", d)
			}
		}
		if cfg == nil {
			return
		}
		for _, in := range cfg.Instances {
			if in.Name == "" || in.Priority < 1 || in.Priority > 255 || in.VirtualRouterID < 0 || in.VirtualRouterID > 255 || in.AdvertInt <= 0 || in.GARP.MasterRepeat < 1 {
				t.Fatalf("bad instance %+v", in)
			}
			for _, a := range in.Addresses {
				if !a.Prefix.IsValid() || len(a.Label) > 15 {
					t.Fatalf("bad address %+v", a)
				}
			}
		}
		for _, s := range cfg.Scripts {
			if len(s.Argv) == 0 || s.Interval <= 0 || s.Timeout <= 0 || s.Rise < 1 || s.Fall < 1 {
				t.Fatalf("bad script %+v", s)
			}
		}
	})
}
