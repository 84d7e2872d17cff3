package main

import (
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

func parse(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parseOptions(args, io.Discard)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return o
}

func TestParseOptions(t *testing.T) {
	o := parse(t)
	if !slices.Equal(o.sections, sectionNames) || o.n != 20 || o.elections != 200 || len(o.adverts) != 3 || o.busyFor != time.Minute {
		t.Errorf("defaults: %+v", o)
	}
	for _, h := range []time.Duration{30 * ms, 50 * ms, 100 * ms, 200 * ms, time.Second} {
		if !slices.Contains(o.heartbeats, h) || !slices.Contains(o.loadHeartbeats, h) {
			t.Errorf("H %v is not measured by default", h)
		}
	}
	o = parse(t, "-sections", "size,gaps", "-adverts", "", "-n", "3")
	if !slices.Equal(o.sections, []string{"gaps", "size"}) || o.adverts != nil || o.n != 3 || !o.has("size") || o.has("load") {
		t.Errorf("given: %+v", o)
	}
	o = parse(t, "-quick", "-n", "7")
	if o.n != 7 || o.busyFor != 5*time.Second || len(o.heartbeats) != 2 || !slices.Equal(o.adverts, []trial.Keepalived{{Version: 3, Advert: 100 * ms}}) {
		t.Errorf("quick: %+v", o)
	}
	for args, says := range map[string]string{
		"-env RAFTVIP_NICE":         `-env: "RAFTVIP_NICE": must be like`,
		"-env A=1,=2":               `-env: "=2": must be like`,
		"-sections gaps,wind":       `"wind"`,
		"-n 0":                      "-n: must be at least 1",
		"-heartbeats fast":          `-heartbeats: "fast"`,
		"-heartbeats 1ms":           "must be 20ms to 10s",
		"-load-heartbeats 1h":       `-load-heartbeats: "1h"`,
		"-adverts 1s":               "must be like v3/100ms",
		"-adverts v4/1s":            "must be like v3/100ms",
		"-adverts v3/1ms":           "must be like v3/100ms",
		"-stall 1ms":                "-stall: must be at least 5ms",
		"-idle 1ms":                 "-busy, -idle: must be at least 1s",
		"-keepalived-n -1":          "must not be negative",
		"gaps":                      `unknown argument "gaps"`,
		"-sections , -n 0 -stall 0": "-n: must be at least 1", // with the others
	} {
		_, err := parseOptions(strings.Fields(args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", args, err, says)
		}
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

func TestTrialsOf(t *testing.T) {
	slow, quick := trial.Keepalived{Version: 2, Advert: time.Second}, trial.Keepalived{Version: 3, Advert: 100 * ms}
	if o := (options{n: 20}); o.trialsOf(slow) != 5 || o.trialsOf(quick) != 10 {
		t.Errorf("%d and %d", o.trialsOf(slow), o.trialsOf(quick))
	}
	if o := (options{n: 1}); o.trialsOf(slow) != 1 || o.trialsOf(quick) != 1 {
		t.Error("none at all")
	}
	if o := (options{n: 20, keepalivedN: 7}); o.trialsOf(slow) != 7 || o.trialsOf(quick) != 7 {
		t.Error("what is given does not count")
	}
}

// TestSteps: each section has steps, of that section only, and elections are topped
// up to what was asked for.
func TestSteps(t *testing.T) {
	for _, s := range sectionNames {
		b := &bench{options: parse(t, "-sections", s)}
		steps, err := b.steps()
		if err != nil || len(steps) == 0 {
			t.Errorf("%s: %d steps, %v", s, len(steps), err)
		}
		for _, st := range steps {
			if st.section != s || st.takes <= 0 || st.run == nil {
				t.Errorf("%s: %+v", s, st)
			}
		}
	}
	alone := (&bench{}).moreElections(200, 0)
	if after := (&bench{}).moreElections(200, 500); after.takes >= alone.takes {
		t.Errorf("%v after enough failures, %v without", after.takes, alone.takes)
	}
}
