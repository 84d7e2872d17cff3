package testnet

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLabBuildsAndCleans(t *testing.T) {
	Require(t)
	start := time.Now()
	l, err := New(t.Context(), Options{Nodes: 3, PeerNetwork: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	t.Logf("built in %v", time.Since(start))

	for i, n := range l.Nodes() {
		as, err := l.AddrsOf(n)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %v", n, as)
		for _, dst := range []string{
			l.Observer().Addr4(Front).String(), l.Client(0).Addr6(Front).String(),
			l.Node((i + 1) % 3).Addr4(Peer).String(), l.Node((i + 1) % 3).Addr6(Peer).String(),
		} {
			if out, err := n.Exec(t.Context(), "bash", "-c", reachable(dst)); err != nil {
				t.Errorf("%s to %s: %v %s", n, dst, err, out)
			}
		}
	}
	p, err := l.Node(0).Start(Cmd{Args: []string{"sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %v", time.Since(start))
	if procState(p.Pid()) != 0 {
		t.Errorf("program survived Close")
	}
	if left := namespacesOf(t, l.prefix); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("directory left behind: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// reachable is a shell test that needs no ping program: a UDP datagram to a
// closed port is answered by an ICMP error.
func reachable(dst string) string {
	return "exec 3<>/dev/udp/" + dst + "/9 && echo x >&3 && ! read -t 2 -u 3 2>/dev/null; ip neigh show " + dst + " | grep -q lladdr"
}

func namespacesOf(t *testing.T, prefix string) []string {
	t.Helper()
	ents, err := os.ReadDir(netnsDir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range ents {
		if strings.HasPrefix(e.Name(), prefix) {
			left = append(left, e.Name())
		}
	}
	return left
}

func TestParallelLabs(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ForTest(t, Options{Nodes: 2})
			vip := l.VIP4(100)
			if err := l.Node(0).AddAddr(vip); err != nil {
				t.Fatal(err)
			}
			if _, err := l.WaitOwner(t.Context(), vip, l.Node(0)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWaitForGivesReason(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := WaitFor(ctx, "the moon", func() error { return os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "the moon") || !strings.Contains(err.Error(), os.ErrNotExist.Error()) {
		t.Errorf("got %v: must name what and why", err)
	}
}
