package vrrp

import (
	"net/netip"
	"testing"

	"github.com/raftvip/raftvip/vip"
)

func TestKeptAddress(t *testing.T) {
	for _, tt := range []struct {
		in    vip.AddressStatus
		state string
	}{
		{vip.AddressStatus{}, "absent"},
		{vip.AddressStatus{Present: true, State: vip.StatePresent}, "present"},
		{vip.AddressStatus{State: vip.StateBorrowed}, "present"},
		{vip.AddressStatus{State: vip.StateForeign, Why: "it is there by someone else's hand"}, "foreign"},
		{vip.AddressStatus{State: vip.StateFailed, Why: "permission denied"}, "absent"},
	} {
		tt.in.Prefix = netip.MustParsePrefix("10.0.0.100/24")
		if got := KeptAddress("VI_1", tt.in); got.State != tt.state || got.Problem != tt.in.Why {
			t.Errorf("%v: state %q, problem %q; want %q", tt.in.State, got.State, got.Problem, tt.state)
		}
	}
}
