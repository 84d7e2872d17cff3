package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vip"
)

// claim has a host say that an address is at its front interface.
func claim(t *testing.T, h *testnet.Host, a netip.Addr) {
	t.Helper()
	must(t, h.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		ann := vip.NewAnnouncer()
		return errors.Join(ann.Announce(vip.Link{Index: ifi.Index, Name: ifi.Name, MAC: ifi.HardwareAddr}, a), ann.Close())
	}))
}

// TestForeignClaims: another machine, and then a member, says that it has the
// addresses. That is told on every node with its hardware address, counted, and
// answered at a bounded rate.
func TestForeignClaims(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, vips: []netip.Addr{vip4, vip6}})
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0", "--vip", vip6.String()+"/64@eth0"))
	o := owner(t, c, nil)
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), o, vip6))
	if st := status(t, o); st.Groups[0].ForeignClaims != 0 {
		t.Errorf("%d claims before there was one", st.Groups[0].ForeignClaims)
	}
	// The bursts of the take are over.
	capture := get[*testnet.Capture](t)(c.Lab.Client(0).StartCapture(testnet.Front))
	time.Sleep(6 * time.Second)

	stranger := c.Lab.Client(0)
	const lasts = 4 * time.Second
	before := capture.Count(vip4, o.Host.Name())
	for began := time.Now(); time.Since(began) < lasts; time.Sleep(50 * time.Millisecond) {
		claim(t, stranger, vip4)
		claim(t, stranger, vip6)
	}
	// One at once; a burst by a doubt is allowed for.
	if n := capture.Count(vip4, o.Host.Name()) - before; n < 1 || n > 12 {
		t.Errorf("%d announcements within %v of claims", n, lasts)
	}
	mac := stranger.MAC(testnet.Front).String()
	for _, a := range []netip.Addr{vip4, vip6} {
		warned(t, c, a.String()+" is claimed by "+mac+" on eth0", "which "+o.Name+" owns and defends")
	}
	if st := status(t, o); st.Groups[0].ForeignClaims < 10 {
		t.Errorf("%d claims counted", st.Groups[0].ForeignClaims)
	}
	r := get[Result](t)(c.Others(o)[0].Run(t.Context(), "doctor"))
	if r.Code == 0 {
		t.Errorf("doctor: exit code 0\n%s", r.Stdout)
	}

	// After a move the old owner is known to be a member; if it goes on, that is worse.
	run(t, o, "transfer")
	next := nextOwner(t, c, o)
	get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, next.Host))
	time.Sleep(4 * time.Second)
	if st := status(t, next); hasWarning(st, "TWO NODES CLAIM") || st.Groups[0].ForeignClaims != 0 {
		t.Errorf("a planned move is an alarm: %d claims, %q", st.Groups[0].ForeignClaims, st.Warnings)
	}
	claim(t, o.Host, vip4)
	warned(t, c, "TWO NODES CLAIM "+vip4.String(), next.Name+" owns it", o.Name+" ("+o.Host.MAC(testnet.Front).String()+")")
	for _, n := range c.Nodes {
		testnet.MustWait(t, 10*time.Second, "status to fail on "+n.Name, func() error {
			r, err := n.Run(t.Context(), "status")
			if err == nil && r.Code != 7 {
				err = fmt.Errorf("exit code %d", r.Code)
			}
			return err
		})
	}
}

// TestNodeAddressClaimed: a machine that is no copy says that it has a node's own
// address. Every node tells of it, and nobody is barred: whoever is on the link can say so.
func TestNodeAddressClaimed(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	victim, stranger := c.Others(o)[0], c.Lab.Client(0)
	own := victim.Host.Addr4(testnet.Front)
	claim(t, stranger, own)
	claim(t, victim.Host, own) // the others reach it again
	warned(t, c, "two machines use the address "+own.String()+" of node "+victim.Name+": ", stranger.MAC(testnet.Front).String(), "raftvip node move-here")
	for _, n := range c.Nodes {
		if r := get[Result](t)(n.Run(t.Context(), "status")); r.Code != 7 {
			t.Errorf("status on %s: exit code %d", n.Name, r.Code)
		}
		if st := status(t, n); len(st.Findings) > 0 {
			t.Errorf("%s: %+v", n.Name, st.Findings)
		}
	}
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
}
