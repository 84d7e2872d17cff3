package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	namePrefix = "rvt-"
	netnsDir   = "/run/netns"
)

// Sweep removes what labs left whose process is gone: the programs still inside
// their namespaces, the namespaces, their CPU groups and temporary directories. A
// process number that has been used again keeps its leftovers until that process
// ends too.
func Sweep() error {
	var errs []error
	ents, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range ents {
		if orphan(e.Name()) {
			killInside(e.Name())
			errs = append(errs, removeNamespace(e.Name()))
		}
	}
	errs = append(errs, sweepCgroups())
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), namePrefix+"*"))
	for _, d := range dirs {
		if orphan(filepath.Base(d)) {
			errs = append(errs, os.RemoveAll(d))
		}
	}
	return errors.Join(errs...)
}

// orphan tells whether the name is that of a lab whose process is dead.
func orphan(name string) bool {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return false
	}
	num, _, ok := strings.Cut(rest, "-")
	if !ok {
		return false
	}
	pid, err := strconv.Atoi(num)
	if err != nil || pid <= 0 {
		return false
	}
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// removeNamespace undoes netns.NewNamed. The kernel frees the namespace and its
// links when the last process and socket in it are gone.
func removeNamespace(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: not a mount point; a process died between making and mounting it.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// killInside kills every process in the named namespace other than this one.
// Each was started by the lab that made the namespace, directly or not.
func killInside(name string) {
	var want unix.Stat_t
	if unix.Stat(filepath.Join(netnsDir, name), &want) != nil {
		return
	}
	var own unix.Stat_t
	if unix.Stat("/proc/self/ns/net", &own) != nil || own.Ino == want.Ino && own.Dev == want.Dev {
		return // never the namespace this process lives in
	}
	// Twice, because a process may fork while the list is read.
	for range 2 {
		for _, pid := range allPids() {
			var st unix.Stat_t
			if pid == os.Getpid() || unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil {
				continue
			}
			if st.Ino == want.Ino && st.Dev == want.Dev {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

func allPids() []int {
	ents, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range ents {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
