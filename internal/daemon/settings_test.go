package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

func TestMinHeartbeatLeavesHalfOfTheLease(t *testing.T) {
	for _, lateness := range []time.Duration{time.Millisecond, 3 * time.Second} {
		h := minHeartbeat(lateness)
		if left := time.Duration(0.9*float64(h)) - lateness; left < h*2/5 {
			t.Errorf("lateness %s: at heartbeat_timeout %s only %s of the lease are left", lateness, h, left)
		}
	}
}

func TestNeedStart(t *testing.T) {
	begun := config.Raft{Listen: ":7355", Guard: "auto", HeartbeatTimeout: time.Second}
	now := begun
	now.HeartbeatTimeout = 2 * time.Second // the cluster's
	if got := needStart(begun, now); got != nil {
		t.Errorf("nothing changed: got %q", got)
	}
	now.Guard = "nft"
	if got := needStart(begun, now); len(got) != 1 || !strings.Contains(got[0], `guard: "nft" takes effect when the daemon is started again`) {
		t.Errorf("got %q", got)
	}
}
