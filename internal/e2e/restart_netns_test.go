package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestNetworkRestart: all addresses of the owner are flushed, and its own comes back
// a moment later, so that the virtual one was there before it. No connection to a
// member may leave with the virtual address, the own one must not be its secondary,
// and what the machine sends must come from the own one.
func TestNetworkRestart(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	gateway := c.Lab.Client(0).Addr4(testnet.Front).String()
	for _, n := range c.Nodes {
		exec1(t, n.Host, "nft", fmt.Sprintf(`table ip watch { chain out { type filter hook output priority -300
ip saddr %v ip daddr 10.99.0.0/24 tcp flags & (syn | ack) == syn counter
}
}`, vip4))
	}
	for i, own := range []string{"/24", "/32", "/24"} {
		o := owner(t, c, nil)
		ip := o.Host.Addr4(testnet.Front).String()
		restart := fmt.Sprintf("ip -4 address flush dev eth0 scope global; sleep 0.15; ip address add %s%s dev eth0", ip, own)
		if own == "/32" {
			restart += "; ip route add 10.99.0.0/24 dev eth0"
		}
		exec1(t, o.Host, "bash", "-c", restart+"; ip route replace default via "+gateway+" dev eth0")
		now := owner(t, c, nil)
		for _, n := range []*Node{o, now} {
			addrs := exec1(t, n.Host, "ip", "-4", "-o", "address", "show", "dev", "eth0")
			if strings.Contains(addrs, "secondary") {
				t.Errorf("restart %d of %s: secondary addresses on %s:\n%s", i, o.Name, n.Name, addrs)
			}
		}
		for _, to := range []string{gateway, "203.0.113.9"} {
			if r := exec1(t, o.Host, "ip", "route", "get", to); !strings.Contains(r, " src "+ip+" ") {
				t.Errorf("restart %d of %s: %s", i, o.Name, r)
			}
		}
	}
	for _, n := range c.Nodes {
		if rules := exec1(t, n.Host, "nft", "list", "table", "ip", "watch"); !strings.Contains(rules, "counter packets 0 ") {
			t.Errorf("%s has sent from the virtual address:\n%s", n.Name, rules)
		}
	}
}
