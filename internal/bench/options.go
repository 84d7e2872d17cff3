package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// sectionNames are what a run consists of, in this order.
var sectionNames = []string{"gaps", "moves", "elections", "addresses", "load", "tuning", "idle", "groups", "size"}

// defaultHeartbeat is that of a cluster whose configuration does not say.
const defaultHeartbeat = 300 * time.Millisecond

// options is one run as it was asked for.
type options struct {
	sections       []string
	n              int
	keepalivedN    int // 0: see trialsOf
	elections      int
	heartbeats     []time.Duration
	loadHeartbeats []time.Duration
	adverts        []trial.Keepalived
	busyFor        time.Duration
	idleFor        time.Duration
	threshold      time.Duration
	env            []string // of raftvip, KEY=VALUE
	out            string
	commit         string
	args           []string
}

// quick is what -quick changes of what is not given.
var quick = map[string]string{
	"n": "2", "elections": "4", "heartbeats": "300ms,50ms", "load-heartbeats": "300ms,50ms",
	"adverts": "v3/100ms", "busy": "5s", "idle": "5s",
}

// parseOptions reads the command line.
func parseOptions(args []string, out io.Writer) (options, error) {
	o := options{args: args}
	var sections, heartbeats, loadHeartbeats, adverts, env string
	var short bool
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&sections, "sections", strings.Join(sectionNames, ","), "what to measure, separated by commas")
	f.IntVar(&o.n, "n", 20, "trials of each")
	f.IntVar(&o.keepalivedN, "keepalived-n", 0, "trials of each with keepalived; 0: half of -n, or a quarter where it takes a second or more to notice a failure")
	f.IntVar(&o.elections, "elections", 200, "how many elections there must be; failures of the section gaps count")
	f.StringVar(&heartbeats, "heartbeats", "1s,300ms,200ms,100ms,50ms,30ms", "heartbeat `TIMEOUTS` of raftvip for gaps after failures")
	f.StringVar(&loadHeartbeats, "load-heartbeats", "1s,500ms,300ms,200ms,100ms,50ms,30ms", "heartbeat `TIMEOUTS` for false failovers")
	f.StringVar(&adverts, "adverts", "v2/1s,v3/100ms,v3/10ms", "VRRP versions and advert `INTERVALS` of keepalived; may be empty")
	f.StringVar(&env, "env", "", "environment of raftvip, `KEY=VALUE`, separated by commas; the tuning section has its own")
	f.DurationVar(&o.busyFor, "busy", time.Minute, "how long false failovers are counted")
	f.DurationVar(&o.idleFor, "idle", 10*time.Second, "over how long idle processor time is measured")
	f.DurationVar(&o.threshold, "stall", 10*time.Millisecond, "how long the machine may stand still in a clean trial; 5ms at least")
	f.StringVar(&o.out, "out", "docs/bench", "where DATE-COMMIT.md and .json are written")
	f.StringVar(&o.commit, "commit", "", "what is measured (default: ask git)")
	f.BoolVar(&short, "quick", false, "a run of a few minutes; other flags given still count")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if short {
		given := map[string]bool{}
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quick {
			if !given[name] {
				if err := f.Set(name, value); err != nil {
					return o, err
				}
			}
		}
	}
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	bound := func(ok bool, text string) {
		if !ok {
			check(errors.New(text))
		}
	}
	for _, s := range list(sections) {
		if !slices.Contains(sectionNames, s) {
			check(fmt.Errorf("-sections: %q: must be of %s", s, strings.Join(sectionNames, ",")))
		}
	}
	for _, s := range sectionNames {
		if slices.Contains(list(sections), s) {
			o.sections = append(o.sections, s)
		}
	}
	bound(len(list(sections)) > 0, "-sections: must name one at least")
	bound(o.n >= 1, "-n: must be at least 1")
	bound(o.keepalivedN >= 0 && o.elections >= 0, "-keepalived-n, -elections: must not be negative")
	bound(o.busyFor >= time.Second && o.idleFor >= time.Second, "-busy, -idle: must be at least 1s")
	bound(o.threshold >= 5*time.Millisecond, "-stall: must be at least 5ms, below which nothing is recorded")
	o.env = list(env)
	for _, e := range o.env {
		name, _, ok := strings.Cut(e, "=")
		bound(ok && name != "", fmt.Sprintf("-env: %q: must be like RAFTVIP_NICE=-10", e))
	}
	var err error
	o.heartbeats, err = durations("-heartbeats", heartbeats)
	check(err)
	o.loadHeartbeats, err = durations("-load-heartbeats", loadHeartbeats)
	check(err)
	o.adverts, err = keepaliveds(adverts)
	check(err)
	return o, errors.Join(errs...)
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func durations(name, s string) (ds []time.Duration, err error) {
	for _, text := range list(s) {
		d, err := time.ParseDuration(text)
		if err != nil || d < 20*time.Millisecond || d > 10*time.Second {
			return nil, fmt.Errorf("%s: %q: must be 20ms to 10s", name, text)
		}
		ds = append(ds, d)
	}
	return ds, nil
}

func keepaliveds(s string) (ks []trial.Keepalived, err error) {
	for _, text := range list(s) {
		v, interval, _ := strings.Cut(text, "/")
		d, err := time.ParseDuration(interval)
		version := map[string]int{"v2": 2, "v3": 3}[v]
		if err != nil || version == 0 || d < 10*time.Millisecond {
			return nil, fmt.Errorf("-adverts: %q: must be like v3/100ms", text)
		}
		ks = append(ks, trial.Keepalived{Version: version, Advert: d})
	}
	return ks, nil
}

func (o options) has(section string) bool { return slices.Contains(o.sections, section) }

// trialsOf is how many trials there are of a keepalived.
func (o options) trialsOf(k trial.Keepalived) int {
	switch {
	case o.keepalivedN > 0:
		return o.keepalivedN
	case k.Detection() >= time.Second:
		return (o.n + 3) / 4
	}
	return (o.n + 1) / 2
}
