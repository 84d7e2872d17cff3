package operate

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/vip"
)

func TestAddressTroubles(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.1/24")
	for _, tt := range []struct {
		name    string
		owns    bool
		a       vip.AddressStatus
		serious bool
		seen    string
	}{
		{"a copy that answers", false, vip.AddressStatus{State: vip.StateForeign, Foreign: p}, true, "whoever owns it"},
		{"a silent copy", false, vip.AddressStatus{State: vip.StateForeign, Foreign: p, Silent: true}, false, "only while the node owns it"},
		{"contested", true, vip.AddressStatus{State: vip.StatePresent, Present: true, Contested: true, Why: "tug"}, true, "tug"},
		{"failed", true, vip.AddressStatus{State: vip.StateFailed, Err: errors.New("no")}, true, "is not up: no"},
		{"not removed", false, vip.AddressStatus{State: vip.StateRemoving, DeleteFailures: 1, Err: errors.New("no")}, true, "cannot be removed"},
		{"absent on a standby", false, vip.AddressStatus{}, false, ""},
		{"up", true, vip.AddressStatus{State: vip.StatePresent, Present: true}, false, ""},
	} {
		tt.a.Address, tt.a.Wanted = vip.Address{Prefix: p, Link: "eth0"}, true
		got := addressTroubles(vip.Status{Addresses: []vip.AddressStatus{tt.a}}, tt.owns)
		if len(got) > 1 || (len(got) == 1) != (tt.seen != "") || len(got) == 1 && (got[0].Serious != tt.serious || !strings.Contains(got[0].Seen, tt.seen)) {
			t.Errorf("%s: %+v", tt.name, got)
		}
		for _, x := range got {
			if tt.a.Foreign.IsValid() && x.Do != "ip address del 10.0.0.1/24 dev eth0" {
				t.Errorf("%s: do %q", tt.name, x.Do)
			}
		}
	}
}
