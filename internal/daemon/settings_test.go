package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/config"
)

func TestChooseAddress(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	vips := []netip.Addr{netip.MustParseAddr("10.0.0.50")}
	for _, tt := range []struct {
		name string
		own  []netip.Prefix
		want string
	}{
		{"in a virtual address's subnet", prefixes("192.0.2.1/24", "10.0.0.11/24"), "10.0.0.11"},
		{"IPv4 before IPv6", prefixes("2001:db8::1/64", "192.0.2.1/24"), "192.0.2.1"},
		{"never a virtual address", prefixes("10.0.0.50/24", "192.0.2.1/24"), "192.0.2.1"},
		{"a lone address is somebody's virtual one", prefixes("198.51.100.1/32", "192.0.2.1/24"), "192.0.2.1"},
		{"IPv6 only", prefixes("2001:db8::1/64"), "2001:db8::1"},
	} {
		if got, err := chooseAddress(tt.own, vips); err != nil || got.String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
	if _, err := chooseAddress(prefixes("10.0.0.50/24"), vips); err == nil {
		t.Error("no address: no error")
	}
}

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

// TestAdvertiseIsNeverVirtual: the address at which others reach a node stays with it.
func TestAdvertiseIsNeverVirtual(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("10.0.0.50")}
	for _, tt := range []struct {
		name string
		id   store.Identity
		raft config.Raft
		want string // empty for an error
	}{
		{"advertise", store.Identity{}, config.Raft{Advertise: "10.0.0.50"}, ""},
		{"listen", store.Identity{}, config.Raft{Listen: "10.0.0.50:7355"}, ""},
		{"advertise given to join", store.Identity{Advertise: "10.0.0.50:7355"}, config.Raft{}, ""},
		{"advertise names another than listen", store.Identity{}, config.Raft{Listen: "10.0.0.50:7355", Advertise: "10.0.0.11"}, "10.0.0.11:7355"},
		{"a name is not looked up", store.Identity{}, config.Raft{Advertise: "n1.example"}, "n1.example:7355"},
	} {
		got, err := AdvertiseAddress(tt.id, &config.Config{Raft: tt.raft}, nil, vips)
		if tt.want == "" && err == nil || tt.want != "" && (err != nil || got != tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
