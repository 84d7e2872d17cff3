package testnet

import (
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

func TestFilterAndParse(t *testing.T) {
	vm, err := bpf.NewVM(filterARPAndNA)
	if err != nil {
		t.Fatal(err)
	}
	mac := [6]byte{2, 0, 0, 0, 0, 11}
	arp := arpFrame(mac, netip.MustParseAddr("10.99.0.11"), vipA)
	ns := nsFrame(mac, netip.MustParseAddr("fd00:99::11"), vipB)
	// An advertisement has the layout of a solicitation, flags where it has zeros.
	na := append([]byte(nil), ns...)
	na[54], na[58], na[78] = icmp6NA, 0x60, 2
	noOption := append([]byte(nil), na[:78]...)
	udp := append([]byte(nil), na...)
	udp[20] = 17
	ip4 := append([]byte(nil), arp...)
	ip4[12], ip4[13] = 8, 0

	tests := []struct {
		name       string
		frame      []byte
		pass, read bool
	}{
		{"ARP", arp, true, true},
		{"advertisement", na, true, true},
		{"advertisement without option", noOption, true, true},
		{"solicitation", ns, false, false},
		{"UDP", udp, false, false},
		{"IPv4", ip4, false, false},
		{"ARP cut short", arp[:30], true, false},
		{"nothing", nil, false, false},
	}
	for _, tt := range tests {
		n, err := vm.Run(tt.frame)
		if err != nil || (n > 0) != tt.pass {
			t.Errorf("%s: filter gives %d, %v; want pass %v", tt.name, n, err, tt.pass)
		}
		c, ok := parseClaim(tt.frame)
		if ok != tt.read {
			t.Errorf("%s: parsed %v, want %v", tt.name, ok, tt.read)
		}
		if ok && c.mac != mac {
			t.Errorf("%s: MAC %x", tt.name, c.mac)
		}
	}
	if c, _ := parseClaim(na); c.addr != vipB || !c.solicited() {
		t.Errorf("advertisement: %+v", c)
	}
	if c, _ := parseClaim(arp); c.to != vipA || c.addr != netip.MustParseAddr("10.99.0.11") {
		t.Errorf("ARP: %+v", c)
	}
}

// RFC 1071 section 3 gives this example.
func TestChecksum(t *testing.T) {
	if got := checksum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != 0xddf2 {
		t.Errorf("got %#x, want 0xddf2", got)
	}
}
