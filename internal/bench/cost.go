package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A cost is what a product takes from a node when nothing happens.
type cost struct {
	Product string `json:"product"`
	Node    string `json:"node"`
	Owner   bool   `json:"owner"`
	// CPU is in percent of one processor.
	CPU float64       `json:"cpu_percent"`
	RSS int64         `json:"rss_bytes"`
	For time.Duration `json:"over_ns"`
}

// costs measures all nodes of a settled product, at defaults.
func (b *bench) costs(ctx context.Context, rep *report) error {
	rep.Sizes = map[string]int64{"raftvip": size(b.binary)}
	if path, err := exec.LookPath("keepalived"); err == nil {
		rep.Sizes["keepalived"] = size(path)
	}
	if b.idle <= 0 {
		return nil
	}
	products := []trial.Product{b.raftvip(0, 0)}
	for _, k := range b.advert {
		products = append(products, k)
	}
	for _, p := range products {
		note("%s idle for %v ...", p.Name(), b.idle)
		cs, err := b.cost(ctx, p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			note("%v", err)
			rep.Errors = append(rep.Errors, err.Error())
		}
		rep.Costs = append(rep.Costs, cs...)
	}
	return nil
}

func (b *bench) cost(ctx context.Context, p trial.Product) (cs []cost, err error) {
	r, err := trial.Open(ctx, p, trial.Setup{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	owner, err := r.Settle(ctx)
	if err != nil {
		return nil, err
	}
	// Thousands of questions a second are not idle.
	r.Client.Stop()
	r.Prober.Stop()
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := wait(2 * time.Second); err != nil {
		return nil, err
	}
	before := map[*testnet.Host]time.Duration{}
	start := boottime.Now()
	for _, h := range r.Lab.Nodes() {
		if before[h], _, err = usage(r.System.Pids(h)); err != nil {
			return nil, err
		}
	}
	if err := wait(b.idle); err != nil {
		return nil, err
	}
	for _, h := range r.Lab.Nodes() {
		cpu, rss, err := usage(r.System.Pids(h))
		if err != nil {
			return nil, err
		}
		d := boottime.Now() - start
		cs = append(cs, cost{
			Product: p.Name(), Node: h.Name(), Owner: h == owner, For: d, RSS: rss,
			CPU: 100 * float64(cpu-before[h]) / float64(d),
		})
	}
	return cs, nil
}

// usage sums processor time and resident memory of the processes. The scheduler's
// own account is in nanoseconds (/proc/PID/task/TID/schedstat, proc_schedstat in
// the kernel); that of proc_pid_stat(5) would be in hundredths of a second.
func usage(pids []int) (cpu time.Duration, rss int64, err error) {
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return 0, 0, err
		}
		for _, t := range tasks {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
			if err != nil {
				continue // the thread has ended
			}
			if f := strings.Fields(string(b)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				cpu += time.Duration(ns)
			}
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, 0, err
		}
		for _, line := range bytes.Split(b, []byte("\n")) {
			var kib int64
			if _, err := fmt.Sscanf(string(line), "VmRSS: %d kB", &kib); err == nil {
				rss += kib << 10
			}
		}
	}
	return cpu, rss, nil
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// starts measures, on a single node, the time from starting the daemon until the
// network is answered.
func (b *bench) starts(ctx context.Context, rep *report) error {
	var ds []time.Duration
	p := b.raftvip(0, 1)
	note("start-up of a single node ...")
	r, err := trial.Open(ctx, p, trial.Setup{})
	if err != nil {
		return err
	}
	defer r.Close()
	h := r.Lab.Node(0)
	for range b.n {
		if _, err := r.Settle(ctx); err != nil {
			return err
		}
		if err := r.System.Term(h); err != nil {
			return err
		}
		from := boottime.Now()
		if err := r.System.Start(h); err != nil {
			return err
		}
		err := testnet.WaitFor(ctx, "the single node to answer", func() error {
			if as := r.Prober.Since(from); len(as) > 0 {
				ds = append(ds, as[0].At-from)
				return nil
			}
			return fmt.Errorf("no answer yet")
		})
		if err != nil {
			return err
		}
	}
	rep.Startup = trial.Summarize(ds)
	return nil
}
