package vip

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/arp"
	"golang.org/x/net/ipv6"
)

var testMAC = net.HardwareAddr{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame is the frame of a function that cannot fail with a test's arguments.
func frame(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestFrames(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.99.0.100"), netip.MustParseAddr("fd00:99::61")
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		// As captured from keepalived: request, both protocol addresses the VIP, both
		// Ethernet and target hardware address broadcast.
		{"gratuitous ARP", frame(gratuitousARP(testMAC, v4)), `
			ffffffffffff 021122334455 0806
			0001 0800 06 04 0001
			021122334455 0a630064
			ffffffffffff 0a630064`},
		{"ARP probe", frame(arpProbe(testMAC, v4)), `
			ffffffffffff 021122334455 0806
			0001 0800 06 04 0001
			021122334455 00000000
			000000000000 0a630064`},
		// Checksums calculated apart, with Python.
		{"unsolicited NA", frame(unsolicitedNA(testMAC, v6, false)), `
			333300000001 021122334455 86dd
			60000000 0020 3a ff
			fd000099000000000000000000000061
			ff020000000000000000000000000001
			88 00 CK_NA 20000000
			fd000099000000000000000000000061
			02 01 021122334455`},
		{"unsolicited NA of a router", frame(unsolicitedNA(testMAC, v6, true)), `
			333300000001 021122334455 86dd
			60000000 0020 3a ff
			fd000099000000000000000000000061
			ff020000000000000000000000000001
			88 00 CK_RT a0000000
			fd000099000000000000000000000061
			02 01 021122334455`},
		{"DAD solicitation", frame(dadSolicit(testMAC, v6)), `
			3333ff000061 021122334455 86dd
			60000000 0018 3a ff
			00000000000000000000000000000000
			ff0200000000000000000001ff000061
			87 00 CK_NS 00000000
			fd000099000000000000000000000061`},
	}
	for _, tt := range tests {
		want := tt.want
		for k, v := range checksums {
			want = strings.ReplaceAll(want, k, v)
		}
		if got, want := hex.EncodeToString(tt.got), hex.EncodeToString(unhex(t, want)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

func TestClaimant(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.99.0.100"), netip.MustParseAddr("fd00:99::61")
	other4, other6 := netip.MustParseAddr("10.99.0.101"), netip.MustParseAddr("fd00:99::62")
	reply := frame(gratuitousARP(testMAC, v4))
	reply[21] = byte(arp.OperationReply)
	noOption := frame(unsolicitedNA(testMAC, v6, false))[:etherLen+ipv6.HeaderLen+24]
	noOption[19] = 24
	hops := frame(unsolicitedNA(testMAC, v6, false))
	hops[21] = 254
	tagged := slices.Insert(frame(gratuitousARP(testMAC, v4)), 12, 0x81, 0, 0, 5)
	code := frame(unsolicitedNA(testMAC, v6, false))
	code[etherLen+ipv6.HeaderLen+1] = 1
	proxy := frame(unsolicitedNA(testMAC, v6, false)) // the option counts, not the sender
	proxy[6] = 0x06
	tests := []struct {
		name  string
		frame []byte
		addr  netip.Addr
		want  bool
	}{
		{"ARP of a VLAN", tagged, v4, false},
		{"NA with a code", code, v6, false},
		{"NA sent for another", proxy, v6, true},
		{"gratuitous ARP", frame(gratuitousARP(testMAC, v4)), v4, true},
		{"ARP reply", reply, v4, true},
		{"padded ARP", append(frame(gratuitousARP(testMAC, v4)), make([]byte, 18)...), v4, true},
		{"ARP of another address", frame(gratuitousARP(testMAC, other4)), v4, false},
		{"another's probe is no claim", frame(arpProbe(testMAC, v4)), v4, false},
		{"short ARP", frame(gratuitousARP(testMAC, v4))[:41], v4, false},
		{"NA", frame(unsolicitedNA(testMAC, v6, false)), v6, true},
		{"NA without option", noOption, v6, true},
		{"NA of another address", frame(unsolicitedNA(testMAC, other6, false)), v6, false},
		{"NA from another subnet (hop limit)", hops, v6, false},
		{"solicitation is no claim", frame(dadSolicit(testMAC, v6)), v6, false},
		{"short NA", frame(unsolicitedNA(testMAC, v6, false))[:70], v6, false},
		{"nothing", nil, v4, false},
	}
	for _, tt := range tests {
		mac, ok := claimant(tt.frame, tt.addr)
		if ok != tt.want || ok && mac.String() != testMAC.String() {
			t.Errorf("%s: %s, %v", tt.name, mac, ok)
		}
	}
}

func FuzzClaimant(f *testing.F) {
	v4, v6 := netip.MustParseAddr("10.99.0.100"), netip.MustParseAddr("fd00:99::61")
	f.Add(frame(gratuitousARP(testMAC, v4)))
	f.Add(frame(unsolicitedNA(testMAC, v6, true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range []netip.Addr{v4, v6} {
			if mac, ok := claimant(b, a); ok && len(mac) != 6 {
				t.Errorf("claimant without a hardware address: %x", b)
			}
		}
	})
}

var checksums = map[string]string{"CK_NA": "f210", "CK_RT": "7210", "CK_NS": "7c4c"}
