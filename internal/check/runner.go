package check

import (
	"fmt"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/shortage"
)

// A command is what a runner runs: a script with the settings it depends on.
type command struct {
	script *config.Script
	global config.Global
}

// A runner starts commands. It is an interface so that time can be simulated in
// tests; the real one is execRunner.
type runner interface {
	// start starts a command and does not block. That it could not be started is
	// an outcome like others.
	start(command) process
}

// A process is one run of a command.
type process interface {
	// done delivers the outcome, once, when the command has ended.
	done() <-chan outcome
	// signal sends a signal to the process group of the command. Nothing of the
	// group outlives a run that was signalled.
	signal(syscall.Signal)
	// output returns the end of what the command has written so far.
	output() string
}

// An outcome is the result of one run.
type outcome struct {
	ok bool
	// text continues "script NAME", in keepalived's words.
	text   string
	output string
	// starved: there was nothing to run it with, which says nothing about what it
	// checks.
	starved bool
}

func succeeded() outcome { return outcome{ok: true, text: "succeeded"} }

func exited(status int) outcome {
	return outcome{text: fmt.Sprintf("failed (exited with status %d)", status)}
}

func signalled(sig syscall.Signal) outcome {
	return outcome{text: fmt.Sprintf("failed due to signal %d (%v)", int(sig), sig)}
}

func timedOut(after time.Duration) outcome {
	return outcome{text: fmt.Sprintf("timed out after %v", after)}
}

func notRun(err error) outcome {
	if shortage.OfProcesses(err) {
		return outcome{starved: true, text: fmt.Sprintf("cannot be run now: %v", err)}
	}
	return outcome{text: fmt.Sprintf("failed (cannot run: %v)", err)}
}
