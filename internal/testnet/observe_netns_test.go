package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

func startProber(t *testing.T, l *Lab, vips ...netip.Addr) *Prober {
	t.Helper()
	p, err := l.StartProber(ProberOptions{VIPs: vips})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustAnswer(t *testing.T, p *Prober, vip netip.Addr, holder string) {
	t.Helper()
	MustWait(t, 5*time.Second, fmt.Sprintf("%q to answer for %v", holder, vip), func() error {
		if got := p.Holder(vip); got != holder {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func TestProberSeesAddress(t *testing.T) {
	l := ForTest(t, Options{})
	v4, v6 := l.VIP4(100), l.VIP6(100)
	p := startProber(t, l, v4, v6)
	time.Sleep(50 * time.Millisecond)
	if n := len(p.Answers()); n != 0 {
		t.Errorf("%d answers for addresses nobody has", n)
	}
	n1 := l.Node(0)
	for _, a := range []string{v4.String() + "/32", v6.String() + "/128"} {
		if _, err := n1.Exec(t.Context(), "ip", "addr", "add", a, "dev", "eth0", "nodad"); err != nil {
			t.Fatal(err)
		}
	}
	mustAnswer(t, p, v4, "n1")
	mustAnswer(t, p, v6, "n1")
	start, st0 := time.Now(), p.Stats()
	time.Sleep(time.Second)
	took, st := time.Since(start), p.Stats()
	probes, answers := st.Probes-st0.Probes, st.Answers-st0.Answers
	t.Logf("2 addresses: %d probes, %d answers, CPU %.2f %% of a core; %v", probes, answers,
		100*float64(st.Cadence.CPU-st0.Cadence.CPU)/float64(took), st.Cadence)
	if answers < 2*probes*98/100 {
		t.Errorf("%d answers to %d probes of 2 addresses", answers, probes)
	}
	p.Stop()
	for _, a := range p.Answers() {
		if a.Probe == 0 || a.At > boottime.Now() || boottime.Now()-a.At > time.Minute {
			t.Fatalf("implausible answer: %+v", a)
		}
	}
	MustHoldP1(t, p)
}

// Every answer is matched to its question: their order is the same, and one
// holder never answers one question twice.
func TestProberMatchesQuestions(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	vip := l.VIP4(100)
	if err := l.Node(0).AddAddr(vip); err != nil {
		t.Fatal(err)
	}
	p := startProber(t, l, vip)
	MustWait(t, 5*time.Second, "100 answers", func() error {
		if n := p.Stats().Answers; n < 100 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	p.Stop()
	as := p.Answers()
	for i := 1; i < len(as); i++ {
		if as[i].Probe <= as[i-1].Probe {
			t.Fatalf("answer %d is to probe %d, the one before to %d", i, as[i].Probe, as[i-1].Probe)
		}
	}
}

func TestProberFindsDuplicate(t *testing.T) {
	l := ForTest(t, Options{})
	for _, vip := range []netip.Addr{l.VIP4(100), l.VIP6(100)} {
		p := startProber(t, l, vip)
		if err := l.Node(0).AddAddr(vip); err != nil {
			t.Fatal(err)
		}
		mustAnswer(t, p, vip, "n1")
		time.Sleep(50 * time.Millisecond)
		if err := p.Check().Err(); err != nil {
			t.Errorf("one holder: %v", err)
		}
		from := boottime.Now()
		if err := l.Node(1).AddAddr(vip); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := l.Node(1).DelAddr(vip); err != nil {
			t.Fatal(err)
		}
		took := boottime.Now() - from
		time.Sleep(50 * time.Millisecond)
		rep := p.Check()
		if rep.Err() == nil {
			t.Fatalf("%v on two nodes for %v not found", vip, took)
		}
		v := rep.Violations[0]
		t.Logf("%v on two nodes for %v: %v", vip, took, rep.Err())
		if v.Holders != [2]string{"n1", "n2"} || rep.Overlap > took || rep.Overlap < took/2 {
			t.Errorf("got %v, overlap %v of %v", v, rep.Overlap, took)
		}
		if _, err := l.Owner(vip); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		p.Stop()
	}
}

// One probe is enough: the address is on the second node for an instant only.
func TestProberFindsInstant(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	vip := l.VIP4(100)
	p := startProber(t, l, vip)
	if err := l.Node(0).AddAddr(vip); err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, p, vip, "n1")
	if err := l.Node(1).AddAddr(vip); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "an answer of n2", func() error {
		if p.Check().Answers[vip]["n2"] == 0 {
			return errors.New("none")
		}
		return nil
	})
	if err := l.Node(1).DelAddr(vip); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if p.Check().Err() == nil {
		t.Error("not found")
	}
}

// A hand-over by hand, address off here and then on there, is clean, again and
// again; and the client sees a gap about as long as the address was nowhere.
func TestMoveByHand(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	ctl := StartControl(0)
	defer ctl.Stop()
	vip := l.VIP4(100)
	p := startProber(t, l, vip)
	if err := l.Node(0).AddAddr(vip); err != nil {
		t.Fatal(err)
	}
	c, err := l.Client(0).StartClient(ClientOptions{VIP: vip})
	if err != nil {
		t.Fatal(err)
	}
	cap, err := l.Observer().StartCapture(Front)
	if err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, p, vip, "n1")
	began := boottime.Now()
	time.Sleep(300 * time.Millisecond)
	if gap := c.GapSince(began); gap > 5*time.Millisecond+ctl.Total(began, boottime.Now()) {
		t.Errorf("gap of %v with nothing wrong; stalls %v", gap, ctl.Stalls())
	}
	from, to := l.Node(0), l.Node(1)
	for i, hole := range []time.Duration{0, 0, 30 * ms, 100 * ms} {
		began := c.Mark(fmt.Sprintf("move %d with a hole of %v", i, hole))
		if err := from.DelAddr(vip); err != nil {
			t.Fatal(err)
		}
		time.Sleep(hole)
		if err := to.AddAddr(vip); err != nil {
			t.Fatal(err)
		}
		if out, err := to.Exec(t.Context(), "arping", "-U", "-c", "1", "-I", "eth0", vip.String()); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		// Neither earlier nor later than the client's neighbour cache allows.
		MustWait(t, 5*time.Second, "client to be answered", func() error {
			if ago, ok := c.Answering(); !ok || ago > 10*ms {
				return fmt.Errorf("%v ago", ago)
			}
			return nil
		})
		time.Sleep(30 * time.Millisecond)
		os := c.Outages(began)
		gap := c.GapSince(began)
		stall := ctl.Total(began, boottime.Now())
		t.Logf("%v (stall %v)", os, stall)
		if gap < hole || gap > hole+50*ms+stall {
			t.Errorf("hole %v: gap %v", hole, gap)
		}
		if n := len(cap.Announcements(vip)); n < i+1 {
			t.Errorf("%d announcements after %d moves", n, i+1)
		}
		from, to = to, from
	}
	t.Logf("client: %+v", c.Stats())
	t.Logf("announced: n1 %d, n2 %d", cap.Count(vip, "n1"), cap.Count(vip, "n2"))
	MustHoldP1(t, p)
}

func TestClientSeesStopOfIPv6(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	vip := l.VIP6(100)
	if err := l.Node(0).AddAddr(vip); err != nil {
		t.Fatal(err)
	}
	c, err := l.Client(0).StartClient(ClientOptions{VIP: vip})
	if err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "100 answers", func() error {
		if st := c.Stats(); st.Answered < 100 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if err := l.Node(0).DelAddr(vip); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "an outage that is not over", func() error {
		os := c.Outages(0)
		if len(os) == 0 || !os[len(os)-1].Open || os[len(os)-1].Gap < 50*ms {
			return fmt.Errorf("outages %v", os)
		}
		return nil
	})
}

func TestCaptureSeesAnnouncements(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	n1 := l.Node(0)
	near, err := n1.StartCapture(Front)
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Observer().StartCapture(Front)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel itself announces its IPv6 addresses when it is told to.
	for _, args := range [][]string{
		{"arping", "-U", "-c", "1", "-I", "eth0", n1.Addr4(Front).String()},
		{"arping", "-A", "-c", "1", "-I", "eth0", n1.Addr4(Front).String()},
		{"sysctl", "-w", "net.ipv6.conf.eth0.ndisc_notify=1"},
		{"ip", "link", "set", "eth0", "down"},
		{"ip", "link", "set", "eth0", "up"},
	} {
		if _, err := n1.Exec(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*Capture{"sender": near, "observer": far} {
		MustWait(t, 5*time.Second, "one announcement of each kind at the "+name, func() error {
			seen := map[Kind]int{}
			for _, a := range c.Announcements(netip.Addr{}) {
				if a.Holder == "n1" {
					seen[a.Kind]++
				}
			}
			if seen[GratuitousReq] == 0 || seen[GratuitousReply] == 0 || seen[UnsolicitedNA] == 0 {
				return fmt.Errorf("saw %v", seen)
			}
			return nil
		})
	}
	for _, a := range near.Announcements(netip.Addr{}) {
		t.Logf("%v %v is at %s (%v)", a.At, a.Addr, a.Holder, a.Kind)
	}
}

// TestProbersAtOnce: each counts the answers to its own questions only. Else a
// holder's last answer and another's first could look like answers to one question.
func TestProbersAtOnce(t *testing.T) {
	l := ForTest(t, Options{})
	v4, v6 := l.VIP4(100), l.VIP6(100)
	for _, a := range []string{v4.String() + "/32", v6.String() + "/128"} {
		if _, err := l.Node(0).Exec(t.Context(), "ip", "addr", "add", a, "dev", "eth0", "nodad"); err != nil {
			t.Fatal(err)
		}
	}
	var ps []*Prober
	for range maxProbers {
		p := startProber(t, l, v4, v6)
		mustAnswer(t, p, v4, "n1")
		mustAnswer(t, p, v6, "n1")
		ps = append(ps, p)
	}
	if _, err := l.StartProber(ProberOptions{VIPs: []netip.Addr{v4}}); err == nil {
		t.Error("one more prober than there are addresses to ask from")
	}
	time.Sleep(100 * time.Millisecond)
	for i, p := range ps {
		p.Stop()
		last := map[netip.Addr]uint64{}
		for _, a := range p.Answers() {
			if a.Probe <= last[a.VIP] {
				t.Fatalf("prober %d: answer to question %d after that to %d for %v", i, a.Probe, last[a.VIP], a.VIP)
			}
			last[a.VIP] = a.Probe
		}
	}
	startProber(t, l, v4).Stop() // theirs are free again
}
