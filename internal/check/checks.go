package check

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

// resubscribeDelay is the pause before a failed LinkSource is watched again.
const resubscribeDelay = time.Second

// Config says what to check.
type Config struct {
	// Config is the node's configuration. Nil: no scripts and no instances.
	Config *config.Config
	// Links knows the interfaces. Nil: the kernel's ([NetlinkLinks]).
	Links LinkSource
	// Logger gets one line for each change of state. Nil: none.
	Logger *slog.Logger
}

// Checks runs the checks of one node. Its methods are safe for concurrent use.
type Checks struct {
	links  LinkSource
	log    *slog.Logger
	runner runner

	changed  chan struct{} // a token: the report has changed
	reloaded chan struct{} // a token: the configuration has changed

	mu      sync.Mutex
	config  *config.Config
	scripts map[string]status // of those that have reported
	ifs     links
	report  Report
}

// New returns the checks of the configuration. Nothing is run before [Checks.Run]
// is; until then the report is that nothing is known.
func New(c Config) *Checks {
	k := &Checks{
		links:    c.Links,
		log:      c.Logger,
		changed:  make(chan struct{}, 1),
		reloaded: make(chan struct{}, 1),
		config:   c.Config,
		scripts:  make(map[string]status),
	}
	if k.links == nil {
		k.links = NetlinkLinks{}
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.config == nil {
		k.config = &config.Config{}
	}
	k.report = k.evaluate()
	return k
}

// Report returns the present state. It must not be changed.
func (k *Checks) Report() Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.report
}

// Changed returns a channel that gives one value after one or more changes of the
// report. Call Report after each receive: so a slow reader may miss a state in
// between, but never the last one. It serves one reader.
func (k *Checks) Changed() <-chan struct{} { return k.changed }

// Reload takes over a new configuration. The report follows at once; scripts
// that keep their name keep their state, whatever else of them changes, and are
// started anew. It does not block.
func (k *Checks) Reload(c *config.Config) {
	if c == nil {
		c = &config.Config{}
	}
	k.mu.Lock()
	k.config = c
	used := usedScripts(c)
	maps.DeleteFunc(k.scripts, func(name string, _ status) bool { return used[name] == nil })
	for _, name := range slices.Sorted(maps.Keys(k.scripts)) {
		if k.scripts[name].ok {
			k.log.Info(fmt.Sprintf("VRRP_Script(%s) considered successful on reload", name), "script", name)
		}
	}
	k.refresh()
	k.mu.Unlock()
	signal(k.reloaded)
}

// Run checks until ctx ends, and then ends the scripts that still run, which can
// take three seconds with scripts that do not heed SIGTERM. It is called once. It
// returns nil: what goes wrong with a check is a result of the check.
func (k *Checks) Run(ctx context.Context) error {
	r := k.runner
	if r == nil {
		real := newExecRunner()
		forking, stop := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan struct{})
		go func() { defer close(ended); real.run(forking) }()
		defer func() {
			stop() // after the workers have ended their scripts
			select {
			case <-ended:
			case <-time.After(giveUp): // it hangs executing something
			}
		}()
		r = real
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { k.watchLinks(ctx) })

	type running struct {
		*worker
		stop context.CancelFunc
	}
	workers := make(map[string]running)
	defer func() {
		for _, w := range workers {
			w.stop()
		}
	}()
	for {
		k.mu.Lock()
		cfg := k.config
		k.mu.Unlock()
		used := usedScripts(cfg)
		for name, w := range workers {
			if used[name] == nil {
				w.stop()
				delete(workers, name)
			}
		}
		for name, s := range used {
			cmd := command{script: s, global: cfg.Global}
			if w, exists := workers[name]; exists {
				w.update(cmd)
				continue
			}
			wctx, stop := context.WithCancel(ctx)
			w := newWorker(name, r, k.log, func(s status) { k.setScript(wctx, name, s) }, cmd)
			workers[name] = running{w, stop}
			wg.Go(func() { w.loop(wctx) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.reloaded:
		}
	}
}

// watchLinks follows the interfaces, and begins again when that fails.
func (k *Checks) watchLinks(ctx context.Context) {
	told := ""
	for {
		err := k.links.Watch(ctx, k.setLinks)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != told {
			told = text
			k.log.Error("cannot follow the interfaces, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(resubscribeDelay):
		}
	}
}

// setLinks takes over the state of all interfaces.
func (k *Checks) setLinks(up map[string]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.ifs == nil
	var changed []string
	k.ifs, changed = k.ifs.update(up, time.Now().Round(0))
	tracked := trackedInterfaces(k.config)
	if first {
		// What does not exist has not changed, but is worth a line.
		changed = slices.Collect(maps.Keys(tracked))
	}
	slices.Sort(changed)
	for _, name := range changed {
		s := k.ifs.status(name)
		if !tracked[name] || first && s.ok {
			continue
		}
		level := slog.LevelInfo
		if !s.ok {
			level = slog.LevelWarn
		}
		k.log.Log(context.Background(), level, fmt.Sprintf("interface %s %s", name, s.detail), "interface", name)
	}
	k.refresh()
}

// setScript takes over the state of a script from its worker, which lives as long
// as ctx does.
func (k *Checks) setScript(ctx context.Context, name string, s status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil || usedScripts(k.config)[name] == nil {
		return
	}
	k.scripts[name] = s
	k.refresh()
}

// refresh brings the report up to date and tells the reader if it has changed.
// k.mu is held.
func (k *Checks) refresh() {
	next := k.evaluate()
	if reflect.DeepEqual(next, k.report) {
		return
	}
	for _, in := range next.Instances {
		for _, old := range k.report.Instances {
			if in.Name == old.Name && in.Effective != old.Effective {
				k.log.Info(fmt.Sprintf("(%s) Changing effective priority from %d to %d", in.Name, old.Effective, in.Effective),
					"instance", in.Name, "priority", in.Arithmetic())
			}
		}
	}
	k.report = next
	signal(k.changed)
}

// evaluate calculates the report. k.mu is held, or k is not shared yet.
func (k *Checks) evaluate() Report {
	states := maps.Clone(k.scripts)
	defined := usedScripts(k.config)
	var reports []InstanceReport
	for _, in := range k.config.Instances {
		for _, t := range in.TrackScripts {
			if defined[t.Name] == nil {
				// Loading refuses this. A check that cannot be made must not pass.
				states[t.Name] = status{known: true, detail: "is not defined"}
			}
		}
		reports = append(reports, evaluate(in, states, k.ifs))
	}
	return Combine(reports)
}

// usedScripts returns the scripts that some instance refers to, by name. Others
// are not run, as in keepalived.
func usedScripts(c *config.Config) map[string]*config.Script {
	used := make(map[string]*config.Script)
	for _, in := range c.Instances {
		for _, t := range in.TrackScripts {
			for _, s := range c.Scripts {
				if s.Name == t.Name {
					used[s.Name] = s
				}
			}
		}
	}
	return used
}

// trackedInterfaces returns the names of the interfaces that have an effect.
func trackedInterfaces(c *config.Config) map[string]bool {
	names := make(map[string]bool)
	for _, in := range c.Instances {
		if in.Interface != "" && !in.DontTrackPrimary {
			names[in.Interface] = true
		}
		for _, t := range in.TrackInterfaces {
			names[t.Name] = true
		}
	}
	return names
}

// signal puts a token into a channel of capacity one, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
