package vipaddr

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckLink(t *testing.T) {
	for _, tt := range []struct{ prefix, dev, want string }{
		{"192.0.2.10/24", "", ""},
		{"192.0.2.10/32", "eth0", ""},
		{"192.0.2.0/31", "", ""},
		{"192.0.2.1/31", "", ""},
		{"2001:db8::10/64", "", ""},
		{"2001:db8::/64", "", ""},
		{"169.254.1.1/16", "eth0", ""},
		{"fe80::1/64", "eth0.5", ""},
		{"127.0.0.1/8", "", "not a unicast address"},
		{"::1/128", "", "not a unicast address"},
		{"0.0.0.0/0", "", "bad prefix length"},
		{"0.0.0.0/24", "", "not a unicast address"},
		{"0.1.2.3/24", "", "not a unicast address"},
		{"::/128", "", "not a unicast address"},
		{"224.0.0.18/32", "", "not a unicast address"},
		{"ff02::1/128", "", "not a unicast address"},
		{"255.255.255.255/32", "", "not a unicast address"},
		{"192.0.2.255/24", "", "first or last address"},
		{"192.0.2.0/24", "", "first or last address"},
		{"::ffff:192.0.2.1/128", "", "IPv4-mapped"},
		{"169.254.1.1/16", "", "needs its interface"},
		{"fe80::1/64", "", "needs its interface"},
		{"192.0.2.10/24", "e/0", "not an interface name"},
		{"192.0.2.10/24", "eth0\x1b", "not an interface name"},
		{"192.0.2.10/24", strings.Repeat("e", 16), "not an interface name"},
	} {
		err := CheckLink(netip.MustParsePrefix(tt.prefix), tt.dev)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s@%s: %v, want %q", tt.prefix, tt.dev, err, tt.want)
		}
	}
	if Check(netip.Prefix{}) == nil {
		t.Error("no address passes")
	}
}
