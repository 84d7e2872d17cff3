// Command bench measures raftvip and keepalived in one run: the gap a client sees
// when the owner fails or is told to move, and what each costs. It needs root. It
// prints and judges nothing: timing depends on the machine, whose stalls are
// printed beside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/e2e"
)

type options struct {
	n          int
	heartbeats string
	adverts    string
	faults     string
	idle       time.Duration
	json       string
	commit     string
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 10, "trials of each")
	flag.StringVar(&o.heartbeats, "heartbeats", "1s,300ms,100ms,50ms", "heartbeat `TIMEOUTS` of raftvip; may be empty")
	flag.StringVar(&o.adverts, "adverts", "v2/1s,v3/100ms,v3/10ms", "VRRP versions and advert `INTERVALS` of keepalived; may be empty")
	flag.StringVar(&o.faults, "faults", "kill,power,freeze,isolate,term,transfer", "`FAULTS`, separated by commas; may be empty")
	flag.DurationVar(&o.idle, "idle", 10*time.Second, "over how long idle processor time is measured; 0 for not at all")
	flag.StringVar(&o.json, "json", "", "write all results to this `FILE`")
	flag.StringVar(&o.commit, "commit", "", "what is measured (default: ask git)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// bench is one run.
type bench struct {
	options
	heartbeat []time.Duration
	advert    []trial.Keepalived
	fault     []trial.Fault
	binary    string
	pins      string
}

func (o options) parse() (*bench, error) {
	b := &bench{options: o}
	if o.n < 1 {
		return nil, errors.New("-n: must be at least 1")
	}
	for _, s := range list(o.heartbeats) {
		h, err := time.ParseDuration(s)
		if err != nil {
			return nil, fmt.Errorf("-heartbeats: %w", err)
		}
		b.heartbeat = append(b.heartbeat, h)
	}
	for _, s := range list(o.adverts) {
		v, interval, _ := strings.Cut(s, "/")
		d, err := time.ParseDuration(interval)
		version := map[string]int{"v2": 2, "v3": 3}[v]
		if err != nil || version == 0 {
			return nil, fmt.Errorf("-adverts: %q: must be like v3/100ms", s)
		}
		b.advert = append(b.advert, trial.Keepalived{Version: version, Advert: d})
	}
	var err error
	if b.fault, err = trial.Find(list(o.faults)...); err != nil {
		return nil, fmt.Errorf("-faults: %w", err)
	}
	return b, nil
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	b, err := o.parse()
	if err != nil {
		return err
	}
	rep := report{Env: trial.Environment(ctx, o.commit), N: o.n}
	if rep.Env.Keepalived == "" {
		fmt.Fprintln(os.Stderr, "keepalived is not installed: nothing to compare with")
		b.advert = nil
	}
	dir, err := os.MkdirTemp("", "raftvip-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building raftvip ...")
	if b.binary, err = release(ctx, dir); err != nil {
		return err
	}
	pins, err := trial.MountBPFFS()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pins.Close()) }()
	b.pins = pins.Dir

	if err := b.gaps(ctx, &rep); err != nil {
		return err
	}
	if err := b.costs(ctx, &rep); err != nil {
		return err
	}
	if err := b.starts(ctx, &rep); err != nil {
		return err
	}
	rep.print(os.Stdout)
	if o.json != "" {
		return trial.WriteJSON(o.json, rep)
	}
	return nil
}

// release builds the program as it is installed, without symbols.
func release(ctx context.Context, dir string) (string, error) {
	if os.Getenv(e2e.EnvBinary) != "" {
		return e2e.Build(ctx, dir)
	}
	path := filepath.Join(dir, "raftvip")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/raftvip/raftvip/cmd/raftvip")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build raftvip: %w: %s", err, out)
	}
	return path, nil
}

func (b *bench) raftvip(h time.Duration, voters int) trial.Raftvip {
	return trial.Raftvip{Binary: b.binary, PinDir: b.pins, Heartbeat: h, Voters: voters}
}

// note tells that something goes on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
