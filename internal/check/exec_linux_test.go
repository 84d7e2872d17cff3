package check

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/config"
	"golang.org/x/sys/unix"
)

// newExec returns a runner that runs until the test ends.
func newExec(t *testing.T) *execRunner {
	t.Helper()
	r := newExecRunner()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx) }()
	t.Cleanup(func() { cancel(); receive(t, ended, "the runner to end") })
	return r
}

// receive receives, but not for ever.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// eventually polls for what the kernel does not notify.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// sh writes a shell script and returns the command to run it.
func sh(t *testing.T, text string) command {
	t.Helper()
	return cmd(write(t, filepath.Join(t.TempDir(), "chk.sh"), "#!/bin/sh\n"+text+"\n", 0o755))
}

func cmd(argv ...string) command {
	return command{script: &config.Script{Name: "chk", Argv: argv}}
}

// as makes the command run as the user who runs the test, also where a default
// user exists.
func (c command) as(user string) command {
	c.script.User = user
	return c
}

func pidIn(t *testing.T, file string) int {
	t.Helper()
	var pid int
	eventually(t, "a process ID in "+file, func() bool {
		b, _ := os.ReadFile(file)
		if !strings.HasSuffix(string(b), "\n") {
			return false
		}
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	return pid
}

// gone says whether the process has ended. A zombie has: who has to reap it is
// not our business.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

func TestExecOutcomes(t *testing.T) {
	r := newExec(t)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "up"), "", 0o644)
	noInterp := write(t, filepath.Join(dir, "nointerp"), "#!/no/such/interpreter\n", 0o755)
	garbage := write(t, filepath.Join(dir, "garbage"), "\x00\x01", 0o755)
	secure := func(c command) command { c.global.EnableScriptSecurity = true; c.script.User = "root"; return c }
	for _, tt := range []struct {
		name   string
		cmd    command
		text   string
		output string
	}{
		{"exit 0", sh(t, "echo fine; exit 0"), "succeeded", ""},
		{"exit 1", sh(t, "exit 1"), "failed (exited with status 1)", ""},
		{"exit 255", sh(t, "exit 255"), "failed (exited with status 255)", ""},
		{"signal", sh(t, "kill -9 $$"), "failed due to signal 9 (killed)", ""},
		{"output of both streams", sh(t, "echo one; echo two >&2; exit 3"), "failed (exited with status 3)", "one\ntwo"},
		{"much output: the end is kept", sh(t, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 1"), "failed (exited with status 1)", "line 19999"},
		{"arguments are not for a shell", cmd("/bin/sh", "-c", `echo "$0:$1"; exit 1`, "*", "a b"), "failed (exited with status 1)", "*:a b"},
		{"bare name", cmd("false"), "failed (exited with status 1)", ""},
		{"missing command", cmd(filepath.Join(dir, "none")), "failed (cannot run: " + dir + "/none: no such file or directory)", ""},
		{"unknown name", cmd("no-such-command"), "failed (cannot run: no-such-command: not found in PATH", ""},
		{"not executable", cmd(file), "failed (cannot run: " + file + ": is not executable)", ""},
		{"missing interpreter", cmd(noInterp), "failed (cannot run: " + noInterp + ": its interpreter does not exist)", ""},
		{"not a program", cmd(garbage), "failed (cannot run: " + garbage + ": exec format error)", ""},
		{"no command", cmd(), "failed (cannot run: empty command)", ""},
		{"unknown user", cmd("true").as("no-such-user"), "failed (cannot run: look up user no-such-user: user: unknown user", ""},
		{"file can be opened", cmd("<" + file), "succeeded", ""},
		{"file can be opened, with a space", cmd("<", file), "succeeded", ""},
		{"file cannot be opened", cmd("<" + dir + "/none"), "failed (cannot open " + dir + "/none: no such file or directory)", ""},
		{"script security, insecure", secure(cmd(write(t, filepath.Join(dir, "ww"), "#!/bin/sh\n", 0o757))), "is insecure: is writable for group or others (mode 0757))", ""},
		{"script security, interpreter's argument", secure(cmd("/bin/sh", filepath.Join(dir, "ww"))), "is writable for group or others (mode 0757))", ""},
		{"script security, in a shell's words", secure(cmd("/bin/sh", "-c", "exec "+filepath.Join(dir, "ww")+" 1")), "is writable for group or others (mode 0757))", ""},
		{"script security, interpreter", secure(cmd(write(t, filepath.Join(dir, "run-by-ww"), "#!"+filepath.Join(dir, "ww")+"\n", 0o755))), "is writable for group or others (mode 0757))", ""},
		{"script security, what is no file", secure(cmd("/bin/true", "/dev/null", filepath.Join(dir, "none"))), "succeeded", ""},
		{"script security, secure", secure(cmd("/bin/true")), "succeeded", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cmd.global.EnableScriptSecurity {
				needRoot(t)
			}
			out := receive(t, r.start(tt.cmd).done(), "the outcome")
			if out.ok != (tt.text == "succeeded") || !strings.Contains(out.text, tt.text) {
				t.Errorf("ok %v, %q; want %q", out.ok, out.text, tt.text)
			}
			if !strings.HasSuffix(out.output, tt.output) || len(out.output) > tailSize || tt.output == "" && out.output != "" {
				t.Errorf("output %q, want %q", out.output, tt.output)
			}
		})
	}
}

// TestExecStarved: what cannot be run for want of descriptors or processes is no
// failure of what it checks.
func TestExecStarved(t *testing.T) {
	for err, starved := range map[error]bool{
		fmt.Errorf("make a pipe: %w", os.NewSyscallError("pipe2", syscall.EMFILE)):   true,
		fmt.Errorf("look up user x: %w", syscall.ENFILE):                             true,
		startError("/bin/true", &fs.PathError{Op: "fork/exec", Err: syscall.EAGAIN}): true,
		startError("/bin/true", &fs.PathError{Op: "fork/exec", Err: syscall.ENOMEM}): true,
		startError("/bin/true", &fs.PathError{Op: "fork/exec", Err: syscall.EACCES}): false,
	} {
		if out := notRun(err); out.ok || out.starved != starved {
			t.Errorf("%v: %+v", err, out)
		}
	}
	r := newExec(t)
	c := cmd("/bin/true")
	if out := receive(t, r.start(c).done(), "the outcome"); !out.ok {
		t.Fatal(out)
	}
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	short := old
	short.Cur = 0
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &short))
	outs := []outcome{receive(t, r.start(c).done(), "the outcome"), receive(t, r.start(cmd("</etc/passwd")).done(), "the outcome")}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	for _, out := range outs {
		if out.ok || !out.starved {
			t.Errorf("%+v", out)
		}
	}
}

// TestExecVanishes: a script that is deleted after it has worked is a failure.
func TestExecVanishes(t *testing.T) {
	r := newExec(t)
	c := sh(t, "exit 0")
	if out := receive(t, r.start(c).done(), "the outcome"); !out.ok {
		t.Fatal(out)
	}
	must(t, os.Remove(c.script.Argv[0]))
	if out := receive(t, r.start(c).done(), "the outcome"); out.ok || !strings.Contains(out.text, "no such file") {
		t.Errorf("%+v", out)
	}
}

// TestExecEnvironment: what a script finds around it.
func TestExecEnvironment(t *testing.T) {
	t.Setenv("IFS", "x")
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("LD_LIBRARY_PATH", "/nowhere")
	t.Setenv("RAFTVIP_TEST_KEPT", "kept")
	r := newExec(t)
	c := sh(t, `env | grep -E '^(IFS|LD_PRELOAD|LD_LIBRARY_PATH|RAFTVIP_TEST_KEPT)='
pwd
readlink /proc/$$/fd/0
read -r pid comm state ppid pgrp session tty rest < /proc/$$/stat
[ "$pgrp" = "$$" ] && [ "$session" = "$$" ] && [ "$tty" = 0 ] && echo own session
exit 1`)
	out := receive(t, r.start(c).done(), "the outcome")
	if want := "RAFTVIP_TEST_KEPT=kept\n/\n/dev/null\nown session"; out.output != want {
		t.Errorf("output %q, want %q", out.output, want)
	}
}

// TestExecUser: the script's user, group and supplementary groups.
func TestExecUser(t *testing.T) {
	needRoot(t)
	r := newExec(t)
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	id := write(t, filepath.Join(dir, "id.sh"), "#!/bin/sh\nid -u; id -g; id -G; exit 1\n", 0o755)
	for _, tt := range []struct{ user, group, want string }{
		{"nobody", "", "65534\n65534\n65534"},
		{"nobody", "daemon", "65534\n1\n1 65534"},
		{"root", "", "0\n0\n"},
	} {
		c := cmd(id).as(tt.user)
		c.script.Group = tt.group
		if out := receive(t, r.start(c).done(), "the outcome"); !strings.HasPrefix(out.output, tt.want) {
			t.Errorf("%s:%s: %q (%s), want %q", tt.user, tt.group, out.output, out.text, tt.want)
		}
	}
	secret := write(t, filepath.Join(dir, "secret"), "", 0o700)
	if out := receive(t, r.start(cmd(secret).as("nobody")).done(), "the outcome"); !strings.Contains(out.text, "permission denied") {
		t.Errorf("executed what the user may not: %+v", out)
	}
}

// TestExecSignalsGroup: a signal reaches all of the group, and nothing of it
// outlives the run.
func TestExecSignalsGroup(t *testing.T) {
	r := newExec(t)
	dir := t.TempDir()
	for _, tt := range []struct{ name, text string }{
		{"children get the signal", "sleep 1000 &\necho $! > " + dir + "/pid0\nwait"},
		{"children that do not heed it are killed", "sh -c 'trap \"\" TERM; echo $$ > " + dir + "/pid1; while :; do sleep 0.05; done' &\nwait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(dir, "pid"+strconv.Itoa(strings.Count(tt.text, "pid1")))
			p := r.start(sh(t, tt.text))
			child := pidIn(t, file)
			p.signal(syscall.SIGTERM)
			if out := receive(t, p.done(), "the outcome"); out.text != "failed due to signal 15 (terminated)" {
				t.Errorf("outcome %+v", out)
			}
			eventually(t, "the child to end", func() bool { return gone(child) })
		})
	}
	t.Run("a signal before the start", func(t *testing.T) {
		p := &execProcess{end: make(chan outcome, 1)}
		p.signal(syscall.SIGTERM)
		out := make(chan outcome, 1)
		go func() { out <- r.perform(cmd("sleep", "1000"), p) }()
		if o := receive(t, out, "the outcome"); o.text != "failed due to signal 9 (killed)" {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestExecDaemon: something that a script leaves behind and that holds its output
// neither delays the outcome, nor is it killed, nor does writing break it.
func TestExecDaemon(t *testing.T) {
	r := newExec(t)
	dir := t.TempDir()
	p := r.start(sh(t, fmt.Sprintf(`echo started
(trap 'touch %[1]s/broken' PIPE; echo $(exec sh -c 'echo $PPID') > %[1]s/pid; while [ ! -e %[1]s/stop ]; do sleep 0.02; done
 i=0; while [ $i -lt 3000 ]; do echo filling the pipe with more than fits into it at once || touch %[1]s/broken; i=$((i+1)); done; touch %[1]s/written) &
exit 1`, dir)))
	out := receive(t, p.done(), "the outcome")
	if out.output != "started" || out.text != "failed (exited with status 1)" {
		t.Errorf("outcome %+v", out)
	}
	daemon := pidIn(t, filepath.Join(dir, "pid"))
	if gone(daemon) {
		t.Error("the daemon was killed")
	}
	write(t, filepath.Join(dir, "stop"), "", 0o644)
	eventually(t, "the daemon to have written", func() bool { _, err := os.Stat(dir + "/written"); return err == nil })
	if _, err := os.Stat(dir + "/broken"); err == nil {
		t.Error("the daemon's writes failed")
	}
	eventually(t, "the pipe to be closed", func() bool {
		r.pipes.mu.Lock()
		defer r.pipes.mu.Unlock()
		return len(r.pipes.held) == 0
	})
}

// TestExecHeldPipes: leftovers do not use up descriptors without a limit.
func TestExecHeldPipes(t *testing.T) {
	var k pipeKeeper
	var ends []*os.File
	for range maxHeldPipes {
		read, write, err := k.open()
		must(t, err)
		k.follow(read, new(tail))() // the script has ended, somebody holds write
		ends = append(ends, write)
	}
	if read, _, err := k.open(); read != nil || err != nil {
		t.Errorf("pipe number %d: %v, %v; want none", maxHeldPipes+1, read, err)
	}
	for _, w := range ends[:maxHeldPipes/2] {
		must(t, w.Close())
	}
	eventually(t, "pipes to be free", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.held) == maxHeldPipes/2 })
	k.close()
	if len(k.held) != 0 {
		t.Errorf("%d pipes after close", len(k.held))
	}
	for _, w := range ends[maxHeldPipes/2:] {
		must(t, w.Close())
	}
}

// TestExecParentDeath: a script survives the end of threads, and gets SIGTERM when
// the runner, or the daemon, ends without doing anything about it.
func TestExecParentDeath(t *testing.T) {
	r := newExecRunner()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx) }()
	dir := t.TempDir()
	p := r.start(sh(t, "trap 'touch "+dir+"/termed; exit 7' TERM\necho $$ > "+dir+"/pid\nwhile :; do sleep 0.02; done"))
	pid := pidIn(t, filepath.Join(dir, "pid"))

	// End many threads.
	for range 20 {
		done := make(chan struct{})
		go func() { defer close(done); runtime.LockOSThread(); _ = unix.Gettid() }()
		<-done
	}
	if gone(pid) {
		t.Fatal("the script ended with some thread")
	}
	cancel()
	receive(t, ended, "the runner to end")
	if out := receive(t, p.done(), "the script to end"); out.text != "failed (exited with status 7)" {
		t.Errorf("outcome %+v", out)
	}
	if _, err := os.Stat(dir + "/termed"); err != nil {
		t.Error("no SIGTERM when the forking thread ended")
	}
	if out := receive(t, r.start(cmd("true")).done(), "the outcome"); out.ok {
		t.Error("a run after the end succeeded")
	}
}

// TestDaemonKilled: the whole daemon is killed; its scripts get SIGTERM.
func TestDaemonKilled(t *testing.T) {
	if file := os.Getenv("RAFTVIP_TEST_DAEMON"); file != "" {
		r := newExecRunner()
		go r.run(context.Background())
		<-r.start(cmd(file)).done()
		return
	}
	dir := t.TempDir()
	script := write(t, filepath.Join(dir, "chk.sh"), "#!/bin/sh\necho $$ > "+dir+"/pid\nexec sleep 1000\n", 0o755)
	daemon := exec.Command(os.Args[0], "-test.run=^TestDaemonKilled$")
	daemon.Env = append(os.Environ(), "RAFTVIP_TEST_DAEMON="+script)
	must(t, daemon.Start())
	pid := pidIn(t, filepath.Join(dir, "pid"))
	must(t, daemon.Process.Kill())
	_ = daemon.Wait() // killed
	eventually(t, "the script to end", func() bool { return gone(pid) })
}

// TestChecksReal runs everything together, with real processes.
func TestChecksReal(t *testing.T) {
	dir := t.TempDir()
	flag := write(t, filepath.Join(dir, "flag"), "", 0o644)
	good := write(t, filepath.Join(dir, "good.sh"), "#!/bin/sh\ntest -e "+flag+" || { echo no flag; exit 1; }\n", 0o755)
	slow := write(t, filepath.Join(dir, "slow.sh"), "#!/bin/sh\nsleep 1000 & echo $! > "+dir+"/pid\nwait\n", 0o755)
	conf := testConfig(
		&config.Script{Name: "good", Argv: []string{good}, Interval: 20 * ms, Timeout: 10 * time.Second},
		&config.Script{Name: "slow", Argv: []string{slow}, Interval: time.Minute, Timeout: 300 * ms, Weight: -10},
	)
	k := New(Config{Config: conf, Links: NewFakeLinks("eth0")})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	until := func(what string, ok func(Report) bool) {
		t.Helper()
		for !ok(k.Report()) {
			receive(t, k.Changed(), what)
		}
	}
	until("both results", func(r Report) bool { return r.Ready && r.Priority == 90 && len(r.Faults) == 0 })
	child := pidIn(t, filepath.Join(dir, "pid"))
	eventually(t, "the slow script's child to be killed", func() bool { return gone(child) })
	must(t, os.Remove(flag))
	until("the failure", func(r Report) bool {
		return len(r.Faults) == 1 && r.Faults[0] == "script good failed (exited with status 1): no flag"
	})
	write(t, flag, "", 0o644)
	until("the recovery", func(r Report) bool { return len(r.Faults) == 0 })
	k.Reload(testConfig(&config.Script{Name: "hang", Argv: []string{"sleep", "1000"}, Timeout: time.Hour}))
	cancel()
	if err := receive(t, ended, "Run to end"); err != nil {
		t.Error(err)
	}
}
