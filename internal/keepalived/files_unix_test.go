//go:build unix

package keepalived_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// A reload that includes a pipe must come to an end.
func TestPipeWithoutWriter(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := keepalived.OS().ReadFile(name)
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting for somebody who writes")
	}
}
