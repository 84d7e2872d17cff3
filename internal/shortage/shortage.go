// Package shortage tells errors that say nothing about what was attempted, only that
// this machine or process had nothing left to attempt it with.
package shortage

import (
	"errors"
	"syscall"
)

// Is tells whether err says that descriptors, memory or processes have run out: the
// same attempt may succeed a moment later, with nothing changed.
func Is(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// OfProcesses is Is for the start of a program, where EAGAIN is the limit of
// processes (fork(2), execve(2)).
func OfProcesses(err error) bool { return Is(err) || errors.Is(err, syscall.EAGAIN) }
