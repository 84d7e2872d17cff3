package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrStillRunning is returned by Proc.Wait when the program has not ended.
var ErrStillRunning = errors.New("still running")

// Cmd describes a program to start in a host.
type Cmd struct {
	Args []string // Args[0] is looked up in PATH
	Env  []string // added to this process's environment
	Dir  string
	Name string // of the output file; by default the base name of Args[0]

	// Sysfs starts the program through `ip netns exec`, which gives it a /sys
	// that shows the host's interfaces, at the price of a mount namespace of its
	// own in which bpffs and cgroups are not mounted. The program is a direct
	// child either way.
	Sysfs bool

	// OwnPIDs starts the program in a process namespace of the host, shared by all
	// that are started so, with a /proc that shows only these. It is a direct child
	// all the same, and signals reach it by its number out here.
	OwnPIDs bool

	// User, if not 0, is the user and group number that the program runs as, without
	// any capability.
	User uint32

	pidInit bool // make it process 1 of a new process namespace
}

// Proc is a program running in a host. It is a direct child of this process, so
// signals reach it and nothing between, and the kernel kills it when this process
// dies, however that happens.
type Proc struct {
	name string
	host *Host
	cmd  *exec.Cmd
	pids int // process namespace to start it in, or -1
	out  string
	done chan struct{}
	err  error // set before done is closed
}

// Start starts the program in the host's network namespace. The mount namespace
// stays ours, so pinned BPF objects and files are shared.
func (h *Host) Start(c Cmd) (*Proc, error) {
	if len(c.Args) == 0 {
		return nil, errors.New("start program: no arguments")
	}
	if c.Name == "" {
		c.Name = filepath.Base(c.Args[0])
	}
	l := h.lab
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, fmt.Errorf("start %s in %s: lab is closed", c.Name, h.name)
	}
	l.procSeq++
	seq := l.procSeq
	l.mu.Unlock()

	args := c.Args
	if c.Sysfs {
		args = append([]string{"ip", "netns", "exec", h.nsName}, args...)
	}
	pids := -1
	if c.OwnPIDs {
		var err error
		if pids, err = h.pids.open(h); err != nil {
			return nil, fmt.Errorf("start %s in %s: %w", c.Name, h.name, err)
		}
	}
	if c.OwnPIDs || c.pidInit {
		args = mountProc(args)
	}
	p := &Proc{
		name: c.Name, host: h, pids: pids, done: make(chan struct{}),
		cmd: exec.Command(args[0], args[1:]...),
		out: filepath.Join(l.dir, fmt.Sprintf("%s-%s-%d.log", h.name, c.Name, seq)),
	}
	f, err := os.Create(p.out)
	if err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", c.Name, h.name, err)
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Dir = c.Dir
	if len(c.Env) > 0 {
		p.cmd.Env = append(os.Environ(), c.Env...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.User != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.User, Gid: c.User}
	}
	if c.pidInit {
		p.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	}
	if c.OwnPIDs {
		// Its end comes with that of process 1. Package syscall cannot set the signal
		// in another process namespace: it takes a parent outside for a dead one.
		p.cmd.SysProcAttr.Pdeathsig = 0
	}
	if c.OwnPIDs || c.pidInit {
		p.cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
	}

	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", c.Name, h.name, err)
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.procs = append(l.procs, p)
	}
	l.mu.Unlock()
	if closed {
		_ = p.Kill()
		return nil, fmt.Errorf("start %s in %s: lab is closed", c.Name, h.name)
	}
	return p, nil
}

// run starts the program and waits for it on one thread: the parent-death signal
// is sent when the thread that forked ends, not the process, so that thread has
// to stay for as long as the program does.
func (p *Proc) run(started chan<- error) {
	runtime.LockOSThread()
	orig, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		started <- err
		return
	}
	restored := true
	if err = netns.Set(p.host.ns); err == nil {
		if p.pids < 0 {
			err = p.cmd.Start()
		} else {
			restored, err = startIn(p.pids, p.cmd.Start)
		}
	}
	restored = netns.Set(orig) == nil && restored
	_ = orig.Close()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
		close(p.done)
	}
	if restored {
		runtime.UnlockOSThread()
	}
}

// Pid returns the program's process number.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Host returns the host the program runs in.
func (p *Proc) Host() *Host { return p.host }

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and returns its exit code, or -1 with an
// error if a signal ended it, or ErrStillRunning after the timeout.
func (p *Proc) Wait(timeout time.Duration) (int, error) {
	select {
	case <-p.done:
	case <-time.After(timeout):
		select {
		case <-p.done:
		default:
			return -1, fmt.Errorf("wait for %s in %s (pid %d) for %v: %w", p.name, p.host.name, p.Pid(), timeout, ErrStillRunning)
		}
	}
	return p.cmd.ProcessState.ExitCode(), p.err
}

// Signal sends a signal to the program. One that has ended is not an error.
func (p *Proc) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s in %s: %w", s, p.name, p.host.name, err)
	}
	return nil
}

// Kill is kill -9: the program gets no chance to clean up.
func (p *Proc) Kill() error { return p.Signal(syscall.SIGKILL) }

// Term asks the program to end.
func (p *Proc) Term() error { return p.Signal(syscall.SIGTERM) }

// Stop freezes the program until Cont. Its children go on; see SignalTree. The
// kernel stops threads one by one: the freeze is complete when Stop returns, or
// after a second.
func (p *Proc) Stop() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range 1000 {
		if s := procState(p.Pid()); s == 'T' || s == 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("stop %s in %s: not stopped after 1 s", p.name, p.host.name)
}

// Cont thaws what Stop froze.
func (p *Proc) Cont() error { return p.Signal(syscall.SIGCONT) }

// Tree returns the process numbers of the program and its descendants, parents
// first.
func (p *Proc) Tree() []int {
	children := map[int][]int{}
	for _, pid := range allPids() {
		if _, ppid := procStat(pid); ppid > 0 {
			children[ppid] = append(children[ppid], pid)
		}
	}
	tree := []int{p.Pid()}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// SignalTree sends a signal to the program and its descendants, parents first. A
// daemon in several processes, as keepalived, is only frozen when all are.
func (p *Proc) SignalTree(s syscall.Signal) error {
	tree := p.Tree()
	if err := p.Signal(s); err != nil {
		return err
	}
	for _, pid := range tree[1:] {
		if err := unix.Kill(pid, s); err != nil && err != unix.ESRCH {
			return fmt.Errorf("send %v to pid %d of %s: %w", s, pid, p.name, err)
		}
	}
	return nil
}

// OutputFile returns the path of the file that receives the program's output.
func (p *Proc) OutputFile() string { return p.out }

// Output returns what the program has printed so far on stdout and stderr.
func (p *Proc) Output() string {
	b, err := os.ReadFile(p.out)
	if err != nil {
		return fmt.Sprintf("(no output: %v)", err)
	}
	return string(b)
}

// Tail returns at most the last n bytes of the output.
func (p *Proc) Tail(n int) string {
	s := p.Output()
	if len(s) > n {
		s = "..." + s[len(s)-n:]
	}
	return s
}

func procState(pid int) byte { s, _ := procStat(pid); return s }

// procStat returns state and parent from /proc/PID/stat (proc_pid_stat(5)), zero
// if there is no such process.
func procStat(pid int) (state byte, ppid int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The command name is in parentheses and may itself contain anything.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 2 {
		return 0, 0
	}
	ppid, _ = strconv.Atoi(f[1])
	return f[0][0], ppid
}

// Procs returns every program started in the lab so far, in order.
func (l *Lab) Procs() []*Proc {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Proc(nil), l.procs...)
}
