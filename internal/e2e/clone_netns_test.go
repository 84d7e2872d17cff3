package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/internal/testnet"
)

var bg = context.Background()

// cloned is a cluster of three nodes and a spare host with nothing on it.
func cloned(t *testing.T) (c *Cluster, spare *testnet.Host) {
	t.Helper()
	c = newCluster(t, setup{nodes: 4})
	spare = c.Nodes[3].Host
	c.Nodes = c.Nodes[:3]
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
	return c, spare
}

// copyOf is the node once more on another host, with a copy of its data directory. The
// copy is unbound from its machine unless bound.
func copyOf(t *testing.T, c *Cluster, n *Node, h *testnet.Host, bound bool) *Node {
	t.Helper()
	clone := c.NewNode(h, n.Name)
	must(t, os.MkdirAll(clone.Dir, 0o700))
	copyData(t, n.DataDir, clone.DataDir)
	if !bound {
		must(t, os.Remove(filepath.Join(clone.DataDir, "machine.json")))
	}
	clone.Config = n.Config
	return clone
}

func copyData(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// sees tells whether a node's status says this of an identity, and fails for it.
func sees(n *Node, kind identity.FindingKind) func() error {
	return func() error {
		r, err := n.Run(bg, "status")
		if err != nil {
			return err
		}
		st, err := n.Status(bg)
		if err != nil {
			return err
		}
		for _, f := range st.Findings {
			if f.Kind == kind && r.Code != 0 && strings.Contains(r.Stdout, "IDENTITY") {
				return nil
			}
		}
		return fmt.Errorf("%s: exit code %d, findings %+v", n.Name, r.Code, st.Findings)
	}
}

// TestCopyIsRefusedElsewhere: a copied data directory does not start on another
// machine before an operator says so, and then the original is the one that is out.
func TestCopyIsRefusedElsewhere(t *testing.T) {
	c, spare := cloned(t)
	old := owner(t, c, nil)
	clone := copyOf(t, c, old, spare, true)
	must(t, clone.Start())
	ends(t, clone, "belongs to another machine", "move-here")
	fails(t, old, 1, []string{"another raftvip process uses the data dir"}, "node", "move-here")

	run(t, clone, "node", "move-here")
	must(t, clone.Start())
	testnet.MustWait(t, 20*time.Second, "the original is told", sees(old, identity.FindingMoved))
	if _, err := old.Stop(); err != nil {
		t.Error(err)
	}
	for i, n := range c.Nodes {
		if n == old {
			c.Nodes[i] = clone
		}
	}
	must(t, c.WaitFormed(bounded(t, 30*time.Second)))
	owner(t, c, nil)
	// And it stays out, also after its daemon was started again.
	must(t, old.Start())
	testnet.MustWait(t, 20*time.Second, "the original stays out", sees(old, identity.FindingMoved))
	owner(t, c, nil)
}

// TestTwoHoldersAreSilenced: nothing keeps the copy from starting. It is found, both
// are silenced, and the rest goes on.
func TestTwoHoldersAreSilenced(t *testing.T) {
	for _, which := range []string{"owner", "voter"} {
		t.Run(which, func(t *testing.T) {
			c, spare := cloned(t)
			old := owner(t, c, nil)
			original := old
			if which == "voter" {
				original = c.Others(old)[0]
			}
			clone := copyOf(t, c, original, spare, false)
			must(t, clone.Start())
			for _, n := range append([]*Node{clone}, c.Nodes...) {
				testnet.MustWait(t, 20*time.Second, n.Name+" says that two hold an identity", sees(n, identity.FindingTwo))
			}
			// Then the network is cut so that each of the two has one other on its side.
			rest := c.Others(original)
			must(t, c.Lab.Split([]*testnet.Host{original.Host, rest[0].Host}, []*testnet.Host{clone.Host, rest[1].Host}))
			time.Sleep(3 * time.Second) // P1 is judged over all of it
			must(t, c.Lab.Heal())
			next, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, rest[0].Host, rest[1].Host)
			must(t, err)
			t.Logf("%s answers", next.Name())

			// The cure.
			must(t, clone.Kill())
			_, err = original.Stop()
			must(t, err)
			run(t, original, "node", "move-here")
			must(t, original.Start())
			must(t, c.WaitFormed(bounded(t, 30*time.Second)))
			for _, n := range c.Nodes {
				if st := status(t, n); len(st.Findings) > 0 {
					t.Errorf("%s: %+v", n.Name, st.Findings)
				}
			}
		})
	}
}

// TestCopyBehindAPartition: the copy of a voter is started on the owner's side of a cut,
// where nobody hears the original. It was bound to its machine.
func TestCopyBehindAPartition(t *testing.T) {
	c, spare := cloned(t)
	old := owner(t, c, nil)
	others := c.Others(old)
	must(t, c.Lab.Split([]*testnet.Host{old.Host, spare}, []*testnet.Host{others[0].Host, others[1].Host}))
	clone := copyOf(t, c, others[0], spare, true)
	must(t, clone.Start())
	ends(t, clone, "belongs to another machine")
	_, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, others[0].Host, others[1].Host)
	must(t, err)
	must(t, c.Lab.Heal())
	must(t, c.WaitFormed(bounded(t, 30*time.Second)))
}

// TestRolledBackNode: a node is put back to an older state of its disk.
func TestRolledBackNode(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	old := owner(t, c, nil)
	back := c.Others(old)[0]
	must(t, back.Kill())
	older := back.DataDir + ".older"
	copyData(t, back.DataDir, older)
	must(t, back.Start())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	run(t, old, "vip", "add", "10.99.0.101/24@eth0")
	run(t, old, "vip", "add", "10.99.0.102/24@eth0")
	testnet.MustWait(t, 20*time.Second, "the node has it all and others know", func() error {
		for _, n := range c.Nodes {
			st, err := n.Status(bg)
			if err != nil {
				return err
			}
			if len(st.Groups) == 0 || len(st.Groups[0].Addresses) != 3 {
				return errors.New(n.Name + " lacks an address")
			}
		}
		return nil
	})
	time.Sleep(2500 * time.Millisecond) // two reports
	must(t, back.Kill())
	copyData(t, older, back.DataDir)
	must(t, back.Start())
	for _, n := range c.Nodes {
		testnet.MustWait(t, 20*time.Second, n.Name+" says that the node went back", sees(n, identity.FindingBack))
	}
	testnet.MustWait(t, 20*time.Second, "it is written down", func() error {
		_, err := os.Stat(filepath.Join(back.DataDir, "void.json"))
		return err
	})
	must(t, back.Kill())
	must(t, back.Start())
	ends(t, back, "older than what its node has acknowledged", "--replace")
}

// TestCopyWithTheSameAddress: a machine is cloned on its own network, and the two have
// one address of their own, so that peers may hear only one of them. No question for the
// virtual address is answered by two, and who hears the other says so: the original at
// once, all when neighbours have heard of both.
func TestCopyWithTheSameAddress(t *testing.T) {
	for _, which := range []string{"owner", "voter"} {
		t.Run(which, func(t *testing.T) {
			c, spare := cloned(t)
			original := owner(t, c, nil)
			if which == "voter" {
				original = c.Others(original)[0]
			}
			for _, n := range c.Nodes {
				if w := status(t, n).Warnings; slices.ContainsFunc(w, func(w string) bool { return strings.HasPrefix(w, "two machines use") }) {
					t.Errorf("%s, before there is a copy: %q", n.Name, w)
				}
			}
			clone := copyOf(t, c, original, spare, false)
			own := original.Host.Addr4(testnet.Front).String()
			for _, args := range [][]string{
				{"addr", "flush", "dev", "eth0", "scope", "global"},
				{"addr", "add", own + "/24", "dev", "eth0"},
			} {
				if out, err := spare.Exec(bg, append([]string{"ip"}, args...)...); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			must(t, clone.Start())
			began := time.Now()
			// The clone has to find its peers, and asks for them with the address as its
			// sender's: the original hears that at least.
			says := func(n *Node) error {
				r, err := n.Run(bg, "status")
				if err == nil && (r.Code == 0 || !strings.Contains(r.Stdout, "two machines use the address "+own+" of node "+original.Name+": ")) {
					err = fmt.Errorf("exit code %d\n%s", r.Code, r.Stdout)
				}
				return err
			}
			testnet.MustWait(t, 30*time.Second, original.Name+" says that another machine has its address", func() error { return says(original) })
			t.Logf("%s said so %s after the start of the copy", original.Name, time.Since(began).Round(time.Millisecond))
			st := status(t, original)
			if !hasWarning(st, spare.MAC(testnet.Front).String(), "this one", "raftvip node move-here") {
				t.Errorf("%q", st.Warnings)
			}
			if r := get[Result](t)(original.Run(bg, "doctor")); r.Code == 0 || !strings.Contains(r.Stdout, spare.MAC(testnet.Front).String()) {
				t.Errorf("doctor: %v", r)
			}
			// When neighbours learn the other hardware address anew, as by an announcement, the
			// copy hears it too, and the others hear both processes.
			claim(t, original.Host, original.Host.Addr4(testnet.Front))
			testnet.MustWait(t, 30*time.Second, "the copy says that another machine has its address", func() error { return says(clone) })
			rest := c.Others(original)
			for _, n := range rest {
				testnet.MustWait(t, 30*time.Second, n.Name+" says that two hold an identity", sees(n, identity.FindingTwo))
			}
			get[*testnet.Host](t)(c.Lab.WaitOwner(bounded(t, 30*time.Second), vip4, rest[0].Host, rest[1].Host))
			t.Logf("all said so %s after the start of the copy", time.Since(began).Round(time.Millisecond))
			time.Sleep(3 * time.Second) // P1 is judged over all of it
		})
	}
}
