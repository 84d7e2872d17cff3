package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestForeignCopy: copies of the addresses that somebody else configured on every
// node. Those of standbys are silent, which the P1 checker judges; the owner's serve its clients, across moves too; none is ever removed.
func TestForeignCopy(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, unjudged: true}) // for a moment after it was added a copy does answer
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0", "--vip", vip6.String()+"/64@eth0"))
	o := owner(t, c, nil)
	first := o
	client := get[*testnet.Client](t)(c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4}))
	copies := []string{vip4.String() + "/24", vip6.String() + "/64"}
	for _, n := range c.Others(o) {
		for _, a := range copies {
			exec1(t, n.Host, "ip", "address", "add", a, "dev", "eth0", "nodad")
		}
	}
	for _, n := range c.Others(o) {
		testnet.MustWait(t, 10*time.Second, "the copies to be seen", func() error {
			for _, a := range status(t, n).Groups[0].Addresses {
				if !strings.Contains(a.Problem, "keeps it silent") {
					return fmt.Errorf("%s: %q", a.Prefix, a.Problem)
				}
			}
			return nil
		})
	}
	p := get[*testnet.Prober](t)(c.Lab.StartProber(testnet.ProberOptions{VIPs: []netip.Addr{vip4, vip6}}))
	defer func() {
		p.Stop()
		testnet.MustHoldP1(t, p)
	}()
	time.Sleep(300 * time.Millisecond)

	for _, next := range c.Others(o) {
		run(t, o, "transfer", next.Name)
		get[*Node](t)(c.WaitAgreed(bounded(t, 20*time.Second), next.Name))
		for _, a := range []netip.Addr{vip4, vip6} {
			_, err := c.Lab.WaitOwner(bounded(t, 10*time.Second), a, next.Host)
			must(t, err)
		}
		before := client.Stats().Answered
		testnet.MustWait(t, 10*time.Second, "answers from "+next.Name, func() error {
			if n := client.Stats().Answered - before; n < 100 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		o = next
	}
	// Killed while the copy serves: silent by the guard, and another takes over.
	must(t, o.Kill())
	killed := o
	o = nextOwner(t, c, o)
	// Neither a start over it, nor a stop, nor another start lets it answer, and then it
	// serves again.
	must(t, killed.Start())
	must(t, killed.WaitServing(t.Context()))
	_, err := killed.Stop()
	must(t, err)
	time.Sleep(200 * time.Millisecond)
	must(t, killed.Start())
	must(t, killed.WaitServing(t.Context()))
	testnet.MustWait(t, 20*time.Second, "the move to "+killed.Name, func() error {
		_, err := o.Must(t.Context(), "transfer", killed.Name)
		return err
	})
	for _, a := range []netip.Addr{vip4, vip6} {
		_, err := c.Lab.WaitOwner(bounded(t, 10*time.Second), a, killed.Host)
		must(t, err)
	}
	for _, n := range c.Others(first) {
		has := get[[]netip.Prefix](t)(n.Host.Addrs())
		for _, a := range copies {
			if p := netip.MustParsePrefix(a); !slices.Contains(has, p) {
				t.Errorf("%s has lost %s, which is not ours", n.Name, a)
			}
		}
	}
}

// TestForeignCopyOnARenamedLink: the copy on a standby stays silent when its interface
// gets another name, and when it has its own again.
func TestForeignCopyOnARenamedLink(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, unjudged: true}) // for a moment after it was added the copy does answer
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
	n := c.Others(owner(t, c, nil))[0]
	exec1(t, n.Host, "ip", "address", "add", vip4.String()+"/24", "dev", "eth0")
	testnet.MustWait(t, 10*time.Second, "the copy to be seen", func() error {
		if a := status(t, n).Groups[0].Addresses[0]; !strings.Contains(a.Problem, "keeps it silent") {
			return fmt.Errorf("%q", a.Problem)
		}
		return nil
	})
	p := get[*testnet.Prober](t)(c.Lab.StartProber(testnet.ProberOptions{VIPs: []netip.Addr{vip4}}))
	time.Sleep(300 * time.Millisecond)
	for _, name := range [][2]string{{"eth0", "wan0"}, {"wan0", "eth0"}} {
		exec1(t, n.Host, "ip", "link", "set", name[0], "down") // older kernels rename no other
		exec1(t, n.Host, "ip", "link", "set", name[0], "name", name[1])
		exec1(t, n.Host, "ip", "link", "set", name[1], "up")
		time.Sleep(1500 * time.Millisecond)
	}
	p.Stop()
	testnet.MustHoldP1(t, p)
	if has := get[[]netip.Prefix](t)(n.Host.Addrs()); !slices.Contains(has, netip.PrefixFrom(vip4, 24)) {
		t.Error("the copy has gone: this proves nothing")
	}
}
