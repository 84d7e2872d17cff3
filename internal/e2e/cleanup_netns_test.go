package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestCleanup: a dead daemon's addresses and guards go, with or without its data
// directory, an operator's address stays, and a running daemon is left alone.
func TestCleanup(t *testing.T) {
	for name, lose := range map[string]bool{"WithDataDir": false, "DataDirDeleted": true} {
		t.Run(name, func(t *testing.T) {
			c := newFormed(t, setup{nodes: 1})
			n := owner(t, c, nil)
			operators := c.Lab.VIP4(150)
			exec1(t, n.Host, "ip", "address", "add", operators.String()+"/24", "dev", "eth0")
			before := kernelState(t, n)
			if !strings.Contains(before, "raftvip") {
				t.Errorf("this test does not see the guard, so it proves nothing:\n%s", before)
			}
			fails(t, n, 1, []string{"a daemon is running here"}, "cleanup")
			elsewhere := *n
			elsewhere.Socket += ".other" // as with a forgotten --socket
			fails(t, &elsewhere, 1, []string{"a daemon is running in this network namespace"}, "cleanup")
			if kernelState(t, n) != before {
				t.Errorf("the refused cleanup has changed something:\n%s\n%s", before, kernelState(t, n))
			}
			must(t, n.Daemon().Stop()) // frozen, it is still running
			fails(t, n, 1, []string{"does not answer"}, "cleanup")
			must(t, n.Daemon().Cont())
			must(t, n.WaitServing(t.Context()))
			must(t, n.Kill())
			if lose {
				must(t, os.RemoveAll(n.DataDir))
			}
			if out := run(t, n, "cleanup"); !strings.Contains(out, "removed "+vip4.String()) {
				t.Errorf("cleanup printed %q", out)
			}
			for a, want := range map[string]bool{vip4.String(): false, operators.String(): true, n.Host.Addr4(testnet.Front).String(): true} {
				if got := strings.Contains(kernelState(t, n), " "+a+"/"); got != want {
					t.Errorf("%s is there: %v, want %v", a, got, want)
				}
			}
			left := kernelState(t, n)
			for _, bad := range []string{"raftvip", "clsact", "table"} {
				if strings.Contains(left, bad) {
					t.Errorf("%s is left:\n%s", bad, left)
				}
			}
			if out := run(t, n, "cleanup"); out != "" {
				t.Errorf("the second cleanup printed %q", out)
			}
		})
	}
}
