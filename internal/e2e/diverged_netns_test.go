package e2e

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/internal/testnet"
)

// forge replaces bytes of the commands in the log of a node whose daemon has ended.
func forge(t *testing.T, n *Node, from, to string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.DataDir, "raft", "default", "raft.db"))
	if err != nil || len(found) != 1 {
		t.Fatalf("logs of %s: %v, %v", n.Name, found, err)
	}
	store, err := raftboltdb.NewBoltStore(found[0])
	must(t, err)
	defer store.Close()
	first, err := store.FirstIndex()
	must(t, err)
	last, err := store.LastIndex()
	must(t, err)
	forged := 0
	for i := first; i <= last; i++ {
		var entry raft.Log
		must(t, store.GetLog(i, &entry))
		if entry.Type == raft.LogCommand && bytes.Contains(entry.Data, []byte(from)) {
			entry.Data = bytes.ReplaceAll(entry.Data, []byte(from), []byte(to))
			must(t, store.StoreLog(&entry))
			forged++
		}
	}
	if forged == 0 {
		t.Fatalf("no command of %s names %s", n.Name, from)
	}
}

// TestStatesThatDifferAreAnAlarm: one node has another command in its log than the rest
// at the same place. status and doctor fail for it on every node, and name it.
func TestStatesThatDifferAreAnAlarm(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	old := owner(t, c, nil)
	odd := c.Others(old)[0]
	run(t, old, "vip", "add", "10.99.0.101/24@eth0")
	testnet.MustWait(t, 20*time.Second, "the node has it", func() error {
		st, err := odd.Status(bg)
		if err == nil && (len(st.Groups) == 0 || len(st.Groups[0].Addresses) != 2) {
			err = errors.New("it lacks an address")
		}
		return err
	})
	if _, err := odd.Stop(); err != nil {
		t.Fatal(err)
	}
	forge(t, odd, "10.99.0.101", "10.99.0.109")
	must(t, odd.Start())
	for _, n := range c.Nodes {
		testnet.MustWait(t, 30*time.Second, n.Name+" says that states differ", sees(n, identity.FindingDiverged))
		r := get[Result](t)(n.Run(bg, "doctor"))
		if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "replicated state of") {
			t.Errorf("doctor on %s: %v", n.Name, r)
		}
	}
	for _, n := range c.Others(odd) {
		st := status(t, n)
		if !slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, "replicated state of "+odd.Name) }) {
			t.Errorf("%s does not name %s: %q", n.Name, odd.Name, st.Warnings)
		}
	}
}
