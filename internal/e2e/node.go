package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A Node is one daemon, running or not, and the commands of its operator.
type Node struct {
	Host *testnet.Host
	Name string
	// Dir is for the node's files; data directory and control socket are in it.
	Dir, DataDir, Socket string
	// Config is its configuration file, or "".
	Config string
	// User, if not 0, is the user that the daemon and its commands run as. The
	// node's directory is made theirs.
	User uint32
	// RunArgs are further arguments of run, Env further environment of the daemon.
	RunArgs, Env []string
	// OwnPIDs: the daemon and its scripts see only the processes of the host.
	OwnPIDs bool

	binary string
	proc   *testnet.Proc
}

// noEnv keeps what the caller has set for a raftvip of the machine from ours.
var noEnv = []string{"RAFTVIP_CONFIG=", "RAFTVIP_DATA_DIR=", "RAFTVIP_SOCKET=", "RAFTVIP_TOKEN=", "NOTIFY_SOCKET=", "WATCHDOG_USEC="}

func (n *Node) args(args ...string) []string {
	out := append([]string{n.binary}, args...)
	out = append(out, "--data-dir", n.DataDir, "--socket", n.Socket)
	if n.Config != "" {
		out = append(out, "--config", n.Config)
	}
	return out
}

// Start starts the daemon.
func (n *Node) Start(args ...string) error {
	p, err := n.Host.Start(testnet.Cmd{
		Name: n.Name, Args: n.args(slices.Concat([]string{"run"}, n.RunArgs, args)...), Env: slices.Concat(noEnv, n.Env), OwnPIDs: n.OwnPIDs, User: n.User,
	})
	if err != nil {
		return err
	}
	n.proc = p
	return nil
}

// Daemon is the process last started, running or not.
func (n *Node) Daemon() *testnet.Proc { return n.proc }

// Running tells whether the daemon runs, frozen or not.
func (n *Node) Running() bool {
	if n.proc == nil {
		return false
	}
	select {
	case <-n.proc.Done():
		return false
	default:
		return true
	}
}

// WaitServing waits until the daemon answers its operator.
func (n *Node) WaitServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return testnet.WaitFor(ctx, n.Name+" to serve", func() error {
		if !n.Running() {
			return fmt.Errorf("the daemon has ended: %s", n.proc.Tail(2000))
		}
		_, err := n.Status(ctx)
		return err
	})
}

// Kill is kill -9, and waits for the end.
func (n *Node) Kill() error {
	if err := n.proc.Kill(); err != nil {
		return err
	}
	if _, err := n.proc.Wait(10 * time.Second); errors.Is(err, testnet.ErrStillRunning) {
		return err
	}
	return nil
}

// Stop asks the daemon to end, and returns how long it took. An exit code other
// than 0 is an error.
func (n *Node) Stop() (time.Duration, error) {
	start := time.Now()
	if err := n.proc.Term(); err != nil {
		return 0, err
	}
	_, err := n.proc.Wait(10 * time.Second)
	return time.Since(start), err
}

// A Result is what a command did.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// String gives everything, for failures.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Run runs a command on the node to its end. An exit code other than 0 is no error.
func (n *Node) Run(ctx context.Context, args ...string) (Result, error) {
	if n.User != 0 {
		return n.RunAs(ctx, n.User, n.User, args...)
	}
	return n.run(ctx, nil, args...)
}

// GiveTo makes the node's directory a user's, who runs everything of it from now on.
func (n *Node) GiveTo(user uint32) error {
	n.User = user
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return fmt.Errorf("give %s to user %d: %w", n.Name, user, err)
	}
	// The way there must be open too.
	if err := os.Chmod(filepath.Dir(n.Dir), 0o711); err != nil {
		return fmt.Errorf("give %s to user %d: %w", n.Name, user, err)
	}
	return os.Chown(n.Dir, int(user), int(user))
}

// RunAs runs a command as another user.
func (n *Node) RunAs(ctx context.Context, uid, gid uint32, args ...string) (Result, error) {
	return n.run(ctx, &syscall.Credential{Uid: uid, Gid: gid}, args...)
}

func (n *Node) run(ctx context.Context, as *syscall.Credential, args ...string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	argv := n.args(args...)
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), noEnv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: as}
	cmd.WaitDelay = time.Second
	err := n.Host.Do(cmd.Run)
	r := Result{Code: -1, Stdout: out.String(), Stderr: errOut.String()}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || r.Code < 0) {
		return r, fmt.Errorf("raftvip %s on %s: %w: %s", strings.Join(args, " "), n.Name, err, r.Stderr)
	}
	return r, nil
}

// Must runs a command that has to succeed.
func (n *Node) Must(ctx context.Context, args ...string) (Result, error) {
	r, err := n.Run(ctx, args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("raftvip %s on %s: %v", strings.Join(args, " "), n.Name, r)
	}
	return r, err
}

// JSON runs a command with --json and reads what it prints.
func (n *Node) JSON(ctx context.Context, into any, args ...string) error {
	r, err := n.Run(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		return fmt.Errorf("raftvip %s --json on %s: %w: %v", strings.Join(args, " "), n.Name, err, r)
	}
	return nil
}

// Status is `status --json`, also of a node without quorum.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	var st api.Status
	err := n.JSON(ctx, &st, "status")
	return st, err
}

// History is `history --json`.
func (n *Node) History(ctx context.Context) ([]api.Move, error) {
	var moves []api.Move
	err := n.JSON(ctx, &moves, "history")
	return moves, err
}

// Arithmetic is how the priority of a node comes about, as this one shows it.
func Arithmetic(st api.Status, node string) string {
	for _, n := range st.Nodes {
		if n.Name == node {
			return n.Arithmetic
		}
	}
	return ""
}

// CommandLine is how a person runs a command on the node.
func (n *Node) CommandLine(args ...string) string {
	return strings.Join(append([]string{"ip", "netns", "exec", n.Host.Namespace()}, n.args(args...)...), " ")
}
