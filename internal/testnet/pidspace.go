package testnet

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// pidSpace is a process namespace of a host, so that what runs there sees only
// the host's own processes: `pkill -0 haproxy` finds no one else's. A program of
// its own is process 1 and keeps it alive when everything else has ended.
type pidSpace struct {
	once sync.Once
	fd   int
	err  error
}

// open returns a descriptor of the host's process namespace, made at first use.
func (s *pidSpace) open(h *Host) (int, error) {
	s.once.Do(func() {
		s.fd = -1
		// Process 1 has to wait for orphans, or they stay as zombies, which pkill finds.
		var init *Proc
		init, s.err = h.Start(Cmd{Name: "init", Args: []string{"bash", "-c", "while :; do sleep 3600 & wait; done"}, pidInit: true})
		if s.err == nil {
			s.fd, s.err = unix.Open(fmt.Sprintf("/proc/%d/ns/pid", init.Pid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	})
	if s.err != nil {
		return -1, fmt.Errorf("process namespace of %s: %w", h.name, s.err)
	}
	return s.fd, nil
}

func (s *pidSpace) close() {
	s.once.Do(func() { s.fd = -1 })
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// mountProc wraps a command: it gets a mount namespace of its own (see Proc.run)
// with a /proc that shows its process namespace, and stays the same process.
func mountProc(args []string) []string {
	return append([]string{"sh", "-c", `mount -t proc proc /proc && exec "$0" "$@"`}, args...)
}

// startIn starts the command so that it becomes a process of the namespace. The
// calling thread must be locked; its children are in the namespace until restored
// is true.
func startIn(fd int, start func() error) (restored bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open(fmt.Sprintf("/proc/%d/task/%d/ns/pid", os.Getpid(), unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, fmt.Errorf("find own process namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(fd, unix.CLONE_NEWPID); err != nil {
		return true, fmt.Errorf("enter process namespace: %w", err)
	}
	err = start()
	return unix.Setns(own, unix.CLONE_NEWPID) == nil, err
}
