package shortage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestIs(t *testing.T) {
	for _, tt := range []struct {
		err           error
		is, processes bool
	}{
		{nil, false, false},
		{errors.New("too many open files"), false, false},
		{fmt.Errorf("make a pipe: %w", os.NewSyscallError("pipe2", syscall.EMFILE)), true, true},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENFILE}, true, true},
		{syscall.ENOMEM, true, true},
		{&fs.PathError{Op: "fork/exec", Path: "/x", Err: syscall.EAGAIN}, false, true},
		{syscall.ENOENT, false, false},
		{syscall.EACCES, false, false},
	} {
		if got := Is(tt.err); got != tt.is {
			t.Errorf("Is(%v) = %v", tt.err, got)
		}
		if got := OfProcesses(tt.err); got != tt.processes {
			t.Errorf("OfProcesses(%v) = %v", tt.err, got)
		}
	}
}
