package operate

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestJudgeAnswer(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.5")
	own, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	for _, tt := range []struct {
		name    string
		mac     net.HardwareAddr
		found   bool
		bad     bool
		serious bool
		says    string
	}{
		{"the owner, from where it announces", own, true, false, false, ""},
		{"another interface or machine", other, true, true, true, "02:00:00:00:00:02 answers for 10.0.0.5 here, but n1 has it on another interface (02:00:00:00:00:01)"},
		{"nobody", nil, false, true, false, "nobody answers for 10.0.0.5 here, though n1 owns it"},
	} {
		got, bad := judgeAnswer("n1", []string{own.String()}, "eth0", ip, tt.mac, tt.found)
		if bad != tt.bad || bad && (got.Serious != tt.serious || got.Interface != "eth0" || got.Do == "" || !strings.Contains(got.Seen, tt.says)) {
			t.Errorf("%s: %v %+v", tt.name, bad, got)
		}
	}
}
