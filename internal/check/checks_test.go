package check

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

const ms = time.Millisecond

// sim runs a test in virtual time.
func sim(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// TestSchedule: when scripts are run.
func TestSchedule(t *testing.T) {
	sim(t, "at once, then at every interval", func(t *testing.T) {
		b := newBench(t, always(ok0), chk("a", 0, every(2*time.Second)))
		b.at(5 * time.Second)
		b.wantStarts("a", "0s 2s 4s")
		b.end()
	})
	sim(t, "the interval counts from the tick, not from the end", func(t *testing.T) {
		b := newBench(t, always(fakeRun{takes: 700 * ms, out: succeeded()}), chk("a", 0))
		b.at(3500 * ms)
		b.wantStarts("a", "0s 1s 2s 3s")
		b.end()
	})
	sim(t, "a tick is skipped while the last run is there, and said once", func(t *testing.T) {
		b := newBench(t, always(fakeRun{takes: 1500 * ms, out: succeeded()}), chk("a", 0, within(5*time.Second)))
		b.at(7500 * ms)
		b.wantStarts("a", "0s 2s 4s 6s")
		b.wantLog(1, "VRRP_Script(a) is still running")
		b.end()
	})
	sim(t, "a run that timed out is followed by the next at once", func(t *testing.T) {
		b := newBench(t, always(hang), chk("a", 0))
		b.at(3500 * ms)
		b.wantStarts("a", "0s 1s 2s 3s")
		b.wantLog(0, "still running")
		b.end()
	})
	sim(t, "scripts that nothing refers to are not run", func(t *testing.T) {
		b := newBench(t, always(ok0), chk("a", 0))
		c := testConfig(chk("a", 0))
		c.Scripts = append(c.Scripts, chk("b", 0))
		b.Reload(c)
		b.at(3500 * ms)
		b.wantStarts("b", "")
		b.end()
	})
	sim(t, "missing numbers have defaults", func(t *testing.T) {
		b := newBench(t, always(hang), &config.Script{Name: "a", Argv: []string{"a"}})
		b.at(2500 * ms)
		b.wantStarts("a", "0s 1s 2s")
		b.want("ready, 100 = 100, script a timed out after 1s")
		b.end()
	})
}

// TestResults: what results do to the report, with the log lines.
func TestResults(t *testing.T) {
	sim(t, "not ready until the first result", func(t *testing.T) {
		b := newBench(t, always(fakeRun{takes: 300 * ms, out: succeeded()}), chk("a", 6), chk("b", 0))
		b.at(299 * ms)
		b.want("unready, 100 = 100 (a has no result yet)")
		b.at(300 * ms)
		b.want("ready, 106 = 100 + 6 a")
		b.wantLog(1, `level=INFO msg="VRRP_Script(a) succeeded" script=a`)
		b.wantLog(1, `msg="(VI) Changing effective priority from 100 to 106" instance=VI priority="106 = 100 + 6 a"`)
		b.at(10 * time.Second)
		b.wantLog(1, "VRRP_Script(a)")
		b.end()
	})
	sim(t, "or until its timeout", func(t *testing.T) {
		b := newBench(t, always(hang), chk("a", 6, within(400*ms)))
		b.at(399 * ms)
		b.want("unready, 100 = 100 (a has no result yet)")
		b.at(400 * ms)
		b.want("ready, 100 = 100 (a failing: +6 not counted)")
		b.wantLog(1, `level=WARN msg="VRRP_Script(a) timed out after 400ms" script=a`)
		b.end()
	})
	sim(t, "fall and rise", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, fail1, fail1, ok0, ok0, ok0), chk("a", 0, riseFall(3, 2)))
		b.at(1 * time.Second)
		b.want("ready, 100 = 100")
		b.at(2 * time.Second)
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.at(4 * time.Second)
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.at(5 * time.Second)
		b.want("ready, 100 = 100")
		b.wantLog(1, `msg="VRRP_Script(a) failed (exited with status 1)" script=a`)
		b.wantLog(2, `msg="VRRP_Script(a) succeeded"`)
		b.end()
	})
	sim(t, "fall 3, fails from the start: down at once", func(t *testing.T) {
		b := newBench(t, always(fail1), chk("a", 0, riseFall(3, 3)))
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.end()
	})
	sim(t, "the first failure by timeout counts at the timeout (measured: sleep 10, interval 2, timeout 1, fall 2)", func(t *testing.T) {
		b := newBench(t, always(hang), chk("a", 0, every(2*time.Second), riseFall(1, 2)))
		b.at(time.Second)
		b.want("ready, 100 = 100, script a timed out after 1s")
		b.end()
	})
	sim(t, "the reason follows when the kind of failure changes", func(t *testing.T) {
		b := newBench(t, inTurn(fail1, fakeRun{out: exited(2)}, fakeRun{out: signalled(9)}), chk("a", 0))
		b.at(1 * time.Second)
		b.want("ready, 100 = 100, script a failed (exited with status 2)")
		b.at(2 * time.Second)
		b.want("ready, 100 = 100, script a failed due to signal 9 (killed)")
		b.wantLog(1, "VRRP_Script(a) failed")
		b.end()
	})
	sim(t, "a script that is not defined fails", func(t *testing.T) {
		b := newBench(t, always(ok0), chk("a", 0))
		c := testConfig(chk("a", 0), chk("b", 0))
		c.Scripts = c.Scripts[:1]
		b.Reload(c)
		b.want("ready, 100 = 100, script b is not defined")
		b.end()
	})
}

// TestTimeout: how runs that take too long are ended, and counted.
func TestTimeout(t *testing.T) {
	sim(t, "deaf to SIGTERM: killed two seconds later", func(t *testing.T) {
		b := newBench(t, inTurn(fakeRun{never: true, deaf: true}, ok0), chk("a", 0))
		b.at(time.Second)
		b.want("ready, 100 = 100, script a timed out after 1s")
		b.wantStarts("a", "0s")
		b.at(3 * time.Second)
		b.wantStarts("a", "0s 3s")
		b.want("ready, 100 = 100")
		b.end()
	})
	sim(t, "cannot be killed: each interval is a failure, so fall is reached", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, fakeRun{never: true, immortal: true}), chk("a", 0, riseFall(1, 3)))
		b.at(3 * time.Second)
		b.want("ready, 100 = 100")
		b.at(4 * time.Second)
		b.want("ready, 100 = 100, script a timed out after 1s")
		b.at(30 * time.Second)
		b.wantStarts("a", "0s 1s")
		b.wantLog(1, "timed out")
		if d := b.end(); d > 4*time.Second {
			t.Errorf("Run took %v to end", d)
		}
		b.wantLog(1, "cannot be ended")
	})
	sim(t, "the outcome of a run that timed out does not count again", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, hang, ok0), chk("a", 0, riseFall(1, 2)))
		b.at(2500 * ms)
		b.want("ready, 100 = 100")
		b.end()
	})
	sim(t, "what was written before the timeout is shown", func(t *testing.T) {
		b := newBench(t, always(fakeRun{never: true, printed: "connecting"}), chk("a", 0))
		b.at(time.Second)
		b.want("ready, 100 = 100, script a timed out after 1s: connecting")
		b.end()
	})
	sim(t, "ending: scripts are ended first", func(t *testing.T) {
		b := newBench(t, always(fakeRun{never: true, deaf: true}), chk("a", 0, within(time.Minute)))
		b.at(time.Second)
		if d := b.end(); d != killGrace {
			t.Errorf("Run took %v to end, want %v", d, killGrace)
		}
	})
}

// TestLinkChanges: interfaces go and come.
func TestLinkChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, always(ok0), chk("a", 0))
		b.want("ready, 100 = 100")
		b.links.Set("eth0", false)
		b.want("ready, 100 = 100, interface eth0 is down")
		b.links.Remove("eth0")
		b.want("ready, 100 = 100, interface eth0 does not exist")
		b.links.Set("eth0", true)
		b.links.Set("eth7", true)
		b.want("ready, 100 = 100")
		b.wantLog(1, `level=WARN msg="interface eth0 is down" interface=eth0`)
		b.wantLog(1, `level=INFO msg="interface eth0 is up"`)
		b.wantLog(0, "eth7")
		b.end()
	})
}

// TestReload: keepalived keeps the states of scripts by name.
func TestReload(t *testing.T) {
	sim(t, "the same name keeps its state, whatever else changes", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, hang), chk("a", 6))
		b.want("ready, 106 = 100 + 6 a")
		b.Reload(testConfig(chk("a", 7, within(time.Minute), every(time.Minute))))
		if r := b.Report(); r.Priority != 107 || !r.Ready { // at once
			t.Errorf("%+v", r)
		}
		b.at(30 * time.Second)
		b.want("ready, 107 = 100 + 7 a")
		b.wantLog(1, "VRRP_Script(a) considered successful on reload")
		b.end()
	})
	sim(t, "a failing one stays failing and needs rise successes", func(t *testing.T) {
		b := newBench(t, inTurn(fail1, ok0), chk("a", 0, riseFall(3, 1)))
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.Reload(testConfig(chk("a", 0, riseFall(2, 1))))
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.at(time.Second)
		b.want("ready, 100 = 100")
		b.end()
	})
	sim(t, "running scripts are killed and started anew, never two at once", func(t *testing.T) {
		b := newBench(t, inTurn(fakeRun{never: true, deaf: true}, ok0), chk("a", 0, within(time.Minute)))
		b.at(500 * ms)
		b.Reload(testConfig(chk("a", 0, within(time.Minute))))
		b.at(2400 * ms)
		b.wantStarts("a", "0s")
		b.want("unready, 100 = 100")
		b.at(2500 * ms)
		b.wantStarts("a", "0s 2.5s")
		b.want("ready, 100 = 100")
		b.end()
	})
	sim(t, "a killed run does not count, unless it cannot be ended within the timeout", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, fakeRun{never: true, immortal: true}), chk("a", 0, within(5*time.Second)))
		b.at(1500 * ms)
		b.Reload(testConfig(chk("a", 0, within(5*time.Second))))
		b.at(6400 * ms)
		b.want("ready, 100 = 100")
		b.at(6500 * ms)
		b.want("ready, 100 = 100, script a timed out after 5s")
		b.end()
	})
	sim(t, "new and removed scripts", func(t *testing.T) {
		b := newBench(t, always(fakeRun{takes: 10 * ms, out: exited(1)}), chk("a", -5), chk("b", -7))
		b.at(20 * ms)
		b.want("ready, 88 = 100 - 5 a - 7 b")
		b.Reload(testConfig(chk("b", -7), chk("c", -9)))
		b.want("unready, 93 = 100 - 7 b (c has no result yet)")
		b.at(40 * ms)
		b.want("ready, 84 = 100 - 7 b - 9 c")
		b.at(3 * time.Second)
		b.wantStarts("a", "0s")
		b.end()
	})
	sim(t, "removed and added again before anybody looked", func(t *testing.T) {
		b := newBench(t, always(ok0), chk("a", 6))
		b.want("ready, 106 = 100 + 6 a")
		b.Reload(testConfig())
		b.Reload(testConfig(chk("a", 6)))
		b.want("ready, 106 = 100 + 6 a")
		b.end()
	})
	sim(t, "to nothing, and before Run", func(t *testing.T) {
		k := New(Config{Links: NewFakeLinks()})
		if r := k.Report(); !r.Ready || r.Priority != 100 || len(r.Faults) != 0 {
			t.Errorf("without a file: %+v", r)
		}
		k.Reload(testConfig(chk("a", 6)))
		if r := k.Report(); r.Ready {
			t.Errorf("not run yet: %+v", r)
		}
		k.Reload(nil)
		if r := k.Report(); !r.Ready {
			t.Errorf("back to nothing: %+v", r)
		}
	})
}

// TestChanged: a token after each change, and none without.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inTurn(ok0, ok0, ok0, fail1), chk("a", 6))
		synctest.Wait()
		token := func() bool {
			select {
			case <-b.Changed():
				return true
			default:
				return false
			}
		}
		if !token() || token() {
			t.Error("the first results are one token, as nobody read between")
		}
		b.at(2500 * ms)
		if token() {
			t.Error("a token though nothing changed")
		}
		b.at(3500 * ms)
		if !token() {
			t.Error("no token for the failure")
		}
		b.links.Set("eth0", false)
		b.links.Set("eth0", true)
		b.links.Set("eth0", false)
		synctest.Wait()
		if !token() || len(b.Report().Faults) != 1 {
			t.Errorf("a slow reader missed the last state: %+v", b.Report())
		}
		b.end()
	})
}

// TestStandstill: a run gets back, once, the time for which the machine stood
// still, which shows by a timer that comes late.
func TestStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []status
		r := newFakeRunner(always(hang))
		w := newWorker("a", r, New(Config{}).log, func(s status) { got = append(got, s) }, command{script: chk("a", 0)})
		w.limit, w.kill = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
		w.start()
		time.Sleep(1400 * ms)
		w.overran()
		if len(got) != 0 || time.Until(w.limitAt) != 400*ms {
			t.Fatalf("%+v, next limit in %v; want none, and 400ms", got, time.Until(w.limitAt))
		}
		time.Sleep(800 * ms) // late again
		w.overran()
		if len(got) != 1 || got[0].detail != "timed out after 1s" {
			t.Errorf("%+v, want a timeout", got)
		}
		w.limit.Stop()
		w.kill.Stop()
		close(r.quit)
	})
}

// TestStarved: the last result counts while a script cannot be run.
func TestStarved(t *testing.T) {
	short := fakeRun{out: outcome{starved: true, text: "cannot be run now: too many open files"}}
	stale := func(b *bench) string {
		for _, term := range b.Report().Instances[0].Terms {
			if term.Kind == KindScript {
				return term.Stale
			}
		}
		return "no script"
	}
	sim(t, "good stays good, and is marked", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, short, short, short, ok0), chk("a", 0))
		b.at(2500 * ms)
		b.want("ready, 100 = 100")
		if got := stale(b); got != "cannot be run now: too many open files" {
			t.Errorf("stale: %q", got)
		}
		b.at(4500 * ms)
		b.want("ready, 100 = 100")
		if got := stale(b); got != "" {
			t.Errorf("stale: %q", got)
		}
		b.wantLog(1, "cannot be run now")
		b.wantLog(1, "can be run again")
		b.end()
	})
	sim(t, "bad stays bad", func(t *testing.T) {
		b := newBench(t, inTurn(fail1, short), chk("a", 0))
		b.at(3500 * ms)
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.end()
	})
	sim(t, "a failure counts again once it can be run", func(t *testing.T) {
		b := newBench(t, inTurn(ok0, short, fail1), chk("a", 0))
		b.at(2500 * ms)
		b.want("ready, 100 = 100, script a failed (exited with status 1)")
		b.end()
	})
	sim(t, "it is no first result", func(t *testing.T) {
		b := newBench(t, always(short), chk("a", 6))
		b.at(2500 * ms)
		b.want("unready, 100 = 100 (a has no result yet)")
		b.end()
	})
}
