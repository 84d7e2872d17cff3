package vrrpnet

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// withoutKernel returns the frame without what a kernel chooses: the identification of
// an IPv4 packet, and the checksum over it, and the flow label of an IPv6 one.
func withoutKernel(s seen) []byte {
	ip := bytes.Clone(s.ip)
	if s.src.Is4() {
		copy(ip[4:6], []byte{0, 0})
		copy(ip[10:12], []byte{0, 0})
	} else {
		ip[1] &= 0xf0
		copy(ip[2:4], []byte{0, 0})
	}
	return bytes.Join([][]byte{s.to, s.from, ip}, nil)
}

// What we send is, from the same machine with the same configuration, byte for byte
// what keepalived sends, and nothing in it is wrong to tcpdump.
func TestGolden(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	needKeepalived(t)
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Fatal("tcpdump is not installed: make setup")
	}
	h, peer := l.Node(0), l.Node(1)
	w := watchWire(t, h, "eth0")
	own4, own6 := h.Addr4(testnet.Front), linkLocal(h)
	peers := fmt.Sprintf("unicast_src_ip %v\n unicast_peer {\n %v\n }", own4, peer.Addr4(testnet.Front))
	const fast = 200 * time.Millisecond
	cases := []struct {
		vrid    uint8
		name    string
		version vrrpcompat.Version
		ipv6    bool
		more    string
		change  func(*routerConfig)
	}{
		{91, "version 2", vrrpcompat.V2, false, "", nil},
		{92, "password", vrrpcompat.V2, false, "authentication {\n auth_type PASS\n auth_pass secret\n }", func(c *routerConfig) {
			c.Expect.AuthType, c.Expect.Auth = vrrpcompat.AuthPass, vrrpcompat.Password("secret")
		}},
		{93, "version 3", vrrpcompat.V3, false, "", nil},
		{94, "IPv6", vrrpcompat.V3, true, "", nil},
		{95, "unicast", vrrpcompat.V3, false, peers, func(c *routerConfig) {
			c.Expect.Peers = []vrrpcompat.Peer{{Address: peer.Addr4(testnet.Front)}}
		}},
		{96, "virtual MAC", vrrpcompat.V3, false, "use_vmac", func(c *routerConfig) { c.Options.VMAC = &VMAC{} }},
		{97, "virtual MAC, IPv6", vrrpcompat.V3, true, "use_vmac", func(c *routerConfig) { c.Options.VMAC = &VMAC{} }},
	}
	config, ours := keepalivedGlobals, map[string]routerConfig{}
	for _, c := range cases {
		v := rival{version: c.version, ipv6: c.ipv6, interval: fast}
		if c.version == vrrpcompat.V2 {
			v.interval = time.Second
		}
		vip := virtual(l, c.vrid, c.ipv6)
		config += instance(c.vrid, 200, c.version, v.interval, vip, c.more)
		rc := ourConfig(c.vrid, 200, v, vip, netip.Addr{})
		if c.change != nil {
			c.change(&rc)
		}
		ours[c.name] = rc
	}
	source := func(ipv6 bool) netip.Addr {
		if ipv6 {
			return own6
		}
		return own4
	}
	// said waits for an advertisement and for the one that says goodbye.
	said := func(from time.Time, vrid uint8, ipv6 bool, leaving bool) []byte {
		t.Helper()
		return withoutKernel(w.first(vrid, source(ipv6), "an advertisement", func(s seen) bool {
			return s.at.After(from) && (s.priority() == 0) == leaving
		}))
	}
	from := time.Now()
	ka, err := l.StartKeepalived(h, config)
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string][2][]byte{}
	for _, c := range cases {
		golden[c.name] = [2][]byte{said(from, c.vrid, c.ipv6, false)}
	}
	if err := ka.Term(); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		golden[c.name] = [2][]byte{golden[c.name][0], said(from, c.vrid, c.ipv6, true)}
	}
	if _, err := ka.Wait(20 * time.Second); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(l.Dir(), "ours.pcap")
	dump, err := h.Tcpdump(testnet.Front, file, "proto 112 or ip6 proto 112")
	if err != nil {
		t.Fatal(err)
	}
	testnet.MustWait(t, 10*time.Second, "tcpdump to listen", logged(dump, "listening on"))
	from = time.Now()
	rs := startRouters(t, l, h, ours)
	got := map[string][2][]byte{}
	for _, c := range cases {
		got[c.name] = [2][]byte{said(from, c.vrid, c.ipv6, false)}
	}
	rs.end()
	for _, c := range cases {
		got[c.name] = [2][]byte{got[c.name][0], said(from, c.vrid, c.ipv6, true)}
		for i, what := range []string{"advertisement", "goodbye"} {
			if a, b := got[c.name][i], golden[c.name][i]; !bytes.Equal(a, b) {
				t.Errorf("%s: %s\n%x, keepalived's is\n%x", c.name, what, a, b)
			}
		}
	}
	// A form that tcpdump takes for wrong shows that it looks.
	plain := ourConfig(98, 200, rival{version: vrrpcompat.V3, interval: fast}, l.VIP4(198), netip.Addr{})
	plain.Expect.Checksum = vrrpcompat.ChecksumPlain
	rs = startRouters(t, l, h, map[string]routerConfig{"plain": plain})
	said(from, 98, false, false)
	rs.end()
	said(from, 98, false, true)
	var out []byte
	testnet.MustWait(t, 10*time.Second, "tcpdump to write the last packet", func() error {
		var err error
		// Its end is cut off until the packet is written: that is no error yet.
		if out, err = exec.Command("tcpdump", "-nn", "-vv", "-t", "-r", file).Output(); !regexp.MustCompile(`vrid 98, prio 0`).Match(out) {
			return fmt.Errorf("not there: %v", err)
		}
		return nil
	})
	if err := dump.Term(); err != nil {
		t.Fatal(err)
	}
	// One packet is one line, or for IPv4 two.
	packets := regexp.MustCompile(`(?m)^IP6? .*\n(?: .*\n)*`).FindAllString(string(out), -1)
	wrong := regexp.MustCompile(`(?i)bad|wrong|incorrect|invalid|malformed|\[\|`)
	count := map[string]int{}
	for _, p := range packets {
		m := regexp.MustCompile(`VRRPv[23], Advertisement.* vrid (\d+),`).FindStringSubmatch(p)
		if m == nil {
			t.Errorf("not an advertisement to tcpdump: %s", p)
			continue
		}
		count[m[1]]++
		if wrong.MatchString(p) != (m[1] == "98") {
			t.Errorf("tcpdump says: %s", p)
		}
	}
	for vrid := 91; vrid <= 98; vrid++ {
		if count[fmt.Sprint(vrid)] < 2 {
			t.Errorf("tcpdump saw %d packets of router %d", count[fmt.Sprint(vrid)], vrid)
		}
	}
}
