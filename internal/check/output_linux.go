package check

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tailSize is how many bytes of a script's output are kept.
	tailSize = 512
	// maxHeldPipes limits the pipes kept open for what scripts have left running.
	// Beyond it the output of scripts goes to /dev/null.
	maxHeldPipes = 64
)

// A tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer; it never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printable(t.buf)
}

// A pipeKeeper makes the pipes for the output of scripts, and goes on emptying
// those that something which a script has started still holds: a check that
// restarts a service must neither wait for the service to end, nor break it by
// closing the other end of its standard output.
type pipeKeeper struct {
	mu     sync.Mutex
	held   map[*os.File]bool
	closed bool
	wg     sync.WaitGroup
}

// open returns both ends of a pipe, or two nils if no more pipes may be had.
func (k *pipeKeeper) open() (read, write *os.File, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.held) >= maxHeldPipes {
		return nil, nil, nil
	}
	if read, write, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if k.held == nil {
		k.held = make(map[*os.File]bool)
	}
	k.held[read] = true
	return read, write, nil
}

// discard closes a pipe. nil is fine.
func (k *pipeKeeper) discard(read *os.File) {
	if read == nil {
		return
	}
	k.mu.Lock()
	delete(k.held, read)
	k.mu.Unlock()
	read.Close()
}

// follow copies what is read to t. The function that it returns is called when
// the script has ended: it makes sure that all that the script itself wrote is
// in t, and does not wait for others that may still write.
func (k *pipeKeeper) follow(read *os.File, t *tail) (ended func()) {
	if read == nil {
		return func() {}
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(t, read)
		copied <- err
	}()
	return func() {
		_ = read.SetReadDeadline(time.Now()) // ends the copy
		if err := <-copied; !errors.Is(err, os.ErrDeadlineExceeded) || drained(read, t) {
			k.discard(read)
			return
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed {
			read.Close()
			return
		}
		_ = read.SetReadDeadline(time.Time{})
		k.wg.Go(func() {
			_, _ = io.Copy(io.Discard, read)
			k.discard(read)
		})
	}
}

// drained copies what is in the pipe now, and says whether nobody can write to
// it any more.
func drained(read *os.File, t *tail) (end bool) {
	raw, err := read.SyscallConn()
	if err != nil {
		return true
	}
	_ = read.SetReadDeadline(time.Time{})
	err = raw.Read(func(fd uintptr) bool {
		buf := make([]byte, 4096)
		// Bounded, should somebody write faster than this reads.
		for range 64 {
			n, err := unix.Read(int(fd), buf)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return true
			case err != nil || n == 0:
				end = true
				return true
			default:
				_, _ = t.Write(buf[:n])
			}
		}
		return true
	})
	return end || err != nil
}

// close closes all pipes and waits for those who read them.
func (k *pipeKeeper) close() {
	k.mu.Lock()
	k.closed = true
	for read := range k.held {
		_ = read.SetReadDeadline(time.Now())
	}
	k.mu.Unlock()
	k.wg.Wait()
}
