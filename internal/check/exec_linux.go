package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/sched"
	"github.com/raftvip/raftvip/internal/shortage"
)

// errStopped is the outcome of runs that the end of the runner has prevented.
var errStopped = errors.New("shutting down")

// An execRunner runs commands as processes.
//
// All are forked by one operating system thread that lives as long as the
// runner: the parent-death signal is sent when the thread that forked ends, not
// the process (prctl(2), PR_SET_PDEATHSIG), and the Go runtime is free to end
// any thread that is not locked to a goroutine.
type execRunner struct {
	forks   chan fork
	stopped chan struct{} // closed when the forking thread is gone
	pipes   pipeKeeper
}

type fork struct {
	cmd    *exec.Cmd
	result chan error
}

func newExecRunner() *execRunner {
	return &execRunner{forks: make(chan fork), stopped: make(chan struct{})}
}

// run forks on behalf of start until ctx ends. Commands that still run then get
// SIGTERM from the kernel.
func (r *execRunner) run(ctx context.Context) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread, which the runtime never ends. Another goroutine cannot
		// get it while it is locked.
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		<-ended
		runtime.UnlockOSThread()
		return
	}
	// Never unlocked, so that the thread ends with this goroutine. What the daemon's
	// urgency is for does not include its scripts; one that cannot lay it off has
	// them run with it.
	_ = sched.Ordinary()
	defer r.pipes.close()
	defer close(r.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-r.forks:
			f.result <- f.cmd.Start()
		}
	}
}

func (r *execRunner) start(c command) process {
	p := &execProcess{end: make(chan outcome, 1)}
	go func() {
		out := r.perform(c, p)
		if !out.ok {
			out.output = p.output()
		}
		p.end <- out
	}()
	return p
}

// perform does everything about one run; each step of it can block for long when
// a file system or a directory service hangs.
func (r *execRunner) perform(c command, p *execProcess) outcome {
	argv := c.script.Argv
	if len(argv) == 0 || argv[0] == "" {
		return notRun(errors.New("empty command"))
	}
	if argv[0][0] == '<' {
		return openFile(strings.TrimSpace(strings.Join(argv, " ")[1:]))
	}
	cmd, err := prepare(c)
	if err != nil {
		return notRun(err)
	}
	read, written, err := r.pipes.open()
	if err != nil {
		return notRun(fmt.Errorf("make a pipe: %w", err))
	}
	if written != nil {
		cmd.Stdout, cmd.Stderr = written, written
	}
	f := fork{cmd: cmd, result: make(chan error, 1)}
	select {
	case <-r.stopped:
		err = errStopped
	case r.forks <- f:
		err = <-f.result
	}
	if written != nil {
		written.Close()
	}
	if err != nil {
		r.pipes.discard(read)
		return notRun(startError(cmd.Path, err))
	}
	p.started(cmd.Process.Pid)
	followed := r.pipes.follow(read, &p.tail)
	p.reap(cmd)
	followed()
	st := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case st.Signaled():
		return signalled(st.Signal())
	case st.ExitStatus() != 0:
		return exited(st.ExitStatus())
	}
	return succeeded()
}

// openFile is the command "</path": success is that the file can be opened.
func openFile(path string) outcome {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if shortage.Is(err) {
		return outcome{starved: true, text: fmt.Sprintf("cannot be opened now: %s: %v", path, reason(err))}
	}
	if err != nil {
		return outcome{text: fmt.Sprintf("failed (cannot open %s: %v)", path, reason(err))}
	}
	f.Close()
	return succeeded()
}

// prepare makes the command ready to be started: what to run, as whom, and in
// what surroundings.
func prepare(c command) (*exec.Cmd, error) {
	path, err := LookupCommand(c.script.Argv[0])
	if err != nil {
		return nil, err
	}
	id, err := ScriptIdentity(c.script, c.global)
	if err != nil {
		return nil, err
	}
	if c.global.EnableScriptSecurity {
		if err := CheckScriptSecurity(path, id.UID); err != nil {
			return nil, err
		}
		if err := checkNamed(path, c.script.Argv[1:], id.UID); err != nil {
			return nil, err
		}
	}
	// A session of its own is a process group of its own, and has no terminal: the
	// daemon's would let a script read what its operator types.
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if !id.Own {
		if os.Geteuid() != 0 {
			return nil, fmt.Errorf("as user %s: raftvip does not run as root", id.User)
		}
		attr.Credential = &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID)}
		for _, g := range id.Groups {
			attr.Credential.Groups = append(attr.Credential.Groups, uint32(g))
		}
	}
	return &exec.Cmd{
		Path:        path,
		Args:        c.script.Argv,
		Env:         environment(),
		Dir:         "/",
		SysProcAttr: attr,
	}, nil
}

// environment returns the daemon's environment without the variables that change
// how a program is loaded or a shell splits words, as keepalived does.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == "IFS" || name == "LD_PRELOAD" || name == "LD_LIBRARY_PATH"
	})
}

// startError says why a program could not be executed.
func startError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && executable(path) == nil {
		return fmt.Errorf("%s: its interpreter does not exist", path)
	}
	if errors.Is(err, errStopped) {
		return err
	}
	return fmt.Errorf("%s: %w", path, reason(err))
}

// An execProcess is one run by an execRunner.
type execProcess struct {
	end  chan outcome
	tail tail

	mu   sync.Mutex
	pid  int            // of the group leader, while it is not reaped; else 0
	sent syscall.Signal // last signal asked for
}

func (p *execProcess) done() <-chan outcome { return p.end }

func (p *execProcess) output() string { return p.tail.text() }

func (p *execProcess) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = sig
	if p.pid != 0 {
		// It can only fail if there is nobody left to kill.
		_ = unix.Kill(-p.pid, sig)
	}
}

func (p *execProcess) started(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	if p.sent != 0 { // meant for a run that had not begun
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

// reap waits for the command. If it was signalled, the rest of its process group
// is killed before its process ID, which is also that of the group, can be used
// again.
func (p *execProcess) reap(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	if p.sent != 0 {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
	p.pid = 0
	p.mu.Unlock()
	// The error repeats what ProcessState says; the streams are files, so that
	// there is nothing else to wait for.
	_ = cmd.Wait()
}
