package vip

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
)

func TestClaims(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.99.0.100"), netip.MustParseAddr("fd00:99::61")
	icmp := func(b []byte) []byte { return b[etherLen+ipv6.HeaderLen:] }
	for _, tt := range []struct {
		name  string
		frame []byte
		hops  int
		want  netip.Addr
	}{
		{name: "gratuitous ARP", frame: frame(gratuitousARP(testMAC, v4)), want: v4},
		{name: "a question that gives its sender", frame: frame(arpRequest(testMAC, v4, make(net.HardwareAddr, 6), netip.MustParseAddr("10.99.0.1"))), want: v4},
		{name: "another's probe", frame: frame(arpProbe(testMAC, v4))},
		{name: "short ARP", frame: frame(gratuitousARP(testMAC, v4))[:41]},
		{name: "NA", frame: frame(unsolicitedNA(testMAC, v6, true)), hops: 255, want: v6},
		{name: "NA from another subnet", frame: frame(unsolicitedNA(testMAC, v6, true)), hops: 64},
		{name: "NA without a hardware address", frame: frame(icmp6Frame(testMAC, v6, allNodes, &ndp.NeighborAdvertisement{TargetAddress: v6})), hops: 255},
		{name: "NS", frame: frame(dadSolicit(testMAC, v6)), hops: 255},
	} {
		var c Claim
		var ok bool
		if tt.hops > 0 {
			c, ok = naClaim(icmp(tt.frame), tt.hops)
		} else {
			c, ok = arpClaim(tt.frame[etherLen:])
		}
		if ok != tt.want.IsValid() || ok && (c.Addr != tt.want || c.MAC.String() != testMAC.String()) {
			t.Errorf("%s: %+v, %v", tt.name, c, ok)
		}
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(frame(gratuitousARP(testMAC, netip.MustParseAddr("10.99.0.100")))[etherLen:])
	f.Add(frame(unsolicitedNA(testMAC, netip.MustParseAddr("fd00:99::61"), true))[etherLen+ipv6.HeaderLen:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := arpClaim(b); ok && (len(c.MAC) != 6 || !c.Addr.Is4() || c.Addr.IsUnspecified()) {
			t.Errorf("ARP claim %+v of %x", c, b)
		}
		if c, ok := naClaim(b, ndHopLimit); ok && (len(c.MAC) != 6 || !c.Addr.Is6()) {
			t.Errorf("NA claim %+v of %x", c, b)
		}
	})
}

// TestClaimFilter runs the program on frames as the kernel does.
func TestClaimFilter(t *testing.T) {
	var many []netip.Addr
	for i := range maxFiltered + 1 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	a, b, c := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("10.0.0.7")
	six := netip.MustParseAddr("fd00::5")
	for _, tt := range []struct {
		name  string
		addrs []netip.Addr
		from  netip.Addr
		want  bool
	}{
		{"one of them", []netip.Addr{a, six, b}, a, true},
		{"the last", []netip.Addr{a, six, b}, b, true},
		{"another", []netip.Addr{a, b}, c, false},
		{"none wanted", nil, a, false},
		{"IPv6 only", []netip.Addr{six}, a, false},
		{"as many as are compared", many[:maxFiltered], many[maxFiltered-1], true},
		{"as many as are compared, another", many[:maxFiltered], a, false},
		{"more than are compared", many, a, true},
	} {
		raw := claimFilter(tt.addrs)
		if len(raw) > 4096 {
			t.Errorf("%s: %d instructions", tt.name, len(raw))
		}
		program, ok := bpf.Disassemble(raw)
		if !ok {
			t.Fatalf("%s: cannot be read", tt.name)
		}
		// The VM has no packet types: without what looks at them.
		vm, err := bpf.NewVM(slices.Clone(program[3:]))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range [][]byte{frame(gratuitousARP(testMAC, tt.from)), frame(gratuitousARP(testMAC, tt.from))[:30]} {
			n, err := vm.Run(f)
			if err != nil || (n > 0) != (tt.want && len(f) > 32) {
				t.Errorf("%s: %d bytes of %d pass, %v", tt.name, n, len(f), err)
			}
		}
	}
}
