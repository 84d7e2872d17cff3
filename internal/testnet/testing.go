package testnet

import (
	"context"
	"errors"
	"os"
	"time"
)

// TB is the part of testing.TB that is used here, so that programs need not link
// package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Errorf(format string, args ...any)
	Failed() bool
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
}

// EnvNetns is set to 1 where tests in network namespaces must run.
const EnvNetns = "RAFTVIP_NETNS"

// Require skips the test unless tests in network namespaces were asked for, and
// fails it if they were but cannot run: a skip is not to look like success.
func Require(t TB) {
	t.Helper()
	if os.Getenv(EnvNetns) != "1" {
		t.Skipf("set %s=1, as root, to run tests in network namespaces", EnvNetns)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("%s=1 but not root", EnvNetns)
	}
}

// ForTest builds a lab for the test and closes it at the end. If the test fails,
// the end of every program's output is logged.
func ForTest(t TB, o Options) *Lab {
	t.Helper()
	Require(t)
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		procs := l.Procs()
		if t.Failed() {
			for _, p := range procs {
				t.Logf("--- output of %s in %s (pid %d):\n%s", p.name, p.host, p.Pid(), p.Tail(4000))
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

// MustHoldP1 fails the test if the prober saw two holders of one address, or saw
// too little to tell: no answer at all.
func MustHoldP1(t TB, p *Prober) {
	t.Helper()
	rep := p.Check()
	st := p.Stats()
	err := rep.Err()
	if err == nil && st.Answers == 0 {
		err = errors.New("P1 not judged: no answer was seen")
	}
	if err == nil && st.Dropped > 0 {
		err = errors.New("P1 not judged: the observer lost packets")
	}
	if err != nil {
		t.Errorf("%v (%d probes, %v)", err, st.Probes, st.Cadence)
	}
}

// MustWait fails the test if cond does not come true in time; see WaitFor.
func MustWait(t TB, d time.Duration, what string, cond func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := WaitFor(ctx, what, cond); err != nil {
		t.Fatalf("%v", err)
	}
}
