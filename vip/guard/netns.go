package guard

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A netNS is the network namespace that a guard was opened in. Attaching works on
// the namespace of the calling thread (tcx, clsact, sockets), and Go moves
// goroutines between threads, so all such calls go through do.
type netNS struct {
	file  *os.File
	inode uint64
}

const threadNS = "/proc/thread-self/ns/net"

func currentNetNS() (*netNS, error) {
	f, err := os.Open(threadNS)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat network namespace: %w", err)
	}
	return &netNS{file: f, inode: st.Ino}, nil
}

func (n *netNS) close() { n.file.Close() }

// do calls fn on a thread of the namespace. The daemon lives in one namespace, so
// normally nothing is switched and no privilege is needed.
func (n *netNS) do(fn func() error) error {
	runtime.LockOSThread()
	var st unix.Stat_t
	if err := unix.Stat(threadNS, &st); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("stat network namespace: %w", err)
	}
	if st.Ino == n.inode {
		defer runtime.UnlockOSThread()
		return fn()
	}
	old, err := os.Open(threadNS)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer old.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = fn()
	if backErr := unix.Setns(int(old.Fd()), unix.CLONE_NEWNET); backErr == nil {
		runtime.UnlockOSThread()
	} // Else the thread stays locked and ends with its goroutine.
	return err
}
