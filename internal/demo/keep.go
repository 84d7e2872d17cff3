package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/internal/testnet"
)

// envKeeper marks the process that a demonstration with KEEP=1 leaves behind. A
// lab ends with the process that made it, so it is made by one that can stay when
// the terminal, make and go run have gone.
const envKeeper = "RAFTVIP_DEMO_KEEPER"

// keeperPipe is the keeper's end of the pipe on which it says that the show is over.
const keeperPipe = 3

// runKeeper has a process of its own do the demonstration, and returns when the
// show is over and the cluster stays.
func runKeeper(ctx context.Context) int {
	self, err := os.Executable()
	if err != nil {
		return failed(err, "")
	}
	over, theirs, err := os.Pipe()
	if err != nil {
		return failed(err, "")
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envKeeper+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return failed(err, "")
	}
	theirs.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	if n, _ := over.Read(make([]byte, 1)); n > 0 {
		return 0
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return failed(err, "")
	}
	return max(cmd.ProcessState.ExitCode(), 1)
}

// keep says how to look around, lets the terminal go and stays until it is told to
// end.
func keep(ctx context.Context, c *e2e.Cluster) {
	say("\nThe cluster is up. Look around:\n")
	for _, n := range c.Nodes {
		say("   %s", n.CommandLine("status"))
	}
	say("   ip netns exec %s ping %v", c.Lab.Client(0).Namespace(), c.Lab.VIP4(100))
	say("\nKill an owner, freeze it (kill -STOP), cut its link:\n")
	for _, n := range c.Nodes {
		say("   kill -9 %-8d ip netns exec %s ip link set %v down", n.Daemon().Pid(), n.Host.Namespace(), testnet.Front)
	}
	say("\nRemove it all:\n\n   kill %d", os.Getpid())
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		_ = syscall.Dup3(int(null.Fd()), 1, 0)
		_ = syscall.Dup3(int(null.Fd()), 2, 0)
		null.Close()
	}
	pipe := os.NewFile(keeperPipe, "pipe")
	_, _ = fmt.Fprintln(pipe, "over")
	pipe.Close()
	<-ctx.Done()
}
