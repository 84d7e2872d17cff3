package hint

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/policy"
)

func TestTroubles(t *testing.T) {
	ip := netip.MustParsePrefix("10.0.0.1/24")
	missing := &policy.Take{Wanted: 2, Missing: 1, Reason: "fd00::1: permission denied"}
	for _, tt := range []struct {
		name string
		h    Hint
		want string // kinds
		says string
	}{
		{"well", Hint{GroupHint: GroupHint{Owning: true}}, "", ""},
		{"an owner with one of two", Hint{GroupHint: GroupHint{Owning: true, Take: missing}}, api.TroubleDown, "1 of 2 addresses do not answer: fd00::1: permission denied"},
		{"a standby that could put up one of two", Hint{GroupHint: GroupHint{Take: missing}}, "", ""},
		{"someone else's copy answers", Hint{GroupHint: GroupHint{Foreign: []ForeignCopy{{Prefix: ip, Why: "remove it: ip address del"}}}}, api.TroubleStray, "ip address del"},
		{"someone else's copy is silent", Hint{GroupHint: GroupHint{Foreign: []ForeignCopy{{Prefix: ip, Silent: true}}}}, "", ""},
		{"someone else's copy serves", Hint{GroupHint: GroupHint{Owning: true, Foreign: []ForeignCopy{{Prefix: ip, Silent: true, Serves: true}}}}, "", ""},
		{"it cannot be removed", Hint{GroupHint: GroupHint{NotRemoved: 2}}, api.TroubleStray, "2 addresses cannot be removed"},
	} {
		kinds, text := "", ""
		for _, got := range tt.h.Troubles("lb1") {
			kinds += got.Kind
			text += got.Why
		}
		if kinds != tt.want || text != "" && !strings.Contains(text, tt.says) {
			t.Errorf("%s: %q %q", tt.name, kinds, text)
		}
	}
}
