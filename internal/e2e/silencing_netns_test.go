package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestSilencing: what would leave nobody who answers is refused, with the reason and
// an exit code of its own, and done with --force.
func TestSilencing(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	first := owner(t, c, nil)
	second, third := c.Others(first)[0], c.Others(first)[1]
	run(t, first, "drain", third.Name)
	run(t, first, "drain", second.Name)
	why := []string{"would silence all addresses: no other node may own", second.Name + " is drained", third.Name + " is drained", "--force"}
	fails(t, first, 9, why, "drain")
	fails(t, second, 9, why, "drain", first.Name) // asked of a follower
	fails(t, first, 9, why, "leave")
	fails(t, third, 9, []string{"would take away the only virtual address: " + vip4.String()}, "vip", "del", vip4.String())
	owner(t, c, first)

	// Two at once: one is refused.
	run(t, first, "undrain", second.Name)
	testnet.MustWait(t, 10*time.Second, second.Name+" to be eligible", func() error { return eligible(t, first, second.Name) })
	results := make(chan Result, 2)
	for _, n := range []*Node{first, second} {
		go func() {
			r, err := n.Run(t.Context(), "drain")
			if err != nil {
				r.Stderr += err.Error()
			}
			results <- r
		}()
	}
	a, b := <-results, <-results
	if a.Code+b.Code != 9 {
		t.Errorf("two drains at once: %v, %v", a, b)
	}
	run(t, first, "undrain", first.Name)
	run(t, first, "undrain", second.Name)
	owner(t, c, nil)

	// With --force it is done, and everybody says so.
	run(t, first, "drain", second.Name)
	owner(t, c, first)
	run(t, first, "drain", "--force")
	testnet.MustWait(t, 10*time.Second, "the address to be silent", func() error {
		owners, err := c.Lab.Owners(vip4)
		if err == nil && len(owners) > 0 {
			err = fmt.Errorf("%v", owners)
		}
		return err
	})
	run(t, first, "undrain")
	owner(t, c, first)

	// The last one that may own leaves all the same; the others stay a cluster.
	out := run(t, first, "leave", "--force")
	if !strings.Contains(out, "no member any more") || !strings.Contains(out, "cannot survive") {
		t.Errorf("leave: %s", out)
	}
	if _, err := first.Daemon().Wait(10 * time.Second); err != nil {
		t.Error(err)
	}
	run(t, second, "undrain", third.Name)
	next, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, third.Host)
	must(t, err)
	if next != third.Host {
		t.Errorf("%v owns", next)
	}
}

// eligible is an error as long as the node, as another one sees it, may not own.
func eligible(t *testing.T, on *Node, name string) error {
	for _, n := range status(t, on).Nodes {
		if n.Name == name && n.Eligible {
			return nil
		}
	}
	return fmt.Errorf("%s is not eligible", name)
}
