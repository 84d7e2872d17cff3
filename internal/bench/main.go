// Command bench measures raftvip and keepalived in one run: the gap a client sees,
// elections, takeovers of many addresses, false failovers under load, and what
// both cost. It needs root. Results are written as Markdown and JSON, after each
// step, with the targets of DESIGN.md beside them. A missed target is a result; the
// exit code is 1 if two raftvip nodes answered for one address or if a step that
// is not about keepalived alone could not be done. See docs/bench/README.md.
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

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	binary string
	pins   string
	plan   *plan
	rep    *report
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	env := trial.Environment(ctx, o.commit)
	if env.Keepalived == "" {
		fmt.Fprintln(os.Stderr, "keepalived is not installed: nothing to compare with")
		o.adverts = nil
	}
	dir, err := os.MkdirTemp("", "raftvip-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o}
	b.rep = &report{Env: env, Dirty: env.Dirty(), Flags: o.args, Threshold: o.threshold}
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

	b.plan = &plan{out: os.Stderr, now: time.Now}
	if b.plan.steps, err = b.steps(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d steps, about %s on a quiet machine with two processors; results go to %s\n",
		len(b.plan.steps), short(b.plan.total()), filepath.Join(o.out, b.rep.name()+".md"))
	var failed []error
	err = b.plan.run(ctx, func() error { return b.rep.save(o.out) }, func(s step, e error) {
		if ctx.Err() != nil {
			return // it was ended, it has not failed
		}
		e = fmt.Errorf("%s: %s: %s", s.section, s.name, brief(e))
		b.plan.note("failed: %v", e)
		b.rep.Errors = append(b.rep.Errors, e.Error())
		if !s.theirs {
			failed = append(failed, e)
		}
	})
	b.rep.Complete = err == nil
	if e := b.rep.save(o.out); e != nil {
		return errors.Join(err, e)
	}
	b.rep.markdown(os.Stdout)
	if ctx.Err() == nil {
		err = errors.Join(append(failed, err)...)
	}
	return errors.Join(b.rep.verdict(), err)
}

// brief is the text of an error on one line that can be read: a daemon's last
// output may be part of it.
func brief(err error) string {
	if err == nil {
		return ""
	}
	const most = 400
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > most {
		text = text[:most/2] + " ... " + text[len(text)-most/2:]
	}
	return text
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
