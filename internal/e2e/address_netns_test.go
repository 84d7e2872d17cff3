package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
)

var vip6 = netip.MustParseAddr("fd00:99::100")

// TestAddressDeleted: what somebody deletes is back at once and announced anew,
// and what somebody else has put up stays.
func TestAddressDeleted(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	foreign := []string{"10.99.0.150/24", "192.0.2.1/32", "fd00:99::150/64"}
	for _, n := range c.Nodes {
		for _, a := range foreign {
			exec1(t, n.Host, "ip", "address", "add", a, "dev", "eth0", "nodad")
		}
	}
	foreignThere := func(n *Node) {
		t.Helper()
		for _, a := range foreign {
			if has, err := n.Host.Has(netip.MustParsePrefix(a).Addr()); err != nil || !has {
				t.Errorf("%s has lost %s, which is not ours (%v)", n.Name, a, err)
			}
		}
	}
	capture := get[*testnet.Capture](t)(c.Lab.Client(0).StartCapture(testnet.Front))
	control := testnet.StartControl(0)
	defer control.Stop()
	for i := range 3 {
		// ip(8) takes a while to start; the time counts from when the address is gone.
		before := capture.Count(vip4, o.Host.Name())
		exec1(t, o.Host, "bash", "-c", fmt.Sprintf("ip address del $(ip -o -4 address show dev eth0 to %v | awk '{print $4}') dev eth0", vip4))
		gone := boottime.Now()
		testnet.MustWait(t, 10*time.Second, "the address to be back", func() error {
			has, err := o.Host.Has(vip4)
			if err == nil && !has {
				err = fmt.Errorf("not there")
			}
			return err
		})
		back := boottime.Now()
		within(t, fmt.Sprintf("return %d", i), back-gone, 100*time.Millisecond, control.Total(gone, back))
		testnet.MustWait(t, 5*time.Second, "new announcements", func() error {
			if n := capture.Count(vip4, o.Host.Name()) - before; n < 1 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	}
	if !strings.Contains(o.Daemon().Output(), "address put back") {
		t.Errorf("it is not in the log:\n%s", o.Daemon().Tail(2000))
	}
	for _, n := range c.Nodes {
		foreignThere(n)
	}
	// Nor are they touched by a move, by a crash and its clean-up, or by an end.
	run(t, o, "transfer")
	next := nextOwner(t, c, o)
	must(t, next.Kill())
	nextOwner(t, c, next)
	must(t, next.Start())
	must(t, next.WaitServing(t.Context()))
	_, err := o.Stop()
	must(t, err)
	for _, n := range c.Nodes {
		foreignThere(n)
	}
}

// bursts adds an address of each family, waits for its announcements and says what
// is wrong with them.
func bursts(t *testing.T, c *Cluster, capture *testnet.Capture, o *Node, try int) (problems []string) {
	t.Helper()
	kinds := map[netip.Addr][]testnet.Kind{
		c.Lab.VIP4(110 + try): {testnet.GratuitousReq, testnet.GratuitousReply}, c.Lab.VIP6(110 + try): {testnet.UnsolicitedNA},
	}
	for a := range kinds {
		run(t, o, "vip", "add", netip.PrefixFrom(a, map[bool]int{true: 24, false: 64}[a.Is4()]).String()+"@eth0")
	}
	for a, want := range kinds {
		var anns []testnet.Announcement
		testnet.MustWait(t, 20*time.Second, fmt.Sprintf("ten announcements of %v", a), func() error {
			anns = capture.Announcements(a)
			if len(anns) < 10 {
				return fmt.Errorf("%d", len(anns))
			}
			return nil
		})
		early := 0
		for _, x := range anns {
			if x.Holder != o.Host.Name() || x.Kind != want[0] && x.Kind != want[len(want)-1] || x.Kind == testnet.UnsolicitedNA && !x.Override {
				t.Errorf("announcement %+v", x)
			}
			if x.At-anns[0].At < 2*time.Second {
				early++
			}
		}
		if pause := anns[5].At - anns[0].At; early != 5 || pause < 4900*time.Millisecond || pause > 6*time.Second {
			problems = append(problems, fmt.Sprintf("%v: %d announcements at once, the next after %v; want 5, 5 s", a, early, pause))
		}
	}
	return problems
}

// TestBursts: five announcements now and five after five seconds, of each family,
// and neighbours get an answer when they ask.
func TestBursts(t *testing.T) {
	c := newCluster(t, setup{nodes: 2, vips: []netip.Addr{vip4, vip6}})
	for _, n := range c.Nodes {
		n.RunArgs = []string{"--log-level", "debug"}
	}
	capture := get[*testnet.Capture](t)(c.Lab.Client(0).StartCapture(testnet.Front))
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0", "--vip", vip6.String()+"/64@eth0"))
	o := owner(t, c, nil)
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), o, vip6))
	for try := 1; ; try++ {
		// A doubt, such as a peer that was silent for a moment, begins a new burst.
		doubts := func() int { return strings.Count(o.Daemon().Output(), "announcing all addresses") }
		before := doubts()
		problems := bursts(t, c, capture, o, try)
		if len(problems) == 0 {
			break
		}
		if doubts() == before || try == 4 {
			t.Fatalf("try %d, %d doubts: %s", try, doubts()-before, strings.Join(problems, "; "))
		}
		t.Logf("try %d, %d doubts: %s", try, doubts()-before, strings.Join(problems, "; "))
	}
	kinds := []netip.Addr{vip4, vip6}
	// The prober asks by neighbour solicitation; so does a kernel that sends.
	_, err := c.Lab.WaitOwner(bounded(t, 5*time.Second), vip6, o.Host)
	must(t, err)
	client := get[*testnet.Client](t)(c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip6}))
	testnet.MustWait(t, 5*time.Second, "answers over IPv6", func() error {
		if n := client.Stats().Answered; n < 100 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	// The burst is not repeated by whoever only follows.
	for _, n := range c.Others(o) {
		if got := capture.Count(vip4, n.Host.Name()) + capture.Count(vip6, n.Host.Name()); got != 0 {
			t.Errorf("%s is not the owner and has announced %d times", n.Name, got)
		}
	}
	run(t, o, "transfer")
	next := nextOwner(t, c, o)
	for _, a := range kinds {
		testnet.MustWait(t, 5*time.Second, fmt.Sprintf("%v to be announced by the new owner", a), func() error {
			if n := capture.Count(a, next.Host.Name()); n < 5 {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
}
