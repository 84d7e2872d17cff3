package sched

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFromEnv(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want Settings
		says string
	}{
		{nil, Settings{}, ""},
		{map[string]string{EnvNice: "-10", EnvRealTime: "1", EnvLock: "1"}, Settings{Nice: -10, RealTime: 1, LockMemory: true}, ""},
		{map[string]string{EnvLock: "0"}, Settings{}, ""},
		{map[string]string{EnvNice: "-21"}, Settings{}, "RAFTVIP_NICE=-21: must be -20 to 19"},
		{map[string]string{EnvNice: "low"}, Settings{}, "RAFTVIP_NICE=low"},
		{map[string]string{EnvRealTime: "0"}, Settings{}, "RAFTVIP_RT_PRIORITY=0: must be 1 to 99"},
		{map[string]string{EnvLock: "yes", EnvNice: "20"}, Settings{}, "RAFTVIP_LOCK_MEMORY=yes: must be 0 or 1"},
	} {
		got, err := FromEnv(func(name string) string { return tt.env[name] })
		if got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.env, got, tt.want)
		}
		if (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: error %v, want %q", tt.env, err, tt.says)
		}
	}
}

// TestApply is done in a process of its own: this one could not become ordinary
// again without a capability. To be less urgent needs none.
func TestApply(t *testing.T) {
	const child = "RAFTVIP_SCHED_TEST"
	if os.Getenv(child) != "1" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestApply$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all threads looked at") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := Apply(Settings{Nice: 7}); err != nil {
		t.Fatal(err)
	}
	// Threads that are made only now have it too.
	made, end := make(chan struct{}), make(chan struct{})
	for range 4 {
		go func() {
			runtime.LockOSThread()
			made <- struct{}{}
			<-end
		}()
	}
	for range 4 {
		<-made
	}
	n := 0
	err := eachThread(func(tid int) error {
		a, err := unix.SchedGetAttr(tid, 0)
		if err == nil && a.Nice != 7 {
			t.Errorf("thread %d has nice %d", tid, a.Nice)
		}
		n++
		return err
	})
	close(end)
	if err != nil || n < 5 {
		t.Errorf("%d threads, %v", n, err)
	}
	t.Log("all threads looked at")
}

// TestOrdinary: an urgent thread forks programs that are not.
func TestOrdinary(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with this goroutine
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -1); err != nil {
			t.Logf("this process may not be urgent (%v), so that what it does stays ordinary is all that is tested", err)
		}
		if err := Ordinary(); err != nil {
			t.Error(err)
		}
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil || a.Nice != 0 || a.Policy != unix.SCHED_NORMAL {
			t.Errorf("%+v, %v", a, err)
		}
	}()
	<-done
}
