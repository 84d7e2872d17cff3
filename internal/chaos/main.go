// Command chaos breaks raftvip and keepalived in the same ways and prints side by
// side how long two nodes answered for one address. It needs root. The exit code
// is 1 if raftvip had one address on two nodes, however short, or did not recover.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/vip/guard"
)

// matrix are the faults of the table.
const matrix = "kill,freeze,starve,isolate,cut-out,cut-in,cut-peers,cut-peers-in,restart-voter,slow-transfer,kill-all," +
	"clone,transfer,drain,term,locked-transfer,locked-drain,locked-term," +
	"join,remove,replace,remove-owner,leave,remove-killed,remove-frozen," +
	"retime" // last: for as long as the longest timeout a failure takes that

type options struct {
	guards, faults string
	trials, groups int
	hold, frozen   time.Duration
	json           string
	commit         string
	keepalived     bool
	quick          bool
}

func main() {
	var o options
	flag.StringVar(&o.guards, "guards", "bpf-tcx,bpf-clsact,nft,lifetime", "`KINDS` of guard, separated by commas")
	flag.StringVar(&o.faults, "faults", matrix, "`FAULTS`, separated by commas")
	flag.IntVar(&o.trials, "trials", 3, "how often each; the slow guard lifetime has a third of it")
	flag.IntVar(&o.groups, "groups", 0, "with so many groups, each with an address and an owner of its own; 0: one group")
	flag.DurationVar(&o.hold, "hold", time.Second, "how long a fault lasts at least")
	flag.DurationVar(&o.frozen, "frozen", 5*time.Second, "how long a frozen or starved daemon stays so at least")
	flag.StringVar(&o.json, "json", "", "write all results to this `FILE`")
	flag.StringVar(&o.commit, "commit", "", "what is tested (default: ask git)")
	flag.BoolVar(&o.keepalived, "keepalived", true, "do it to keepalived too")
	flag.BoolVar(&o.quick, "quick", false, "one trial of a few faults with one guard; other flags given still count")
	flag.Parse()
	if o.quick {
		given := map[string]bool{}
		flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{"guards": "bpf-tcx", "faults": "kill,freeze,isolate", "trials": "1", "frozen": "1s"} {
			if !given[name] {
				_ = flag.Set(name, value)
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

// products are raftvip with each guard, and keepalived last, if it is there.
func (o options) products(binary, pinDir string, env trial.Env) ([]trial.Product, error) {
	var ps []trial.Product
	for _, k := range strings.Split(o.guards, ",") {
		if _, err := guard.ParseKind(k); err != nil || k == "" {
			return nil, fmt.Errorf("-guards: %q is no kind of guard", k)
		}
		ps = append(ps, trial.Raftvip{Binary: binary, Guard: k, PinDir: pinDir, Ranked: o.groups > 0})
	}
	switch {
	case !o.keepalived:
	case env.Keepalived == "":
		fmt.Fprintln(os.Stderr, "keepalived is not installed: nothing to compare with")
	default:
		ps = append(ps, trial.Keepalived{Version: 3, Advert: 100 * time.Millisecond})
	}
	return ps, nil
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if o.groups < 0 || o.groups > 64 {
		return fmt.Errorf("-groups: %d: must be 0 to 64", o.groups)
	}
	faults, err := trial.Find(strings.Split(o.faults, ",")...)
	if err != nil {
		return fmt.Errorf("-faults: %w", err)
	}
	env := trial.Environment(ctx, o.commit)
	dir, err := os.MkdirTemp("", "raftvip-chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building raftvip ...")
	binary, err := e2e.Build(ctx, dir)
	if err != nil {
		return err
	}
	pins, err := trial.MountBPFFS()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pins.Close()) }()
	products, err := o.products(binary, pins.Dir, env)
	if err != nil {
		return err
	}
	var setup trial.Setup
	if o.groups > 0 {
		setup = trial.Setup{V4: o.groups, Instances: true, Separate: true}
	}
	m := table{env: env, faults: faults}
	for _, p := range products {
		trials, can := o.trials, faults
		if r, ok := p.(trial.Raftvip); ok && r.Guard == string(guard.Lifetime) {
			trials = max(1, trials/3)
		} else if !ok {
			can = slices.DeleteFunc(slices.Clone(faults), func(f trial.Fault) bool { return f.Ours })
		}
		rs, err := trial.Series{
			Product: p, Setup: setup, Faults: can, Trials: trials, Hold: o.hold, HoldThaws: o.frozen, Report: progress,
		}.Run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.add(p, rs, err)
	}
	m.print(os.Stdout)
	if o.json != "" {
		if err := trial.WriteJSON(o.json, m.document()); err != nil {
			return err
		}
	}
	return m.verdict()
}

// progress tells that something goes on, and at once what went wrong.
func progress(r trial.Result) {
	fmt.Fprintf(os.Stderr, "%-18s %-14s overlap %s ms, gap %s ms\n", r.Product, r.Fault, trial.Millis(r.Overlap), trial.Millis(gap(r)))
	if r.Note != "" {
		fmt.Fprintln(os.Stderr, "    note:", r.Note)
	}
	for i, s := range r.Strays {
		if i == 2 {
			fmt.Fprintf(os.Stderr, "    and %d more\n", len(r.Strays)-i)
			break
		}
		fmt.Fprintln(os.Stderr, "    late:", s)
	}
	if r.Problem != "" {
		fmt.Fprintf(os.Stderr, "    problem: %s\n%s", r.Problem, r.Logs)
	}
}
