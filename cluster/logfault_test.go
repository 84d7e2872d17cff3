package cluster

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

// The whole node: its test writes where Raft does, and leaves nothing.
func TestDiskTest(t *testing.T) {
	var token pki.Token
	m, _ := startFirst(t, &token)
	eventually(t, "a leader", func() bool { return leading(m) != nil })
	before, _ := m.votes.GetUint64([]byte("CurrentTerm"))
	if err := m.testDisk(); err != nil {
		t.Error(err)
	}
	if after, _ := m.votes.GetUint64([]byte("CurrentTerm")); after != before {
		t.Errorf("term %d, was %d", after, before)
	}
	if left, _ := filepath.Glob(filepath.Join(m.opts.DataDir.GroupDir(state.DefaultGroup), "*.new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	m.disk.Note("vote", syscall.ENOSPC, false)
	if m.LogFault() == "" {
		t.Error("no fault")
	}
	eventually(t, "the fault to end", func() bool { return m.LogFault() == "" })
}
