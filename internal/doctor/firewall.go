package doctor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// A ruleset is what nftables has, as far as it could be read.
type ruleset []*ruleChain

// A ruleChain is one chain with its rules.
type ruleChain struct {
	*nftables.Chain
	rules []*nftables.Rule
	sets  map[string][]nftables.SetElement // of its table; only sets with plain keys
	// intervals are the sets whose elements are the ends of ranges.
	intervals map[string]bool
}

func (c *ruleChain) where() string {
	return fmt.Sprintf("table %s %s, chain %s", familyName(c.Table.Family), c.Table.Name, c.Name)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}

// drops tells whether the rules drop the packet, whether that is certain, and where.
func (r ruleset) drops(p packet) (dropped, certain bool, where string) {
	for _, c := range r {
		if !c.sees(p) {
			continue
		}
		// nftables does not say through the library to which device a chain is bound.
		w := walk{rules: r, packet: p, doubt: c.Table.Family == nftables.TableFamilyNetdev && c.Device == ""}
		end := w.chain(c, 0)
		if end == fellThrough && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			w.drop(c.where() + ", policy drop")
		}
		if w.dropped != "" {
			dropped, where = true, w.dropped
			if w.certain {
				return true, true, where
			}
		}
	}
	return dropped, false, where
}

// sees tells whether a base chain is on the packet's way. Chains of type nat judge
// nothing.
func (c *ruleChain) sees(p packet) bool {
	if c.Hooknum == nil || c.Type == nftables.ChainTypeNAT {
		return false
	}
	hook := int(*c.Hooknum)
	switch f := c.Table.Family; {
	case f == nftables.TableFamilyNetdev:
		return !strings.HasPrefix(c.Table.Name, "raftvip_") && (c.Device == "" || c.Device == p.iface) &&
			(p.in && hook == unix.NF_NETDEV_INGRESS || !p.in && hook == unix.NF_NETDEV_EGRESS)
	case f == nftables.TableFamilyIPv4 && p.six(), f == nftables.TableFamilyIPv6 && !p.six():
		return false
	case f != nftables.TableFamilyINet && f != nftables.TableFamilyIPv4 && f != nftables.TableFamilyIPv6:
		return false
	}
	if p.in {
		return hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_IN
	}
	return hook == unix.NF_INET_LOCAL_OUT || hook == unix.NF_INET_POST_ROUTING
}

// How a chain ends for a packet.
type end int

const (
	fellThrough end = iota
	accepted
	ended // dropped, for certain
)

// maxJumps is how deep the kernel lets chains call one another (NFT_JUMP_STACK_SIZE).
const maxJumps = 16

// A walk is the way of one packet through a base chain.
type walk struct {
	rules  ruleset
	packet packet
	// doubt: a rule before may have accepted the packet.
	doubt bool
	// dropped is where the packet is dropped first, or may be; certain tells which.
	dropped string
	certain bool
}

// drop notes that the packet ends here, unless it was accepted before.
func (w *walk) drop(where string) {
	if w.doubt {
		w.perhaps(where)
		return
	}
	w.dropped, w.certain = where, true
}

// perhaps notes that it may end here.
func (w *walk) perhaps(where string) {
	if w.dropped == "" {
		w.dropped = where
	}
}

// match is what is known of whether a rule applies.
type match int

const (
	yes match = iota
	maybe
	no
)

func (w *walk) chain(c *ruleChain, depth int) end {
	for n, rule := range c.rules {
		m, verdict := w.rule(c, rule)
		if m == no || verdict == nil {
			continue
		}
		where := fmt.Sprintf("%s, rule %d", c.where(), n+1)
		switch verdict.Kind {
		case expr.VerdictDrop:
			if m == maybe {
				w.perhaps(where)
				continue
			}
			w.drop(where)
			return ended
		case expr.VerdictAccept:
			if m == yes {
				return accepted
			}
			w.doubt = true
		case expr.VerdictQueue, expr.VerdictStolen:
			w.doubt = true
			w.perhaps(where)
		case expr.VerdictReturn:
			if m == yes {
				return fellThrough
			}
			w.doubt = true
		case expr.VerdictJump, expr.VerdictGoto:
			if e, over := w.jump(c, verdict, m, depth); over {
				return e
			}
		}
	}
	return fellThrough
}

// jump walks another chain; over tells whether this one is at its end.
func (w *walk) jump(c *ruleChain, verdict *expr.Verdict, m match, depth int) (e end, over bool) {
	i := slices.IndexFunc(w.rules, func(o *ruleChain) bool {
		return o.Name == verdict.Chain && o.Table.Name == c.Table.Name && o.Table.Family == c.Table.Family
	})
	if i < 0 || depth >= maxJumps {
		w.doubt = true
		return fellThrough, false
	}
	if m == maybe {
		// Whatever it does there may happen or not.
		inner := walk{rules: w.rules, packet: w.packet, doubt: true}
		if inner.chain(w.rules[i], depth+1) == accepted || inner.doubt {
			w.doubt = true
		}
		if inner.dropped != "" {
			w.perhaps(inner.dropped)
		}
		return fellThrough, false
	}
	e = w.chain(w.rules[i], depth+1)
	return e, e != fellThrough || verdict.Kind == expr.VerdictGoto
}

// A register holds what an expression loaded; nil is not known.
type registers map[uint32][]byte

// rule follows the expressions of a rule.
func (w *walk) rule(c *ruleChain, rule *nftables.Rule) (m match, verdict *expr.Verdict) {
	regs := registers{}
	for _, e := range rule.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Notrack:
		case *expr.Meta:
			if e.SourceRegister {
				continue // it sets a mark
			}
			regs[e.Register] = w.meta(e.Key)
		case *expr.Payload:
			regs[e.DestRegister] = w.payload(e)
		case *expr.Immediate:
			regs[e.Register] = e.Data
		case *expr.Ct:
			regs[e.Register] = nil
			if e.Key == expr.CtKeySTATE {
				regs[e.Register] = binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)
			}
		case *expr.Bitwise:
			regs[e.DestRegister] = bitwise(regs[e.SourceRegister], e)
		case *expr.Cmp:
			m = max(m, compare(regs[e.Register], e))
		case *expr.Range:
			m = max(m, inRange(regs[e.Register], e))
		case *expr.Lookup:
			found, v := c.lookup(regs[e.SourceRegister], e)
			m = max(m, found)
			if v != nil {
				verdict = v
			}
		case *expr.Verdict:
			verdict = e
		case *expr.Match:
			m = max(m, w.extension(e))
		case *expr.Reject:
			verdict = &expr.Verdict{Kind: expr.VerdictDrop}
		case *expr.Target:
			switch e.Name {
			case "DROP", "REJECT":
				verdict = &expr.Verdict{Kind: expr.VerdictDrop}
			case "ACCEPT":
				verdict = &expr.Verdict{Kind: expr.VerdictAccept}
			}
		default:
			m = max(m, maybe) // whatever it asks is not known here
		}
		if m == no {
			return no, nil
		}
	}
	return m, verdict
}

// extension judges a match of iptables-nft, as far as they are in common use.
func (w *walk) extension(e *expr.Match) match {
	switch info := e.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		if w.packet.proto != unix.IPPROTO_TCP {
			return no
		}
		inside := w.packet.dport >= info.DstPorts[0] && w.packet.dport <= info.DstPorts[1]
		switch {
		case inside == (info.InvFlags&xt.TcpInvDestPorts != 0):
			return no
		case info.SrcPorts != [2]uint16{0, math.MaxUint16} || info.Option != 0 || info.FlagsMask != 0:
			return maybe
		}
		return yes
	case *xt.ConntrackMtinfo3:
		const state, alias = uint16(xt.ConntrackState), uint16(xt.ConntrackStateAlias)
		if info.MatchFlags&^(state|alias) != 0 || info.MatchFlags&state == 0 {
			return maybe
		}
		return matches((info.StateMask&uint16(expr.CtStateBitNEW) != 0) != (info.InvertFlags&state != 0))
	}
	return maybe
}

// meta returns what the kernel knows of the packet besides its bytes.
func (w *walk) meta(key expr.MetaKey) []byte {
	name := func(here bool) []byte {
		b := make([]byte, unix.IFNAMSIZ)
		if here {
			copy(b, w.packet.iface)
		}
		return b
	}
	index := func(here bool) []byte {
		if !here {
			return make([]byte, 4)
		}
		return binary.NativeEndian.AppendUint32(nil, uint32(w.packet.index))
	}
	switch key {
	case expr.MetaKeyL4PROTO:
		return []byte{w.packet.proto}
	case expr.MetaKeyNFPROTO:
		if w.packet.six() {
			return []byte{unix.NFPROTO_IPV6}
		}
		return []byte{unix.NFPROTO_IPV4}
	case expr.MetaKeyPROTOCOL:
		if w.packet.six() {
			return binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6)
		}
		return binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)
	case expr.MetaKeyIIFNAME:
		return name(w.packet.in)
	case expr.MetaKeyOIFNAME:
		return name(!w.packet.in)
	case expr.MetaKeyIIF:
		return index(w.packet.in)
	case expr.MetaKeyOIF:
		return index(!w.packet.in)
	case expr.MetaKeyPKTTYPE:
		switch {
		case !w.packet.in:
			return nil
		case w.packet.dst.IsMulticast():
			return []byte{unix.PACKET_MULTICAST}
		}
		return []byte{unix.PACKET_HOST}
	}
	return nil
}

func (w *walk) payload(e *expr.Payload) []byte {
	network, networkKnown, transport, transportKnown := w.packet.headers()
	b, known := network, networkKnown
	switch e.Base {
	case expr.PayloadBaseNetworkHeader:
	case expr.PayloadBaseTransportHeader:
		b, known = transport, transportKnown
	default:
		return nil
	}
	if uint64(e.Offset)+uint64(e.Len) > uint64(len(b)) || bytes.IndexByte(known[e.Offset:e.Offset+e.Len], 0) >= 0 {
		return nil
	}
	return b[e.Offset : e.Offset+e.Len]
}

func bitwise(v []byte, e *expr.Bitwise) []byte {
	if len(v) == 0 || len(e.Mask) != len(v) || len(e.Xor) != len(v) {
		return nil
	}
	out := make([]byte, len(v))
	for i := range v {
		out[i] = v[i]&e.Mask[i] ^ e.Xor[i]
	}
	return out
}

func matches(b bool) match {
	if b {
		return yes
	}
	return no
}

// compare judges a comparison. The name of an interface with a wildcard is compared
// as far as it goes.
func compare(v []byte, e *expr.Cmp) match {
	if v == nil || len(v) < len(e.Data) {
		return maybe
	}
	d := bytes.Compare(v[:len(e.Data)], e.Data)
	switch e.Op {
	case expr.CmpOpEq:
		return matches(d == 0)
	case expr.CmpOpNeq:
		return matches(d != 0)
	case expr.CmpOpLt:
		return matches(d < 0)
	case expr.CmpOpLte:
		return matches(d <= 0)
	case expr.CmpOpGt:
		return matches(d > 0)
	case expr.CmpOpGte:
		return matches(d >= 0)
	}
	return maybe
}

func inRange(v []byte, e *expr.Range) match {
	if v == nil || len(v) != len(e.FromData) || len(v) != len(e.ToData) {
		return maybe
	}
	inside := bytes.Compare(v, e.FromData) >= 0 && bytes.Compare(v, e.ToData) <= 0
	switch e.Op {
	case expr.CmpOpEq:
		return matches(inside)
	case expr.CmpOpNeq:
		return matches(!inside)
	}
	return maybe
}

// lookup judges a lookup in a set or verdict map. Whatever verdict a map has for the
// packet, it is one that is not known: the library does not read them.
func (c *ruleChain) lookup(v []byte, e *expr.Lookup) (match, *expr.Verdict) {
	var verdict *expr.Verdict
	if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
		verdict = &expr.Verdict{Kind: expr.VerdictQueue}
	}
	elements, readable := c.sets[e.SetName]
	if v == nil || !readable || e.IsDestRegSet && verdict == nil {
		return maybe, verdict
	}
	if found := find(elements, v, c.intervals[e.SetName]) != nil; found == e.Invert {
		return no, nil
	}
	return yes, verdict
}

// find returns the element that has a key, or nil.
func find(elements []nftables.SetElement, v []byte, interval bool) *nftables.SetElement {
	if !interval {
		for i := range elements {
			if bytes.HasPrefix(elements[i].Key, v) {
				return &elements[i]
			}
		}
		return nil
	}
	// The greatest key that is not above v is the start of a range, or the end of one.
	sorted := slices.Clone(elements)
	slices.SortStableFunc(sorted, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	var last *nftables.SetElement
	for i := range sorted {
		if bytes.Compare(sorted[i].Key, v) <= 0 && (last == nil || !bytes.Equal(last.Key, sorted[i].Key) || !sorted[i].IntervalEnd) {
			last = &sorted[i]
		}
	}
	if last == nil || last.IntervalEnd {
		return nil
	}
	return last
}

// judge asks the rules about packets and returns those that they drop, each packet
// once.
func (r ruleset) judge(packets []packet) []Filter {
	var out []Filter
	for _, p := range packets {
		dropped, certain, where := r.drops(p)
		f := Filter{Packet: Clean(p.text), Port: p.port, Certain: certain, Rule: Clean(where)}
		if dropped && !slices.Contains(out, f) && len(out) < maxTexts/4 {
			out = append(out, f)
		}
	}
	return out
}
