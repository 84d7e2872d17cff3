package operate

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/policy"
)

func TestRefuseSilence(t *testing.T) {
	fit := func(id string) policy.Node {
		return policy.Node{ID: id, Name: id, Voter: true, Connected: true, CaughtUp: true, Ready: true}
	}
	with := func(n policy.Node, change func(*policy.Node)) policy.Node { change(&n); return n }
	drained := with(fit("lb2"), func(n *policy.Node) { n.Drained = true })
	witness := with(fit("tie"), func(n *policy.Node) { n.Witness = true })
	failing := with(fit("lb2"), func(n *policy.Node) { n.Faults = []string{"script chk failed"} })
	silent := with(fit("lb2"), func(n *policy.Node) { n.Connected = false })
	old := with(fit("lb2"), func(n *policy.Node) { n.ReportAge = time.Minute })
	unready := with(fit("lb1"), func(n *policy.Node) { n.Ready = false })
	one := &state.State{Instances: []state.Instance{{Name: "a", Addresses: virtual("10.0.0.1/24")}}}
	none := &state.State{Instances: []state.Instance{{Name: "a"}}}
	for _, tt := range []struct {
		name   string
		s      *state.State
		nodes  []policy.Node
		id     string
		owner  string
		force  bool
		refuse string // part of the message, "" for done
	}{
		{"another one may own", one, []policy.Node{fit("lb1"), fit("lb2"), witness}, "lb1", "lb1", false, ""},
		{"the others are drained and a witness", one, []policy.Node{fit("lb1"), drained, witness}, "lb1", "lb1", false, "no other node may own (lb2 is drained; tie is a witness)"},
		{"the other one is in fault", one, []policy.Node{fit("lb1"), failing}, "lb1", "lb1", false, "lb2 fault: script chk failed"},
		{"the other one does not answer", one, []policy.Node{fit("lb1"), silent}, "lb1", "lb1", false, "lb2 is not connected"},
		{"the other one has not reported for long", one, []policy.Node{fit("lb1"), old}, "lb1", "lb1", false, "lb2 last report"},
		{"the only node", one, []policy.Node{fit("lb1")}, "lb1", "lb1", false, "it is the only node"},
		{"asked for", one, []policy.Node{fit("lb1")}, "lb1", "lb1", true, ""},
		{"no address", none, []policy.Node{fit("lb1")}, "lb1", "lb1", false, ""},
		{"one that may not own anyway", one, []policy.Node{fit("lb1"), failing}, "lb2", "lb1", false, ""},
		{"nobody may own before", one, []policy.Node{drained, witness}, "lb2", "", false, ""},
		{"the last one, which does not own yet", one, []policy.Node{fit("lb1"), drained}, "lb1", "", false, "no other node may own"},
		{"the owner whose checks begin anew, the other one", one, []policy.Node{unready, fit("lb2")}, "lb2", "lb1", false, ""},
		{"the owner whose checks begin anew", one, []policy.Node{unready, drained}, "lb1", "lb1", false, "no other node may own"},
	} {
		err := refuseSilence(tt.s, tt.nodes, tt.owner, tt.id, "to drain it", "", tt.force)
		checkRefusal(t, tt.name, err, state.CodeSilences, tt.refuse)
	}
}

// checkRefusal judges an error that has to be a refusal with the code and part of a
// message, or nil for "".
func checkRefusal(t *testing.T, name string, err error, code, says string) {
	t.Helper()
	if says == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	var r *state.Refusal
	if !errors.As(err, &r) || r.Code != code || !strings.Contains(r.Message, says) || !strings.Contains(r.Hint, "--force") {
		t.Errorf("%s: got %v, want a refusal that says %q", name, err, says)
	}
}

func TestRefuseEmpty(t *testing.T) {
	list := func(texts ...string) []state.Instance {
		return []state.Instance{{Name: "a", Addresses: virtual(texts...)}}
	}
	many := make([]string, 9)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String() + "/24"
	}
	for _, tt := range []struct {
		name       string
		have, want []state.Instance
		force      bool
		refuse     string
	}{
		{"one of two goes", list("10.0.0.1/24", "10.0.0.2/24"), list("10.0.0.1/24"), false, ""},
		{"another number", list("10.0.0.1/24"), list("10.0.0.2/24"), false, ""},
		{"the last one goes", list("10.0.0.1/24"), list(), false, "the only virtual address: 10.0.0.1"},
		{"all go", list("10.0.0.1/24", "10.0.0.2/24"), nil, false, "all virtual addresses: 10.0.0.1, 10.0.0.2"},
		{"many go", list(many...), nil, false, "10.0.0.5, ..."},
		{"asked for", list("10.0.0.1/24"), nil, true, ""},
		{"there was none", list(), nil, false, ""},
	} {
		checkRefusal(t, tt.name, refuseEmpty(tt.have, tt.want, "the file", tt.force), state.CodeSilences, tt.refuse)
	}
}

func virtual(texts ...string) []state.Address {
	var out []state.Address
	for _, text := range texts {
		out = append(out, state.Address{Prefix: netip.MustParsePrefix(text)})
	}
	return out
}
