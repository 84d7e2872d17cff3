package trial

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Env is where and on what results were measured.
type Env struct {
	Commit     string    `json:"commit"`
	Started    time.Time `json:"started"`
	Kernel     string    `json:"kernel"`
	CPUs       int       `json:"cpus"`
	Go         string    `json:"go"`
	Keepalived string    `json:"keepalived"` // "" if there is none
	// Load is the load average over the last minute before the start.
	Load float64 `json:"load_average"`
}

// Environment describes the machine. The commit is read from git unless it is given.
func Environment(ctx context.Context, commit string) Env {
	e := Env{Commit: commit, Started: time.Now(), CPUs: runtime.NumCPU(), Go: runtime.Version(), Kernel: "unknown"}
	if commit == "" {
		e.Commit = "unknown"
		out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
		if err == nil {
			e.Commit = strings.TrimSpace(string(out))
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		e.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	e.Keepalived, _ = Installed(ctx)
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &e.Load)
	}
	return e
}

// String gives the environment on one line.
func (e Env) String() string {
	k := e.Keepalived
	if k == "" {
		k = "no keepalived"
	}
	return fmt.Sprintf("raftvip %s, Linux %s, %d CPUs, load %.2f, %s, %s", e.Commit, e.Kernel, e.CPUs, e.Load, e.Go, k)
}

// Dirty tells whether the tree had changes that are not in the commit.
func (e Env) Dirty() bool { return strings.HasSuffix(e.Commit, "-dirty") }

// WriteJSON writes v to the file, readable.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
