package check

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

// A fakeRunner plays processes: each run takes its time and has its outcome as
// the script says.
type fakeRunner struct {
	mu     sync.Mutex
	begin  time.Time
	play   func(name string, run int) fakeRun
	starts map[string][]time.Duration // since begin
	live   map[string]int
	twice  bool          // two runs of one script were there at once
	quit   chan struct{} // ends even the immortal, after the test
}

// A fakeRun is one run: it ends after takes (0: at once) with out, or never.
type fakeRun struct {
	takes time.Duration
	out   outcome
	never bool
	// deaf: SIGTERM does nothing. immortal: SIGKILL neither.
	deaf, immortal bool
	printed        string
}

type fakeProcess struct {
	end  chan outcome
	sigs chan syscall.Signal
	run  fakeRun
}

func newFakeRunner(play func(name string, run int) fakeRun) *fakeRunner {
	return &fakeRunner{begin: time.Now(), play: play, starts: make(map[string][]time.Duration), live: make(map[string]int), quit: make(chan struct{})}
}

func (r *fakeRunner) start(c command) process {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := c.script.Name
	run := r.play(name, len(r.starts[name]))
	r.starts[name] = append(r.starts[name], time.Since(r.begin))
	if r.live[name]++; r.live[name] > 1 {
		r.twice = true
	}
	p := &fakeProcess{end: make(chan outcome, 1), sigs: make(chan syscall.Signal, 8), run: run}
	go func() {
		var timer <-chan time.Time
		if !run.never {
			timer = time.After(run.takes)
		}
		out := run.out
	wait:
		for {
			select {
			case <-timer:
				break wait
			case <-r.quit:
				break wait
			case sig := <-p.sigs:
				if sig == syscall.SIGTERM && run.deaf || run.immortal {
					continue
				}
				out = signalled(sig)
				break wait
			}
		}
		r.mu.Lock()
		r.live[name]--
		r.mu.Unlock()
		p.end <- out
	}()
	return p
}

func (r *fakeRunner) started(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at []string
	for _, d := range r.starts[name] {
		at = append(at, d.String())
	}
	return strings.Join(at, " ")
}

func (p *fakeProcess) done() <-chan outcome        { return p.end }
func (p *fakeProcess) signal(sig syscall.Signal)   { p.sigs <- sig }
func (p *fakeProcess) output() string              { return p.run.printed }
func always(run fakeRun) func(string, int) fakeRun { return func(string, int) fakeRun { return run } }

// inTurn plays the runs one after the other, the last one for ever.
func inTurn(runs ...fakeRun) func(string, int) fakeRun {
	return func(_ string, i int) fakeRun { return runs[min(i, len(runs)-1)] }
}

// A bench has checks with a fake runner in a synctest bubble.
type bench struct {
	*Checks
	t      *testing.T
	run    *fakeRunner
	links  *FakeLinks
	log    *bytes.Buffer // read it after sleep
	stop   context.CancelFunc
	ended  chan struct{}
	before time.Time
}

// newBench starts checks of one instance with base priority 100 and interface
// eth0, which is up, that tracks all the scripts with their own weights.
func newBench(t *testing.T, play func(string, int) fakeRun, scripts ...*config.Script) *bench {
	b := &bench{t: t, run: newFakeRunner(play), links: NewFakeLinks("eth0"), log: new(bytes.Buffer), ended: make(chan struct{})}
	b.Checks = New(Config{
		Config: testConfig(scripts...),
		Links:  b.links,
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
	})
	b.Checks.runner = b.run
	ctx, cancel := context.WithCancel(t.Context())
	b.stop = cancel
	go func() {
		defer close(b.ended)
		if err := b.Checks.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	b.before = time.Now()
	return b
}

func testConfig(scripts ...*config.Script) *config.Config {
	in := &config.Instance{Name: "VI", Interface: "eth0", Priority: 100}
	for _, s := range scripts {
		in.TrackScripts = append(in.TrackScripts, config.TrackRef{Name: s.Name, Weight: s.Weight, Reverse: s.Reverse})
	}
	return &config.Config{Scripts: scripts, Instances: []*config.Instance{in}}
}

// at sleeps until d after the start, and a moment for what happens then.
func (b *bench) at(d time.Duration) {
	b.t.Helper()
	time.Sleep(time.Until(b.before.Add(d)))
	synctest.Wait()
}

// want checks the report: "ready" or "unready", arithmetic, faults.
func (b *bench) want(want string) {
	b.t.Helper()
	synctest.Wait()
	r := b.Report()
	got := "unready"
	if r.Ready {
		got = "ready"
	}
	got += ", " + r.Arithmetic()
	for _, f := range r.Faults {
		got += ", " + f
	}
	if got != want {
		b.t.Errorf("after %v:\ngot  %s\nwant %s", time.Since(b.before), got, want)
	}
}

func (b *bench) wantStarts(name, want string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.run.started(name); got != want {
		b.t.Errorf("%s was started at %s, want %s", name, got, want)
	}
	if b.run.twice {
		b.t.Error("two runs of one script at once")
	}
}

// wantLog checks that each line is logged that often.
func (b *bench) wantLog(times int, line string) {
	b.t.Helper()
	synctest.Wait()
	b.Checks.mu.Lock() // all writers hold it, or wait in a channel
	defer b.Checks.mu.Unlock()
	if got := strings.Count(b.log.String(), line); got != times {
		b.t.Errorf("%d times %q in the log, want %d:\n%s", got, line, times, b.log)
	}
}

// end stops the checks, and says how long that took.
func (b *bench) end() time.Duration {
	begin := time.Now()
	b.stop()
	<-b.ended
	took := time.Since(begin)
	close(b.run.quit)
	return took
}

func chk(name string, weight int, change ...func(*config.Script)) *config.Script {
	s := &config.Script{Name: name, Argv: []string{name}, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Weight: weight}
	for _, c := range change {
		c(s)
	}
	return s
}

func every(d time.Duration) func(*config.Script)  { return func(s *config.Script) { s.Interval = d } }
func within(d time.Duration) func(*config.Script) { return func(s *config.Script) { s.Timeout = d } }
func riseFall(rise, fall int) func(*config.Script) {
	return func(s *config.Script) { s.Rise, s.Fall = rise, fall }
}

var (
	ok0   = fakeRun{out: succeeded()}
	fail1 = fakeRun{out: exited(1)}
	hang  = fakeRun{never: true}
)
