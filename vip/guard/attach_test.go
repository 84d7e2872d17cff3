package guard

import (
	"testing"

	"github.com/cilium/ebpf/link"
)

// tcxCount returns the number of tcx programs on a device of the current namespace.
func tcxCount(t testing.TB, ifindex int, dir direction) int {
	t.Helper()
	q, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(dir)})
	if err != nil {
		t.Fatal(err)
	}
	return len(q.Programs)
}
