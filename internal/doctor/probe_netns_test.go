package doctor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/raftvip/raftvip/internal/testnet"
)

// probeAll has the nodes of a lab probe one another at their addresses of a family;
// sessions says which probe each takes part in.
func probeAll(t *testing.T, lab *testnet.Lab, six bool, sessions ...string) []Probed {
	t.Helper()
	peers := make(map[int]netip.AddrPort)
	for i, h := range lab.Nodes() {
		peers[i] = netip.AddrPortFrom(h.Addr4(testnet.Front), 7355)
		if six {
			peers[i] = netip.AddrPortFrom(h.Addr6(testnet.Front), 7355)
		}
	}
	out := make([]Probed, len(peers))
	var all sync.WaitGroup
	for i, h := range lab.Nodes() {
		all.Go(func() {
			if err := h.Do(func() error {
				interfaces, err := Interfaces(Subject{Local: peers[i]})
				if err != nil {
					return err
				}
				out[i], err = Probe(t.Context(), Plan{Session: sessions[i], Self: i, Nodes: len(peers), Local: peers[i], Peers: peers, Interfaces: interfaces})
				return err
			}); err != nil {
				t.Errorf("%s: %v", h, err)
			}
		})
	}
	all.Wait()
	for i, p := range out {
		if err := p.Validate(len(peers)); err != nil {
			t.Errorf("%s: %v", lab.Node(i), err)
		}
		if len(p.Unable) > 0 {
			t.Errorf("%s: %+v", lab.Node(i), p.Unable)
		}
	}
	return out
}

// TestProbe: what two nodes send each other arrives, where it was sent to, and what
// belongs to another probe is nobody's.
func TestProbe(t *testing.T) {
	const ours, other = "00112233445566ff", "00112233445566fe"
	for _, six := range []bool{false, true} {
		lab := testnet.ForTest(t, testnet.Options{Nodes: 3})
		got := probeAll(t, lab, six, ours, ours, other)
		for i, from := range []int{1, 0} {
			for _, c := range []struct {
				kind Kind
				six  bool
			}{{MulticastUDP, false}, {MulticastUDP, true}, {MulticastVRRP, false}, {MulticastVRRP, true}, {UnicastUDP, six}, {UnicastFull, six}, {UnicastVRRP, six}} {
				if got[i].seen(c.kind, c.six, from, "eth0", "eth0") == 0 {
					t.Errorf("%v: kind %d, IPv6 %v, is not seen: %+v", lab.Node(i), c.kind, c.six, got[i].Seen)
				}
				s, ok := got[i].sent(c.kind, c.six, "eth0", from)
				if !ok || s.Rounds != 1<<Rounds-1 || s.Error != "" || (s.Size == 1500) != (c.kind == UnicastFull) {
					t.Errorf("%v: kind %d, IPv6 %v, is sent as %+v", lab.Node(i), c.kind, c.six, s)
				}
			}
			if slices.ContainsFunc(got[i].Seen, func(s Seen) bool {
				return s.From != from || !s.Kind.multicast() && s.Six != six
			}) {
				t.Errorf("%v has seen %+v", lab.Node(i), got[i].Seen)
			}
		}
		if len(got[2].Seen) > 0 {
			t.Errorf("of another probe: %+v", got[2].Seen)
		}
	}
}

func TestProbePlan(t *testing.T) {
	good := Plan{Session: "0011223344556677", Nodes: 1}
	for name, change := range map[string]func(*Plan){
		"session":        func(p *Plan) { p.Session = "x" },
		"no nodes":       func(p *Plan) { p.Nodes = 0 },
		"too many nodes": func(p *Plan) { p.Nodes = MaxNodes + 1 },
		"not in it":      func(p *Plan) { p.Self = 1 },
		"nobody":         func(p *Plan) { p.Self = -1 },
	} {
		p := good
		change(&p)
		if _, err := Probe(t.Context(), p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Probe(gone, good); err == nil {
		t.Error("a probe that was cancelled has a result")
	}
}
