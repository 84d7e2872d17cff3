package check

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

func script(name string, weight int, reverse ...bool) config.TrackRef {
	return config.TrackRef{Name: name, Weight: weight, Reverse: len(reverse) > 0}
}

var (
	good    = status{known: true, ok: true, detail: "succeeded"}
	failing = status{known: true, detail: "failed (exited with status 1)"}
)

// TestPriority has one case for each sentence about the effective priority. "a"
// succeeds, "f" fails, "n" has no result yet.
func TestPriority(t *testing.T) {
	states := map[string]status{"a": good, "a2": good, "f": failing, "f2": failing}
	for _, tt := range []struct {
		name     string
		base     int
		track    []config.TrackRef
		want     string // Arithmetic
		total    int
		faults   []string
		degraded bool
		unready  bool
	}{
		{name: "nothing tracked", base: 100, want: "100 = 100", total: 100},
		{name: "positive weight is added while OK", base: 101, track: []config.TrackRef{script("a", 6)},
			want: "107 = 101 + 6 a", total: 107},
		{name: "and not while KO", base: 101, track: []config.TrackRef{script("f", 6)},
			want: "101 = 101 (f failing: +6 not counted)", total: 101, degraded: true},
		{name: "negative weight is subtracted while KO", base: 101, track: []config.TrackRef{script("f", -4)},
			want: "97 = 101 - 4 f", total: 97, degraded: true},
		{name: "and not while OK", base: 101, track: []config.TrackRef{script("a", -4)},
			want: "101 = 101", total: 101},
		{name: "weights add up", base: 101, track: []config.TrackRef{script("a", 6), script("f", -4), script("f2", 2)},
			want: "103 = 101 + 6 a - 4 f (f2 failing: +2 not counted)", total: 103, degraded: true},
		{name: "reverse, positive: subtracted while OK (observed)", base: 100, track: []config.TrackRef{script("a", 6, true)},
			want: "94 = 100 - 6 a", total: 94, degraded: true},
		{name: "reverse, positive: nothing while KO (observed)", base: 100, track: []config.TrackRef{script("f", 6, true)},
			want: "100 = 100", total: 100},
		{name: "reverse, negative: added while KO (observed)", base: 100, track: []config.TrackRef{script("f", -6, true)},
			want: "106 = 100 + 6 f", total: 106},
		{name: "reverse, negative: nothing while OK (observed)", base: 100, track: []config.TrackRef{script("a", -6, true)},
			want: "100 = 100 (a ok (reverse): +6 not counted)", total: 100, degraded: true},
		{name: "limited to 254", base: 250, track: []config.TrackRef{script("a", 50)},
			want: "254 = 250 + 50 a (300, limited to 254)", total: 300},
		{name: "limited to 1", base: 20, track: []config.TrackRef{script("f", -50)},
			want: "1 = 20 - 50 f (-30, limited to 1)", total: -30, degraded: true},
		{name: "the sum is kept unlimited: +50 and -60 on 250 is 240", base: 250, track: []config.TrackRef{script("a", 50), script("f", -60)},
			want: "240 = 250 + 50 a - 60 f", total: 240, degraded: true},
		{name: "base 255 is never changed", base: 255, track: []config.TrackRef{script("f", -60), script("a", 6)},
			want: "255 = 255 (255 is the address owner: weights do not count)", total: 255},
		{name: "base 255: an unweighted failure is a fault", base: 255, track: []config.TrackRef{script("f", 0)},
			want: "255 = 255", total: 255, faults: []string{"script f failed (exited with status 1)"}},
		{name: "weight 0: KO is a fault", base: 100, track: []config.TrackRef{script("f", 0)},
			want: "100 = 100", total: 100, faults: []string{"script f failed (exited with status 1)"}},
		{name: "weight 0: OK is none", base: 100, track: []config.TrackRef{script("a", 0)}, want: "100 = 100", total: 100},
		{name: "every fault counts", base: 100, track: []config.TrackRef{script("f", 0), script("f2", 0)}, want: "100 = 100", total: 100,
			faults: []string{"script f failed (exited with status 1)", "script f2 failed (exited with status 1)"}},
		{name: "reverse with weight 0: OK is the fault", base: 100, track: []config.TrackRef{script("a", 0, true)},
			want: "100 = 100", total: 100, faults: []string{"script a succeeded (reverse: that is the fault)"}},
		{name: "reverse with weight 0: KO is none", base: 100, track: []config.TrackRef{script("f", 0, true)}, want: "100 = 100", total: 100},
		{name: "no result yet: nothing subtracted either (observed)", base: 100, track: []config.TrackRef{script("n", -6)},
			want: "100 = 100 (n has no result yet)", total: 100, unready: true},
		{name: "no result yet: not OK, not ready", base: 100, track: []config.TrackRef{script("n", 6)},
			want: "100 = 100 (n has no result yet)", total: 100, unready: true},
		{name: "no result yet, weight 0: not ready, but no fault", base: 100, track: []config.TrackRef{script("n", 0)},
			want: "100 = 100", total: 100, unready: true},
		{name: "no result yet, reverse: no fault either", base: 100, track: []config.TrackRef{script("n", 0, true)},
			want: "100 = 100", total: 100, unready: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluate(&config.Instance{Name: "VI", Priority: tt.base, TrackScripts: tt.track}, states, links{})
			if got := r.Arithmetic(); got != tt.want {
				t.Errorf("Arithmetic = %q, want %q", got, tt.want)
			}
			if !strings.HasPrefix(tt.want, jsonNumber(r.Effective)+" ") || r.Total != tt.total {
				t.Errorf("effective %d, total %d; want %s, %d", r.Effective, r.Total, tt.want, tt.total)
			}
			if !reflect.DeepEqual(r.Faults, tt.faults) || r.Degraded != tt.degraded || r.Ready == tt.unready {
				t.Errorf("faults %q degraded %v ready %v", r.Faults, r.Degraded, r.Ready)
			}
		})
	}
}

func jsonNumber(n int) string { b, _ := json.Marshal(n); return string(b) }

// TestLowered: what a move is blamed on.
func TestLowered(t *testing.T) {
	states := map[string]status{"a": good, "f": failing, "f2": failing}
	for _, tt := range []struct {
		name  string
		base  int
		track []config.TrackRef
		want  string
	}{
		{"all is well", 101, []config.TrackRef{script("a", 6)}, ""},
		{"no result yet", 101, []config.TrackRef{script("n", 6)}, ""},
		{"positive weight", 100, []config.TrackRef{script("f", 6), script("a", 1)}, "f failing: 107 to 101"},
		{"negative weight", 106, []config.TrackRef{script("f", -5)}, "f failing: 106 to 101"},
		{"two", 100, []config.TrackRef{script("f", 6), script("f2", -5)}, "f failing, f2 failing: 106 to 95"},
		{"reverse", 100, []config.TrackRef{script("a", 6, true)}, "a ok (reverse): 100 to 94"},
		{"weight 0 is a fault", 100, []config.TrackRef{script("f", 0)}, ""},
		{"limited", 250, []config.TrackRef{script("f", 50)}, "f failing: 254 to 250"},
		{"255 is never lowered", 255, []config.TrackRef{script("f", 6)}, ""},
	} {
		r := evaluate(&config.Instance{Name: "VI", Priority: tt.base, TrackScripts: tt.track}, states, links{})
		if got := r.Lowered(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	two := Combine([]InstanceReport{
		evaluate(&config.Instance{Name: "A", Priority: 100, TrackScripts: []config.TrackRef{script("f", 6)}}, states, links{}),
		evaluate(&config.Instance{Name: "B", Priority: 100}, states, links{}),
	})
	if got := two.Lowered(); got != "A: f failing: 106 to 100" {
		t.Errorf("two instances: %q", got)
	}
}

// TestInterfaces: the rules of track_interface and of the own interface.
func TestInterfaces(t *testing.T) {
	ifs := links{"eth0": {up: true}, "eth1": {}}
	for _, tt := range []struct {
		name   string
		inst   config.Instance
		links  links
		want   string
		faults []string
		ready  bool
	}{
		{"own interface up", config.Instance{Interface: "eth0"}, ifs, "100 = 100", nil, true},
		{"own interface down is a fault", config.Instance{Interface: "eth1"}, ifs, "100 = 100", []string{"interface eth1 is down"}, true},
		{"own interface missing is a fault", config.Instance{Interface: "eth9"}, ifs, "100 = 100", []string{"interface eth9 does not exist"}, true},
		{"unless dont_track_primary", config.Instance{Interface: "eth1", DontTrackPrimary: true}, ifs, "100 = 100", nil, true},
		{"no interface named", config.Instance{}, ifs, "100 = 100", nil, true},
		{"track_interface without weight: down is a fault", config.Instance{TrackInterfaces: []config.TrackRef{{Name: "eth1"}}}, ifs,
			"100 = 100", []string{"interface eth1 is down"}, true},
		{"track_interface with weight", config.Instance{TrackInterfaces: []config.TrackRef{{Name: "eth1", Weight: -2}, {Name: "eth0", Weight: 5}}}, ifs,
			"103 = 100 - 2 eth1 + 5 eth0", nil, true},
		{"positive weight, down", config.Instance{TrackInterfaces: []config.TrackRef{{Name: "eth1", Weight: 2}}}, ifs,
			"100 = 100 (eth1 down: +2 not counted)", nil, true},
		{"own interface with a weight: still a fault when down (observed)",
			config.Instance{Interface: "eth1", TrackInterfaces: []config.TrackRef{{Name: "eth1", Weight: -2}}}, ifs,
			"98 = 100 - 2 eth1", []string{"interface eth1 is down"}, true},
		{"but not with dont_track_primary",
			config.Instance{Interface: "eth1", DontTrackPrimary: true, TrackInterfaces: []config.TrackRef{{Name: "eth1", Weight: -2}}}, ifs,
			"98 = 100 - 2 eth1", nil, true},
		{"own interface named again without weight counts once",
			config.Instance{Interface: "eth1", TrackInterfaces: []config.TrackRef{{Name: "eth1"}}}, ifs,
			"100 = 100", []string{"interface eth1 is down"}, true},
		{"links not known yet: not ready, no fault", config.Instance{Interface: "eth0"}, nil, "100 = 100", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.inst.Priority = 100
			r := evaluate(&tt.inst, nil, tt.links)
			if n := len(r.Terms); tt.name == "own interface named again without weight counts once" && n != 1 {
				t.Errorf("%d terms, want 1", n)
			}
			if got := r.Arithmetic(); got != tt.want || !reflect.DeepEqual(r.Faults, tt.faults) || r.Ready != tt.ready {
				t.Errorf("%q faults %q ready %v; want %q %q %v", got, r.Faults, r.Ready, tt.want, tt.faults, tt.ready)
			}
		})
	}
}

// TestFaultShowsOutput: the last line of the script's output is part of the reason.
func TestFaultShowsOutput(t *testing.T) {
	f := failing
	f.output = "connecting\ncurl: (7) Failed to connect"
	r := evaluate(&config.Instance{Priority: 100, TrackScripts: []config.TrackRef{script("chk_lb", 0)}}, map[string]status{"chk_lb": f}, links{})
	if want := []string{"script chk_lb failed (exited with status 1): curl: (7) Failed to connect"}; !reflect.DeepEqual(r.Faults, want) {
		t.Errorf("faults %q, want %q", r.Faults, want)
	}
}

func TestCombine(t *testing.T) {
	one := InstanceReport{Name: "A", Base: 101, Effective: 107, Ready: true}
	two := InstanceReport{Name: "B", Base: 100, Effective: 50, Ready: true, Degraded: true, NoPreempt: true, PreemptDelay: time.Second, Faults: []string{"x", "y"}}
	three := InstanceReport{Name: "C", Base: 90, Effective: 90, Faults: []string{"y"}, PreemptDelay: time.Minute}
	for _, tt := range []struct {
		name string
		in   []InstanceReport
		want Report
	}{
		{"no instance: priority 100", nil, Report{Ready: true, Priority: 100}},
		{"one instance: its own", []InstanceReport{one}, Report{Ready: true, Priority: 107}},
		{"several: the sum, each fault once, the longest delay", []InstanceReport{one, two, three},
			Report{Priority: 247, Degraded: true, NoPreempt: true, PreemptDelay: time.Minute, Faults: []string{"x", "y"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Instances = tt.in
			if got := Combine(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
	inst := func(name string, base int, track ...config.TrackRef) InstanceReport {
		return evaluate(&config.Instance{Name: name, Priority: base, TrackScripts: track}, map[string]status{"a": good}, links{})
	}
	r := Combine([]InstanceReport{inst("A", 101, script("a", 6)), inst("B", 90)})
	if got, want := r.Arithmetic(), "197 = sum of A: 107 = 101 + 6 a, B: 90 = 90"; got != want {
		t.Errorf("Arithmetic = %q, want %q", got, want)
	}
	if got, want := Combine(r.Instances[1:]).Arithmetic(), "90 = 90"; got != want {
		t.Errorf("Arithmetic = %q, want %q", got, want)
	}
	if got, want := Combine(nil).Arithmetic(), "100 (default: no instance configured)"; got != want {
		t.Errorf("Arithmetic = %q, want %q", got, want)
	}
}

// TestReportJSON: a report survives being sent.
func TestReportJSON(t *testing.T) {
	f := failing
	f.since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := Combine([]InstanceReport{evaluate(&config.Instance{
		Name: "VI", Priority: 101, Interface: "eth0", PreemptDelay: time.Second,
		TrackScripts: []config.TrackRef{script("chk", 6), script("g", 0)},
	}, map[string]status{"chk": good, "g": f}, links{})})
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, back) {
		t.Errorf("got  %+v\nwant %+v\n%s", back, r, b)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		" a\tb\r\n":            "a b",
		"\x1b[31mred\x00":      "[31mred",
		"half \xc3":            "half ?",
		"one\ntwo\n":           "one\ntwo",
		strings.Repeat("x", 9): "xxxxxxxxx",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
	if got := lastLine("a\n" + strings.Repeat("é", 100)); got != strings.Repeat("é", 60)+"..." {
		t.Errorf("lastLine = %q", got)
	}
}
