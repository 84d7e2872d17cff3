package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// eth0 is an interface as most have it.
func eth0(addresses ...string) Interface {
	return Interface{Name: "eth0", Index: 2, MTU: 1500, Up: true, Running: true, Multicast: true, Addresses: prefixes(addresses...)}
}

func TestFactsValidate(t *testing.T) {
	good := func() Facts {
		return Facts{Name: "lb1", Address: "10.0.0.1:7355", Interfaces: []Interface{eth0("10.0.0.1/24")}, Guard: &Guard{Kind: "nft"}, DataDir: "/var/lib/raftvip"}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*Facts){
		"escape sequence":     func(f *Facts) { f.DataDir = "\x1b[2J" },
		"second line":         func(f *Facts) { f.FilterError = "a\nb" },
		"long text":           func(f *Facts) { f.FsyncError = strings.Repeat("x", maxText+1) },
		"guard text":          func(f *Facts) { f.Guard.Problems = []string{"\a"} },
		"filter text":         func(f *Facts) { f.Filters = []Filter{{Rule: "\a"}} },
		"many texts":          func(f *Facts) { f.Missing = make([]string, maxTexts) },
		"many interfaces":     func(f *Facts) { f.Interfaces = slices.Repeat(f.Interfaces, maxInterfaces+1) },
		"interface's name":    func(f *Facts) { f.Interfaces[0].Name = "../../x" },
		"many addresses":      func(f *Facts) { f.Interfaces[0].Addresses = slices.Repeat(prefixes("10.0.0.1/24"), maxAddresses+1) },
		"many services":       func(f *Facts) { f.Services = make([]netip.AddrPort, maxTexts+1) },
		"others below nought": func(f *Facts) { f.Others = -1 },
	}
	for name, change := range cases {
		f := good()
		change(&f)
		if f.Validate() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestProbedValidate(t *testing.T) {
	sent := Sent{Kind: UnicastUDP, To: 1, Rounds: 7}
	seen := Seen{Kind: MulticastUDP, From: 1, FromInterface: "eth0", Interface: "eth1", Rounds: 7}
	if err := (Probed{Sent: []Sent{sent}, Seen: []Seen{seen}, Unable: []Unable{{Kind: MulticastVRRP, Why: "not permitted"}}}).Validate(2); err != nil {
		t.Fatal(err)
	}
	bad := map[string]Probed{
		"kind":       {Sent: []Sent{{Kind: kinds}}},
		"receiver":   {Sent: []Sent{{Kind: UnicastUDP, To: 2}}},
		"rounds":     {Sent: []Sent{{Kind: UnicastUDP, Rounds: 1 << Rounds}}},
		"error":      {Sent: []Sent{{Kind: UnicastUDP, Error: "\x1b"}}},
		"sender":     {Seen: []Seen{{Kind: UnicastUDP, From: 2, FromInterface: "a", Interface: "b"}}},
		"no name":    {Seen: []Seen{{Kind: UnicastUDP, From: 1, FromInterface: "a"}}},
		"bad name":   {Seen: []Seen{{Kind: UnicastUDP, From: 1, FromInterface: "a b", Interface: "b"}}},
		"too many":   {Seen: make([]Seen, maxEntries+1)},
		"why":        {Unable: []Unable{{Why: "\n"}}},
		"why's name": {Unable: []Unable{{Interface: "/"}}},
	}
	for name, p := range bad {
		if p.Validate(2) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestValidateDials(t *testing.T) {
	targets := []string{"a", "b"}
	if err := ValidateDials([]Dial{{To: "b"}, {To: "a", Error: "connection refused"}}, targets); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]Dial{{{To: "c"}}, {{To: "a", Error: "\x1b"}}, {{To: "a"}, {To: "b"}, {To: "a"}}} {
		if ValidateDials(bad, targets) == nil {
			t.Errorf("%+v: taken", bad)
		}
	}
}

func TestChoose(t *testing.T) {
	peer := eth0("192.168.0.1/24")
	peer.Name = "eth1"
	lo := eth0("127.0.0.1/8")
	lo.Name = "lo"
	tun := eth0("172.16.0.1/32")
	tun.Name = "tun0"
	all := []Interface{lo, eth0("10.0.0.1/24", "fe80::1/64"), peer, tun}
	vip := func(text, link string) VIP { return VIP{netip.MustParsePrefix(text), link} }
	cases := []struct {
		name    string
		subject Subject
		want    string // interface=vips ...
		others  int
		missing string
	}{
		{"own address only", Subject{Local: netip.MustParseAddrPort("10.0.0.1:7355")}, "eth0=[]", 1, ""},
		{"address by subnet", Subject{Local: netip.MustParseAddrPort("192.168.0.1:1"), VIPs: []VIP{vip("10.0.0.9/24", "")}}, "eth0=[10.0.0.9/24] eth1=[]", 0, ""},
		{"address by name", Subject{Local: netip.MustParseAddrPort("10.0.0.1:1"), VIPs: []VIP{vip("10.0.0.9/24", "eth1")}}, "eth0=[] eth1=[10.0.0.9/24]", 0, ""},
		{"witness", Subject{Witness: true, Local: netip.MustParseAddrPort("192.168.0.1:1"), VIPs: []VIP{vip("10.0.0.9/24", "")}}, "eth1=[]", 1, ""},
		{"no subnet", Subject{Local: netip.MustParseAddrPort("10.0.0.1:1"), VIPs: []VIP{vip("10.1.0.9/24", "")}}, "eth0=[]", 1, "10.1.0.9: no interface has an address in its subnet"},
		{"no interface", Subject{Local: netip.MustParseAddrPort("10.0.0.1:1"), VIPs: []VIP{vip("10.0.0.9/24", "bond0")}}, "eth0=[]", 1, "10.0.0.9: there is no interface bond0"},
		{"nothing", Subject{Local: netip.MustParseAddrPort("203.0.113.1:1")}, "", 2, ""},
	}
	for _, c := range cases {
		chosen, others, missing := c.subject.choose(all)
		var got []string
		for _, i := range chosen {
			var vips []string
			for _, v := range i.VIPs {
				vips = append(vips, v.String())
			}
			got = append(got, i.Name+"=["+strings.Join(vips, " ")+"]")
		}
		if strings.Join(got, " ") != c.want || others != c.others || strings.Join(missing, " ") != c.missing {
			t.Errorf("%s: %v, %d others, missing %q", c.name, got, others, missing)
		}
	}
	many := Subject{}
	for range 3 * maxMissing {
		many.VIPs = append(many.VIPs, vip("198.51.100.1/24", ""))
	}
	if _, _, missing := many.choose(all); len(missing) != maxMissing+1 || missing[maxMissing] != "and 40 more" {
		t.Errorf("%q", missing)
	}
}

func TestParseListening(t *testing.T) {
	// As a little-endian machine shows it.
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A00000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1CBB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0000000000000000FFFF00000B00000A:01BB 00000000000000000000000000000000:0000 0A 0 0 0 0 0
   3: B80D01200000000000000000CDAB0000:01BB 00000000000000000000000000000000:0000 0A 0 0 0 0 0
   4: nonsense:0050 00000000:0000 0A
   5: 0A:0050 00000000:0000 0A
`
	want := "[10.0.0.10:80 10.0.0.11:443 [2001:db8::abcd]:443]"
	got := parseListening(text)
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	if s := "[" + strings.Join(texts, " ") + "]"; s != want {
		t.Errorf("%s, want %s", s, want)
	}
}
