package main

import (
	"bytes"
	"context"
	"errors"
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
	Ours    bool   `json:"ours"`
	// Voters is how many nodes there are.
	Voters    int `json:"voters"`
	Addresses int `json:"addresses"`
	// Groups is how many owners there are, spread over the nodes.
	Groups int    `json:"groups"`
	Node   string `json:"node"`
	Owner  bool   `json:"owner"`
	// CPU is in percent of one processor.
	CPU float64 `json:"cpu_percent"`
	RSS int64   `json:"rss_bytes"`
	// Sent and Received are packets of all kinds a second on the node's link.
	Sent     float64       `json:"packets_sent_per_second"`
	Received float64       `json:"packets_received_per_second"`
	For      time.Duration `json:"over_ns"`
	// Stall is the longest time in which the machine stood still meanwhile.
	Stall time.Duration `json:"machine_stall_worst_ns"`
}

func (c cost) role() string {
	if c.Owner {
		return "owner"
	}
	return "standby"
}

// costStep is a step: what a settled product takes.
func (b *bench) costStep(p trial.Product, addresses int) step {
	return b.costStepOf("idle", p, trial.Setup{V4: addresses}, 1)
}

func (b *bench) costStepOf(section string, p trial.Product, s trial.Setup, groups int) step {
	return step{
		section: section, theirs: !ours(p), name: fmt.Sprintf("%s idle, addresses: %d, groups: %d", p.Name(), s.V4, groups), takes: opening + calm + b.idleFor,
		run: func(ctx context.Context) error {
			cs, err := b.cost(ctx, p, s, groups)
			b.rep.Costs = append(b.rep.Costs, cs...)
			return err
		},
	}
}

// calm is how long a product is left alone before it counts as idle.
const calm = 6 * time.Second // the second burst of announcements comes after 5 s

func (b *bench) cost(ctx context.Context, p trial.Product, s trial.Setup, groups int) (cs []cost, err error) {
	r, err := trial.Open(ctx, p, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	owner, err := r.Settle(ctx)
	if err != nil {
		return nil, err
	}
	// Thousands of questions a second are not idle.
	r.Client.Stop()
	r.Prober.Stop()
	r.Capture.Stop()
	if err := pause(ctx, calm); err != nil {
		return nil, err
	}
	type state struct {
		cpu            time.Duration
		sent, received uint64
	}
	look := func(h *testnet.Host) (s state, rss int64, err error) {
		if s.cpu, rss, err = usage(r.System.Pids(h)); err != nil {
			return s, 0, err
		}
		s.sent, s.received, err = h.Packets(testnet.Front)
		return s, rss, err
	}
	before := map[*testnet.Host]state{}
	start := boottime.Now()
	for _, h := range r.Lab.Nodes() {
		if before[h], _, err = look(h); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, b.idleFor); err != nil {
		return nil, err
	}
	name := p.Name()
	if mine, ok := p.(trial.Raftvip); ok {
		mine.Voters = 0 // they have a column
		name = mine.Name()
	}
	for _, h := range r.Lab.Nodes() {
		now, rss, err := look(h)
		if err != nil {
			return nil, err
		}
		end := boottime.Now()
		per := func(n uint64) float64 { return float64(n) / (end - start).Seconds() }
		cs = append(cs, cost{
			Product: name, Ours: ours(p), Voters: p.Nodes(), Addresses: s.V4, Groups: groups, Node: h.Name(), Owner: h == owner || s.Spread,
			CPU: 100 * float64(now.cpu-before[h].cpu) / float64(end-start), RSS: rss,
			Sent: per(now.sent - before[h].sent), Received: per(now.received - before[h].received),
			For: end - start, Stall: r.Control.Within(start, end),
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

// sizeStep is a step: the programs' files, and the start of a single node.
func (b *bench) sizeStep(n int) step {
	const per = 2 * time.Second
	return step{
		section: "size", name: "size, and start-up of a single node", takes: opening + per*time.Duration(n),
		run: func(ctx context.Context) error {
			b.rep.Sizes = map[string]int64{"raftvip": size(b.binary)}
			if path, err := exec.LookPath("keepalived"); err == nil {
				b.rep.Sizes["keepalived"] = size(path)
			}
			samples, err := b.starts(ctx, n, per)
			b.rep.Startup = timingOf(samples, b.threshold)
			return err
		},
	}
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
func (b *bench) starts(ctx context.Context, n int, per time.Duration) (samples []sample, err error) {
	p := b.raftvip(0)
	p.Voters = 1
	r, err := trial.Open(ctx, p, trial.Setup{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := r.Lab.Node(0)
	for range n {
		if _, err := r.Settle(ctx); err != nil {
			return samples, err
		}
		if err := r.System.Term(h); err != nil {
			return samples, err
		}
		from := boottime.Now()
		if err := r.System.Start(h); err != nil {
			return samples, err
		}
		err := testnet.WaitFor(ctx, "the single node to answer", func() error {
			as := r.Prober.Since(from)
			if len(as) == 0 {
				return errors.New("no answer yet")
			}
			samples = append(samples, sample{as[0].At - from, r.Control.Within(from, as[0].At)})
			return nil
		})
		if err != nil {
			return samples, err
		}
		b.plan.advance(per)
	}
	return samples, nil
}
