package doctor

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestFirewall loads rules as an operator writes them, and asks about packets between
// this node, 10.99.0.11, and its peer, 10.99.0.12.
func TestFirewall(t *testing.T) {
	lab := testnet.ForTest(t, testnet.Options{Nodes: 1})
	h := lab.Node(0)
	var interfaces []Interface
	if err := h.Do(func() (err error) {
		interfaces, err = listInterfaces(Subject{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	local, peers := netip.MustParseAddrPort("10.99.0.11:7355"), []netip.AddrPort{netip.MustParseAddrPort("10.99.0.12:7355")}
	const (
		tcpIn    = "TCP port 7355 coming in on eth0"
		tcpOut   = "TCP port 7355 going out of eth0"
		vrrpIn   = "protocol 112 between nodes coming in on eth0"
		vrrpOut  = "protocol 112 between nodes going out of eth0"
		groupIn  = "protocol 112 to 224.0.0.18 coming in on eth0"
		group6In = "protocol 112 to ff02::12 coming in on eth0"
		groupOut = "protocol 112 to 224.0.0.18 going out of eth0"
		allIn    = tcpIn + "," + vrrpIn + "," + groupIn + "," + group6In
		policy   = "table inet f, chain in, policy drop"
	)
	in := func(policy, rules string) string {
		return "table inet f { chain in { type filter hook input priority 0; policy " + policy + "; " + rules + " } }"
	}
	cases := []struct {
		name, rules string
		certain     string // packets that are dropped
		perhaps     string // packets that may be
		rule        string
	}{
		{"none", "", "", "", ""},
		{"empty chain", in("accept", ""), "", "", ""},
		{"policy drop", in("drop", ""), allIn, "", policy},
		{"usual server", in("drop", `ct state established,related accept; ct state invalid drop; iifname "lo" accept; meta l4proto { icmp, ipv6-icmp } accept; tcp dport { 22, 80, 443 } accept;`), allIn, "", policy},
		{"port in a set", in("drop", "tcp dport { 22, 7355 } accept;"), vrrpIn + "," + groupIn + "," + group6In, "", policy},
		{"port in a range", in("drop", "tcp dport 7000-8000 accept; tcp dport { 1-100, 200-300 } accept;"), vrrpIn + "," + groupIn + "," + group6In, "", policy},
		{"port in a range of a set", in("drop", "tcp dport { 1-100, 7355-7360 } accept; ip protocol vrrp accept; ip6 nexthdr 112 accept;"), "", "", ""},
		{"port beside the ranges of a set", in("accept", "tcp dport { 1-100, 7356-7360 } drop;"), "", "", ""},
		{"subnet", in("drop", "ip saddr 10.99.0.0/24 accept;"), group6In, groupIn, policy},
		{"other subnet", in("drop", "ip saddr 10.98.0.0/24 accept; tcp dport 7355 accept;"), vrrpIn + "," + group6In, groupIn, policy},
		{"peer refused", in("accept", "ip saddr 10.99.0.12 reject;"), tcpIn + "," + vrrpIn, groupIn, "table inet f, chain in, rule 1"},
		{"interface", in("drop", `iifname "eth*" accept;`), "", "", ""},
		{"other interface", in("accept", `iifname != "eth0" accept; ip protocol 112 drop;`), vrrpIn + "," + groupIn, "", "rule 2"},
		{"multicast by type", in("accept", "meta pkttype multicast drop;"), groupIn + "," + group6In, "", "rule 1"},
		{"limited", in("drop", "limit rate 5/second accept;"), "", allIn, policy},
		{"counted and logged", in("accept", `tcp dport 7355 counter log prefix "x" drop;`), tcpIn, "", "rule 1"},
		{"in another chain", "table inet f { chain cluster { tcp dport 22 return; tcp dport 7355 accept; drop; }; chain in { type filter hook input priority 0; policy accept; ip saddr 10.99.0.12 jump cluster; } }",
			vrrpIn, groupIn, "table inet f, chain cluster, rule 3"},
		{"back from another chain", "table inet f { chain cluster { ip protocol 112 return; drop; }; chain in { type filter hook input priority 0; policy accept; ip saddr 10.99.0.12 jump cluster; } }",
			tcpIn, "", "table inet f, chain cluster, rule 2"},
		{"goto comes back to the policy", "table inet f { chain cluster { tcp dport 7355 accept; }; chain in { type filter hook input priority 0; policy drop; goto cluster; accept; } }", vrrpIn + "," + groupIn + "," + group6In, "", policy},
		{"verdict map", in("accept", "tcp dport vmap { 22 : accept, 7355 : drop }\n"), "", tcpIn, "rule 1"},
		{"verdict map of others", in("drop", "ct state vmap { established : accept, related : accept, invalid : drop }\n"), allIn, "", policy},
		{"two tables", in("accept", "tcp dport 7355 accept;") + "\ntable ip g { chain in { type filter hook input priority 10; policy accept; tcp dport 7355 drop; } }", tcpIn, "", "table ip g, chain in, rule 1"},
		{"IPv6 only", "table ip6 f { chain in { type filter hook input priority 0; policy drop; } }", group6In, "", "table ip6 f, chain in, policy drop"},
		{"before routing", "table ip raw { chain pre { type filter hook prerouting priority raw; ip daddr 224.0.0.0/4 drop; } }", groupIn, "", "table ip raw, chain pre, rule 1"},
		{"going out", "table inet f { chain out { type filter hook output priority 0; policy accept; oifname eth0 meta l4proto 112 ip daddr 224.0.0.18 drop; tcp sport 7355 drop; tcp dport 7355 drop; ip daddr 10.99.0.12 drop; } }", groupOut + "," + tcpOut + "," + vrrpOut, "", "table inet f, chain out, rule"},
		{"at the device", "table netdev f { chain in { type filter hook ingress device eth0 priority 0; ip protocol 112 drop; } }", "", vrrpIn + "," + groupIn, "table netdev f, chain in, rule 1"},
		{"raftvip's guard", "table netdev raftvip_x { chain in { type filter hook ingress device eth0 priority -500; drop; } }", "", "", ""},
		{"address translation", "table ip n { chain pre { type nat hook prerouting priority -100; policy accept; tcp dport 7355 redirect to :80; } }", "", "", ""},
	}
	for _, c := range cases {
		// nft wants each end of a block on a line of its own.
		rules := strings.NewReplacer(" } }", "\n}\n}\n", "}; ", "\n}\n").Replace(c.rules)
		file := filepath.Join(lab.Dir(), "rules")
		if err := os.WriteFile(file, []byte("flush ruleset\n"+rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Exec(t.Context(), "nft", "-f", file); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []Filter
		if err := h.Do(func() error {
			rules, err := readRules()
			got = rules.judge(questions(interfaces, local, peers))
			return err
		}); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		same := func(what, want string, certain bool) {
			t.Helper()
			n := 0
			for _, f := range got {
				if f.Certain != certain {
					continue
				}
				n++
				if !strings.Contains(","+want+",", ","+f.Packet+",") {
					t.Errorf("%s: %s is %s, by %s", c.name, f.Packet, what, f.Rule)
				}
				if !strings.Contains(f.Rule, c.rule) {
					t.Errorf("%s: by %q, want %q", c.name, f.Rule, c.rule)
				}
				if f.Port != strings.HasPrefix(f.Packet, "TCP") {
					t.Errorf("%s: %+v", c.name, f)
				}
			}
			if k := len(strings.FieldsFunc(want, func(r rune) bool { return r == ',' })); n != k {
				t.Errorf("%s: %d packets are %s, want %d: %+v", c.name, n, what, k, got)
			}
		}
		same("dropped", c.certain, true)
		same("perhaps dropped", c.perhaps, false)
	}
}
