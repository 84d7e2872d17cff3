package guard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrInUse means that a running process has the instance open in this namespace.
var ErrInUse = errors.New("guard instance is in use by a running process")

// lockInstance makes the instance the caller's own until the descriptor is closed
// or the process ends. An abstract socket belongs to a network namespace, as the
// guard does, and leaves no file behind.
func lockInstance(ns *netNS, instance string) (fd int, err error) {
	fd = -1
	err = ns.do(func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("lock guard instance: %w", err)
		}
		if err := unix.Bind(s, &unix.SockaddrUnix{Name: "@raftvip-guard/" + instance}); err != nil {
			unix.Close(s)
			if errors.Is(err, unix.EADDRINUSE) {
				return fmt.Errorf("%w: %s", ErrInUse, instance)
			}
			return fmt.Errorf("lock guard instance: %w", err)
		}
		fd = s
		return nil
	})
	return fd, err
}
