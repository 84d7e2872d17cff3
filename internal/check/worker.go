package check

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"time"
)

const (
	// killGrace is the time between SIGTERM and SIGKILL, killAgain that to each
	// further SIGKILL (keepalived: the same).
	killGrace = 2 * time.Second
	killAgain = 10 * time.Second
	// giveUp is how long a worker that stops waits for a process after SIGKILL.
	giveUp = time.Second
	// lateness is how late the timer of a timeout may come before this process, or
	// the machine, must be taken to have stood still.
	lateness = 50 * time.Millisecond
)

// A worker runs one script at its interval and counts the results. There is one
// for each script name in use; it outlives reloads. All fields belong to the
// goroutine of loop.
type worker struct {
	name    string
	runner  runner
	log     *slog.Logger
	publish func(status) // takes over the new state; must not block

	cmd     command
	count   counter
	state   status
	updates chan command // holds the newest, not taken over yet

	tick  *time.Ticker
	limit *time.Timer // the timeout of the run
	kill  *time.Timer // the next SIGKILL

	run     process   // nil: none is running
	limitAt time.Time // when limit shall fire
	// ending: the run was sent SIGTERM. ignore: its outcome no longer matters.
	ending bool
	ignore bool
	// missed: a tick found it running. waited: it had more time, because the
	// machine stood still.
	missed bool
	waited bool
	due    bool // start a run as soon as none is running
	told   bool // that ticks are missed
	// starved is since when runs could not be started for want of what it takes; zero
	// if the last one could.
	starved time.Time
}

func newWorker(name string, r runner, log *slog.Logger, publish func(status), cmd command) *worker {
	return &worker{
		name: name, runner: r, log: log, publish: publish, cmd: cmd,
		count:   newCounter(cmd.script.Rise, cmd.script.Fall),
		updates: make(chan command, 1),
	}
}

// update gives the worker new settings; it keeps its state. There must be only
// one caller at a time.
func (w *worker) update(cmd command) {
	select {
	case <-w.updates:
	default:
	}
	w.updates <- cmd
}

func (w *worker) interval() time.Duration {
	if d := w.cmd.script.Interval; d > 0 {
		return d
	}
	return time.Second
}

func (w *worker) timeout() time.Duration {
	if d := w.cmd.script.Timeout; d > 0 {
		return d
	}
	return w.interval()
}

// loop runs the script until ctx ends.
func (w *worker) loop(ctx context.Context) {
	w.tick = time.NewTicker(w.interval())
	w.limit, w.kill = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	w.limit.Stop()
	w.kill.Stop()
	defer w.tick.Stop()
	defer w.limit.Stop()
	defer w.kill.Stop()
	w.due = true
	for ctx.Err() == nil {
		if w.due && w.run == nil {
			w.start()
		}
		var done <-chan outcome
		if w.run != nil {
			done = w.run.done()
			// After a standstill several channels are ready. The outcome counts first:
			// a script that ended in time has not timed out.
			select {
			case out := <-done:
				w.ended(out)
				continue
			default:
			}
		}
		select {
		case <-ctx.Done():
		case out := <-done:
			w.ended(out)
		case <-w.tick.C:
			w.ticked()
		case <-w.limit.C:
			select {
			case out := <-done:
				w.ended(out)
			default:
				w.overran()
			}
		case <-w.kill.C:
			w.run.signal(syscall.SIGKILL)
			w.kill.Reset(killAgain)
		case cmd := <-w.updates:
			w.reload(cmd)
		}
	}
	w.stop()
}

func (w *worker) start() {
	w.due, w.missed, w.waited, w.ending, w.ignore = false, false, false, false, false
	w.run = w.runner.start(w.cmd)
	w.setLimit(w.timeout())
}

func (w *worker) setLimit(d time.Duration) {
	w.limitAt = time.Now().Add(d)
	w.limit.Reset(d)
}

// ended takes over the outcome of a run.
func (w *worker) ended(out outcome) {
	w.run = nil
	w.limit.Stop()
	w.kill.Stop()
	if !w.missed {
		w.told = false
	}
	if !w.ignore {
		w.result(out)
	}
}

// ticked starts the next run, or notes that the last one is in the way.
func (w *worker) ticked() {
	switch {
	case w.run == nil || w.ending:
		w.due = true
	default:
		w.missed = true
		if !w.told && time.Now().Before(w.limitAt) {
			w.told = true
			w.log.Info(fmt.Sprintf("VRRP_Script(%s) is still running: skipping a run", w.name),
				"script", w.name, "interval", w.interval())
		}
	}
}

// overran counts a failure because the run has taken too long, and ends it. It is
// called again after each interval for which the run cannot be ended.
func (w *worker) overran() {
	if late := time.Since(w.limitAt); late > lateness && !w.waited && !w.ending {
		// Neither could the script run while the machine stood still. It gets that
		// time back, once.
		w.waited = true
		w.setLimit(min(late, w.timeout()))
		return
	}
	out := timedOut(w.timeout())
	out.output = w.run.output()
	w.ignore = true
	if w.missed {
		w.due = true
	}
	w.terminate()
	w.setLimit(w.interval())
	w.result(out)
}

// terminate asks the run to end.
func (w *worker) terminate() {
	if !w.ending {
		w.ending = true
		w.run.signal(syscall.SIGTERM)
		w.kill.Reset(killGrace)
	}
}

// reload takes over new settings. A run in progress is ended and does not count,
// except that it fails if it cannot be ended within the timeout.
func (w *worker) reload(cmd command) {
	w.cmd = cmd
	w.count.setLimits(cmd.script.Rise, cmd.script.Fall)
	w.tick.Reset(w.interval())
	w.due, w.told = true, false
	if w.state.known {
		w.publish(w.state) // it may have been dropped by a reload in between
	}
	if w.run != nil {
		w.ignore = true
		w.terminate()
		w.setLimit(w.timeout())
	}
}

// stop ends the run in progress and waits for it, within reason.
func (w *worker) stop() {
	if w.run == nil {
		return
	}
	w.terminate()
	for wait := killGrace; ; wait = giveUp {
		w.kill.Reset(wait)
		select {
		case <-w.run.done():
			return
		case <-w.kill.C:
			if wait == giveUp {
				w.log.Warn(fmt.Sprintf("VRRP_Script(%s) cannot be ended", w.name), "script", w.name)
				return
			}
			w.run.signal(syscall.SIGKILL)
		}
	}
}

// result counts the result of a run, and makes known what follows from it.
func (w *worker) result(out outcome) {
	if out.starved {
		w.keep(out)
		return
	}
	if !w.starved.IsZero() {
		w.log.Info(fmt.Sprintf("VRRP_Script(%s) can be run again", w.name), "script", w.name)
		w.starved = time.Time{}
		if w.state.stale != "" {
			w.state.stale = ""
			w.publish(w.state)
		}
	}
	changed := w.count.add(out.ok)
	if out.ok != w.count.ok {
		return // it takes more of them to change the state
	}
	if !changed && out.text == w.state.detail {
		return // only the output may differ, which is not worth a report
	}
	if changed {
		w.state.since = time.Now().Round(0)
		msg := fmt.Sprintf("VRRP_Script(%s) %s", w.name, out.text)
		if out.ok {
			w.log.Info(msg, "script", w.name)
		} else {
			w.log.Warn(msg, "script", w.name, "output", out.output)
		}
	}
	w.state.known, w.state.ok = true, w.count.ok
	w.state.detail, w.state.output = out.text, out.output
	w.publish(w.state)
}

// keep keeps the last result where the script could not be run for want of descriptors,
// memory or processes: that says nothing about the service, and all nodes may be in
// the same need. It is told, and marked.
func (w *worker) keep(out outcome) {
	if w.starved.IsZero() {
		w.starved = time.Now().Round(0)
		w.log.Warn(fmt.Sprintf("VRRP_Script(%s) %s; its last result counts until it can", w.name, out.text), "script", w.name)
	}
	if w.state.known && w.state.stale != out.text {
		w.state.stale = out.text
		w.publish(w.state)
	}
}
