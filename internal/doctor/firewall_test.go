package doctor

import (
	"math"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// TestExtensions: rules as iptables-nft writes them, in a chain that drops the rest.
// All else about rules is in TestFirewall, which has the kernel and nft.
func TestExtensions(t *testing.T) {
	tcp := func(low, high uint16, inverted xt.TcpInvFlagset) *expr.Match {
		return &expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, math.MaxUint16}, DstPorts: [2]uint16{low, high}, InvFlags: inverted}}
	}
	source := tcp(7355, 7355, 0)
	source.Info.(*xt.Tcp).SrcPorts = [2]uint16{1, 2}
	conntrack := func(flags, inverted, states uint16) *expr.Match {
		info := &xt.ConntrackMtinfo3{}
		info.MatchFlags, info.InvertFlags, info.StateMask = flags, inverted, states
		return &expr.Match{Name: "conntrack", Rev: 3, Info: info}
	}
	unknown := &expr.Match{Name: "hashlimit", Info: &xt.Unknown{}}
	established, fresh := uint16(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), uint16(expr.CtStateBitNEW)
	state := uint16(xt.ConntrackState)
	port := packet{proto: 6, in: true, iface: "eth0", dst: netip.MustParseAddr("10.0.0.1"), dport: 7355}
	vrrp := packet{proto: protocolVRRP, in: true, iface: "eth0", dst: group4}
	const (
		passes  = "passes"
		dropped = "dropped"
		perhaps = "perhaps"
	)
	cases := []struct {
		name       string
		match      expr.Any
		port, vrrp string // if it is to be accepted
	}{
		{"port", tcp(7355, 7355, 0), passes, dropped},
		{"range", tcp(7000, 8000, 0), passes, dropped},
		{"other port", tcp(22, 22, 0), dropped, dropped},
		{"not this port", tcp(7355, 7355, xt.TcpInvDestPorts), dropped, dropped},
		{"not another port", tcp(22, 22, xt.TcpInvDestPorts), passes, dropped},
		{"source port", source, perhaps, dropped},
		{"comment", &expr.Match{Name: "comment", Info: new(xt.Comment)}, passes, passes},
		{"established", conntrack(state, 0, established), dropped, dropped},
		{"new", conntrack(state, 0, established|fresh), passes, passes},
		{"not established", conntrack(state, state, established), passes, passes},
		{"other words of conntrack", conntrack(state|uint16(xt.ConntrackStatus), 0, fresh), perhaps, perhaps},
		{"no state", conntrack(0, 0, fresh), perhaps, perhaps},
		{"not known", unknown, perhaps, perhaps},
	}
	drop := nftables.ChainPolicyDrop
	for _, c := range cases {
		chain := &nftables.Chain{
			Name: "INPUT", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4},
			Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Policy: &drop,
		}
		rules := ruleset{{Chain: chain, rules: []*nftables.Rule{{Exprs: []expr.Any{c.match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}}}}}
		for _, q := range []struct {
			p    packet
			want string
		}{{port, c.port}, {vrrp, c.vrrp}} {
			got := passes
			switch is, certain, where := rules.drops(q.p); {
			case is && where != "table ip filter, chain INPUT, policy drop":
				t.Errorf("%s: at %q", c.name, where)
			case is && certain:
				got = dropped
			case is:
				got = perhaps
			}
			if got != q.want {
				t.Errorf("%s: protocol %d %s, want %s", c.name, q.p.proto, got, q.want)
			}
		}
	}
	refuse := ruleset{{Chain: &nftables.Chain{
		Name: "INPUT", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
	}, rules: []*nftables.Rule{{Exprs: []expr.Any{tcp(7355, 7355, 0), &expr.Target{Name: "REJECT"}}}}}}
	if is, certain, where := refuse.drops(port); !is || !certain || where != "table ip filter, chain INPUT, rule 1" {
		t.Errorf("REJECT: %v, %v, %q", is, certain, where)
	}
}
