package cluster

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/cluster/group"
)

// A reason to wait that comes and goes is logged once in a while, not each time.
func TestWaitingIsLoggedOnce(t *testing.T) {
	var out strings.Builder
	n := &Node{log: slog.New(slog.NewTextHandler(&out, nil)), changed: group.NewBroadcast()}
	for range 10 {
		for _, why := range []string{"no answer", "no route to host"} {
			n.setPhase("waiting for all peers; missing: 192.0.2.7:7355 (%s)", why)
			if got := n.Phase(); !strings.Contains(got, why) {
				t.Fatalf("phase %q, want %q", got, why)
			}
		}
	}
	if got := strings.Count(out.String(), "msg=waiting"); got != 2 {
		t.Errorf("logged %d times, want 2:\n%s", got, out.String())
	}
}
