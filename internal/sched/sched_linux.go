package sched

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Apply gives the whole process these settings. It goes on after an error, such as
// a missing capability, and returns all of them: what cannot be had is no reason
// not to run.
func Apply(s Settings) error {
	var errs []error
	if s.LockMemory {
		if err := lockMemory(); err != nil {
			errs = append(errs, fmt.Errorf("lock memory: %w", err))
		}
	}
	if s.Nice != 0 || s.RealTime != 0 {
		if err := eachThread(func(tid int) error { return s.thread(tid) }); err != nil {
			errs = append(errs, fmt.Errorf("set priority: %w", err))
		}
	}
	return errors.Join(errs...)
}

func lockMemory() error {
	// Under a limit, the runtime would be refused memory some day, and end.
	all := &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, all); err != nil {
		return fmt.Errorf("remove the limit: %w", err)
	}
	// Without MCL_ONFAULT all of Go's reserved address space would be filled.
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

func (s Settings) thread(tid int) error {
	if s.RealTime != 0 {
		a := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: uint32(s.RealTime)}
		return unix.SchedSetAttr(tid, a, 0)
	}
	return unix.Setpriority(unix.PRIO_PROCESS, tid, s.Nice)
}

// eachThread does f to all threads of the process. Priority belongs to a thread,
// and one made later has that of the thread that made it, so it is done when no
// thread is found that it was not done to.
func eachThread(f func(tid int) error) error {
	seen := map[int]bool{}
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || seen[tid] {
				continue
			}
			seen[tid], again = true, true
			if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// Ordinary makes the calling thread, and what it forks, as urgent as any other
// program. The goroutine must be locked to its thread. A thread that is not urgent
// is left alone.
func Ordinary() error {
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("read priority: %w", err)
	}
	if now.Policy != unix.SCHED_RR && now.Nice >= 0 {
		return nil
	}
	a := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if err := unix.SchedSetAttr(0, a, 0); err != nil {
		return fmt.Errorf("set ordinary priority: %w", err)
	}
	return nil
}
