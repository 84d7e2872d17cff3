package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// smallDisk gives the node a disk of its own.
func smallDisk(t *testing.T, n *Node) {
	t.Helper()
	must(t, os.MkdirAll(n.Dir, 0o700))
	must(t, syscall.Mount("raftvip-e2e", n.Dir, "tmpfs", 0, "size=16m,mode=0700"))
	t.Cleanup(func() {
		// The daemon may still be there; the disk goes when it does.
		if err := syscall.Unmount(n.Dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill takes all that the node's disk has left, and returns the file.
func fill(t *testing.T, n *Node) string {
	t.Helper()
	f, err := os.Create(filepath.Join(n.Dir, "ballast"))
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	return f.Name()
}

// TestDiskFull: an owner that cannot write its log gives the address up, says why
// everywhere, and is fit again when there is room.
func TestDiskFull(t *testing.T) {
	c := newCluster(t, setup{nodes: 3})
	full := c.Nodes[0]
	smallDisk(t, full)
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
	if owner(t, c, nil) != full {
		run(t, full, "transfer", full.Name)
		owner(t, c, full)
	}
	seen := func(on *Node) (api.Node, error) {
		st, err := on.Status(t.Context())
		for _, n := range st.Nodes {
			if n.Name == full.Name {
				return n, err
			}
		}
		return api.Node{}, fmt.Errorf("%s does not know %s: %w", on.Name, full.Name, err)
	}
	fault := "cannot write the log in " + full.DataDir + ": no space left on device"
	unfit := func(on *Node) error {
		n, err := seen(on)
		if err == nil && (n.Eligible || !strings.Contains(n.Why, fault)) {
			err = fmt.Errorf("on %s: eligible %v, %q", on.Name, n.Eligible, n.Why)
		}
		return err
	}

	ballast := fill(t, full)
	// What is freed within the log takes a few more changes.
	testnet.MustWait(t, 30*time.Second, "a write that fails", func() error {
		_, err := full.Run(t.Context(), "token", "create")
		return errors.Join(err, unfit(full))
	})
	next := nextOwner(t, c, full)
	must(t, c.WaitHeldBy(bounded(t, 10*time.Second), next, vip4))
	for _, n := range c.Nodes {
		testnet.MustWait(t, 10*time.Second, "status to name the disk", func() error { return unfit(n) })
	}
	fails(t, next, 1, []string{full.Name, fault}, "transfer", full.Name)
	// It stays so where it would be needed: one disk of three is no majority, and
	// whoever leads then cannot be sure of the state.
	must(t, next.Kill())
	third := c.Others(full)[0]
	if third == next {
		third = c.Others(full)[1]
	}
	time.Sleep(3 * time.Second)
	st := status(t, full)
	if st.Groups[0].Owner == full.Name || st.Cluster.Leader == full.Name {
		t.Errorf("a node that cannot write leads: %+v", st.Cluster)
	}
	must(t, next.Start())
	owner(t, c, nil)

	must(t, os.Remove(ballast))
	// The leader sends again what was missed after a pause that has grown.
	must(t, c.WaitFormed(bounded(t, 40*time.Second)))
	run(t, third, "transfer", full.Name)
	owner(t, c, full)
}
