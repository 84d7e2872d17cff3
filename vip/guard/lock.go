package guard

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrInUse means that a running process has the instance open in this namespace.
var ErrInUse = errors.New("guard instance is in use by a running process")

const (
	lockPrefix = "@raftvip-guard/"
	// lockTries is how often an instance is tried before it is taken to be in use: two
	// processes that begin in the same moment see each other, and both step back.
	lockTries = 4
)

// lockInstance makes the instance the caller's own until the descriptor is closed
// or the process ends.
//
// The lock is an abstract socket: it belongs to a network namespace, as the guard
// does, whatever file systems the processes see, and leaves no file behind. But any
// user may bind any abstract name. So each process binds a name that nobody can
// guess, and the lock is held if the kernel lists another socket of the instance
// that root, or the caller's own user, has made. Those of other users count for
// nothing.
func lockInstance(ns *netNS, instance string) (fd int, err error) {
	fd = -1
	err = ns.do(func() error {
		for try := range lockTries {
			if try > 0 {
				var b [1]byte
				rand.Read(b[:])
				time.Sleep(5*time.Millisecond + time.Duration(b[0])*100*time.Microsecond)
			}
			if fd, err = tryLock(instance); !errors.Is(err, ErrInUse) {
				return err
			}
		}
		return err
	})
	return fd, err
}

func tryLock(instance string) (fd int, err error) {
	name := lockPrefix + instance
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("lock guard instance: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(s)
		}
	}()
	mine := name + "/" + rand.Text()
	if err := unix.Bind(s, &unix.SockaddrUnix{Name: mine}); err != nil {
		return -1, fmt.Errorf("lock guard instance: %w", err)
	}
	sockets, err := unixSockets()
	if err != nil {
		// A kernel that does not tell whose a socket is: then the plain name is the lock,
		// and whoever has bound it counts.
		unix.Close(s)
		if s, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return -1, fmt.Errorf("lock guard instance: %w", err)
		}
		if err = unix.Bind(s, &unix.SockaddrUnix{Name: name}); errors.Is(err, unix.EADDRINUSE) {
			return -1, fmt.Errorf("%w: %s", ErrInUse, instance)
		} else if err != nil {
			return -1, fmt.Errorf("lock guard instance: %w", err)
		}
		return s, nil
	}
	if holds(sockets, name, mine, uint32(os.Geteuid())) {
		return -1, fmt.Errorf("%w: %s", ErrInUse, instance)
	}
	return s, nil
}

// A unixSocket is a socket with an abstract name, which is written with '@' first.
type unixSocket struct {
	name string
	// uid is of the user that made it, as seen from the caller's user namespace; known
	// is false on kernels before 5.3 (by their documentation).
	uid   uint32
	known bool
}

// holds reports whether one of the sockets is somebody's lock called name. mine is
// the caller's own.
func holds(sockets []unixSocket, name, mine string, uid uint32) bool {
	for _, s := range sockets {
		if s.name == mine || s.name != name && !strings.HasPrefix(s.name, name+"/") {
			continue
		}
		if !s.known || s.uid == 0 || s.uid == uid {
			return true
		}
	}
	return false
}

// unixDiagRequest is struct unix_diag_req (linux/unix_diag.h).
type unixDiagRequest struct{ show uint32 }

const (
	unixDiagRequestSize = 24
	unixDiagMessageSize = 16 // struct unix_diag_msg
	unixDiagName        = 0
	unixDiagUID         = 7
	unixShowName        = 1 << unixDiagName
	unixShowUID         = 1 << (unixDiagUID - 1) // UDIAG_SHOW_UID is 0x40
)

// Len implements nl.NetlinkRequestData.
func (unixDiagRequest) Len() int { return unixDiagRequestSize }

// Serialize implements nl.NetlinkRequestData.
func (r unixDiagRequest) Serialize() []byte {
	b := make([]byte, unixDiagRequestSize)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // all states
	binary.NativeEndian.PutUint32(b[12:], r.show)
	binary.NativeEndian.PutUint64(b[16:], ^uint64(0)) // no cookie
	return b
}

// unixSockets lists the sockets with abstract names of the calling thread's network namespace.
func unixSockets() ([]unixSocket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(unixDiagRequest{show: unixShowName | unixShowUID})
	msgs, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
	if err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	var out []unixSocket
	for _, m := range msgs {
		if len(m) < unixDiagMessageSize {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[unixDiagMessageSize:])
		if err != nil {
			return nil, fmt.Errorf("list unix sockets: %w", err)
		}
		var s unixSocket
		for _, a := range attrs {
			switch {
			case a.Attr.Type == unixDiagName && len(a.Value) > 0 && a.Value[0] == 0:
				s.name = "@" + string(a.Value[1:])
			case a.Attr.Type == unixDiagUID && len(a.Value) >= 4:
				s.uid, s.known = binary.NativeEndian.Uint32(a.Value), true
			}
		}
		if s.name != "" {
			out = append(out, s)
		}
	}
	return out, nil
}
