package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Throttle is a CPU quota that some processes share: starvation, as on a host
// that has sold the processor twice. It is a control group, of version 1 or 2,
// whichever has the cpu controller.
type Throttle struct {
	dir    string
	parent string
	v2     bool
}

// Throttle gives the processes, together, the fraction of one CPU: 0.001 at the
// least, and more than 1 for several CPUs. Close and Lift undo it. Processes
// forked later are in the group too.
func (l *Lab) Throttle(fraction float64, pids ...int) (*Throttle, error) {
	root, v2, err := cpuController()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.throttle++
	dir := filepath.Join(root, fmt.Sprintf("%scpu%d", l.prefix, l.throttle))
	l.mu.Unlock()
	if v2 {
		// A controller works in a group only if its parent passes it on.
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
			return nil, fmt.Errorf("enable the cpu controller: %w", err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make CPU group: %w", err)
	}
	t := &Throttle{dir: dir, parent: root, v2: v2}
	l.onClose(func() { _ = t.Lift() })
	if err := t.Set(fraction); err != nil {
		return nil, errors.Join(err, t.Lift())
	}
	for _, pid := range pids {
		if err := t.Add(pid); err != nil {
			return nil, errors.Join(err, t.Lift())
		}
	}
	return t, nil
}

// Set changes the fraction of one CPU that the processes share.
func (t *Throttle) Set(fraction float64) error {
	// The kernel wants a quota of at least 1 ms and a period of at most 1 s.
	period := 100 * time.Millisecond
	if fraction < 0.01 {
		period = time.Second
	}
	quota := time.Duration(fraction * float64(period))
	if quota < time.Millisecond {
		return fmt.Errorf("CPU fraction %v: at least 0.001", fraction)
	}
	files := [][2]string{
		{"cpu.cfs_period_us", strconv.FormatInt(period.Microseconds(), 10)},
		{"cpu.cfs_quota_us", strconv.FormatInt(quota.Microseconds(), 10)},
	}
	if t.v2 {
		files = [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())}}
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(t.dir, f[0]), []byte(f[1]), 0); err != nil {
			return fmt.Errorf("set CPU quota: %w", err)
		}
	}
	return nil
}

// Add moves a process, with all its threads, into the group.
func (t *Throttle) Add(pid int) error { return joinCgroup(t.dir, pid) }

// Lift moves the processes back and removes the group. It may be called again.
func (t *Throttle) Lift() error { return removeCgroup(t.dir, t.parent) }

func joinCgroup(dir string, pid int) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move pid %d to CPU group: %w", pid, err)
	}
	return nil
}

func removeCgroup(dir, parent string) error {
	for range 100 {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				_ = joinCgroup(parent, pid) // it may be ending just now
			}
		}
		if os.Remove(dir) == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove CPU group %s: still in use", filepath.Base(dir))
}

// cpuController finds the mounted hierarchy that controls CPU time.
func cpuController() (root string, v2 bool, err error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", false, fmt.Errorf("find cpu controller: %w", err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup":
			for _, o := range strings.Split(f[3], ",") {
				if o == "cpu" {
					return f[1], false, nil
				}
			}
		case "cgroup2":
			c, _ := os.ReadFile(filepath.Join(f[1], "cgroup.controllers"))
			for _, o := range strings.Fields(string(c)) {
				if o == "cpu" {
					return f[1], true, nil
				}
			}
		}
	}
	return "", false, errors.New("find cpu controller: none is mounted")
}

func sweepCgroups() error {
	root, _, err := cpuController()
	if err != nil {
		return nil // nothing could have been left there
	}
	dirs, _ := filepath.Glob(filepath.Join(root, namePrefix+"*"))
	var errs []error
	for _, d := range dirs {
		if orphan(filepath.Base(d)) {
			errs = append(errs, removeCgroup(d, root))
		}
	}
	return errors.Join(errs...)
}
