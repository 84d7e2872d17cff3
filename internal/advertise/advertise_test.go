package advertise

import (
	"net/netip"
	"testing"

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
		got, err := Address(tt.id, &config.Config{Raft: tt.raft}, nil, vips)
		if tt.want == "" && err == nil || tt.want != "" && (err != nil || got != tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
