package guard

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The table, as nft(8) would write it. The rules are plain ones because the listing
// of nft 1.0.6 aborts on cleverer ones that a program can make:
//
//	table netdev raftvip_NAME {
//	    map addr4 { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump gate_0 } }
//	    map addr6 { type ipv6_addr : verdict }
//	    set lease_0 { type ether_type; flags timeout; elements = { ip, arp, ip6 } }
//	    set ticket { type ether_type; flags timeout }
//	    chain gate_0 { meta protocol @lease_0 return; counter drop }
//	    chain guard_in { ip daddr vmap @addr4; ip6 daddr vmap @addr6 }
//	    chain guard_out { arp saddr ip vmap @addr4; ip saddr vmap @addr4; ip6 saddr vmap @addr6; NA target vmap @addr6 }
//	    chain in_2 { type filter hook ingress device "eth0" priority -500; jump guard_in }
//	    chain out_2 { type filter hook egress device "eth0" priority -500; jump guard_out }
//	}
//
// An element of a lease set exists for each protocol, as a rule can only look up
// something of the packet. ARP is judged going out only: nftables cannot compare
// sender with target, so it could not let in the new owner's announcement. The same
// goes for neighbour solicitations, whose answer is stopped. The rule for the target
// of an advertisement is listed as "@th,64,128 vmap @addr6", which nft 1.0.6 does not
// read back; without it an announcement from another source would leave.
const (
	nftIn    = "guard_in"
	nftOut   = "guard_out"
	nftChunk = 256 // elements per message; an attribute holds 64 KiB

	leasePrefix = "lease_" // begins the names of lease sets
)

var nftPriority = nftables.ChainPriorityRef(-500)

func inChain(ifindex int) string  { return "in_" + strconv.Itoa(ifindex) }
func outChain(ifindex int) string { return "out_" + strconv.Itoa(ifindex) }

func gateChain(group uint32) string { return fmt.Sprintf("gate_%d", group) }

func addressMap(t *nftables.Table, six bool) *nftables.Set {
	s := &nftables.Set{Table: t, Name: "addr4", IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict}
	if six {
		s.Name, s.KeyType = "addr6", nftables.TypeIP6Addr
	}
	return s
}

func timeoutSet(t *nftables.Table, name string) *nftables.Set {
	return &nftables.Set{Table: t, Name: name, HasTimeout: true, KeyType: nftables.TypeEtherType, KeyByteOrder: binaryutil.BigEndian}
}

func (b *nftBackend) leaseSet(group uint32) *nftables.Set {
	return timeoutSet(b.table, leasePrefix+strconv.Itoa(int(group)))
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// rebuild makes the whole table anew in one transaction, with no lease in it.
func (b *nftBackend) rebuild(devs map[int]string) error {
	groups := map[uint32]bool{}
	byGroup := map[uint32][]netip.Addr{}
	for a, group := range b.armed {
		groups[group] = true
		byGroup[group] = append(byGroup[group], a)
	}
	err := b.transact("make table", func() error {
		b.conn.AddTable(b.table)
		b.conn.DelTable(b.table)
		b.conn.AddTable(b.table)
		for _, six := range []bool{false, true} {
			if err := b.conn.AddSet(addressMap(b.table, six), nil); err != nil {
				return err
			}
		}
		if err := b.conn.AddSet(timeoutSet(b.table, "ticket"), nil); err != nil {
			return err
		}
		b.addRules()
		for group, addrs := range byGroup {
			if err := b.addGate(group); err != nil {
				return err
			}
			for start := 0; start < len(addrs); start += nftChunk {
				if err := b.addAddresses(group, addrs[start:min(start+nftChunk, len(addrs))]); err != nil {
					return err
				}
			}
		}
		for ifindex, name := range devs {
			b.addDevice(ifindex, name)
		}
		return nil
	})
	if err != nil {
		left := b.remaining(devs) // A device may have gone meanwhile.
		switch {
		case len(left) < len(devs):
			return b.rebuild(left)
		case len(devs) == 0 || groups[slotInherited]:
			// What keeps addresses shut now is not exchanged for less.
			return err
		}
		return b.rebuild(nil) // The check attaches them one by one.
	}
	b.groups, b.devs = groups, devs
	if b.devs == nil {
		b.devs = map[int]string{}
	}
	clear(b.timeout)
	return nil
}

// remaining returns the devices that still exist under their names.
func (b *nftBackend) remaining(devs map[int]string) map[int]string {
	left := map[int]string{}
	b.ns.do(func() error {
		for i, name := range devs {
			if ifName(i) == name {
				left[i] = name
			}
		}
		return nil
	})
	return left
}

// restore makes the table anew after somebody has deleted it (nft flush ruleset),
// and asks for the leases to be written again.
func (b *nftBackend) restore(why string) error {
	if err := b.rebuild(b.devs); err != nil {
		return err
	}
	b.damaged(why)
	for group := range b.dirty {
		if b.deadlines[group].Load() != 0 {
			b.touch(uint32(group))
		}
	}
	return nil
}

func (b *nftBackend) addGate(group uint32) error {
	lease := b.leaseSet(group)
	if err := b.conn.AddSet(lease, nil); err != nil {
		return err
	}
	c := b.conn.AddChain(&nftables.Chain{Name: gateChain(group), Table: b.table})
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: lease.Name, SetID: lease.ID},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}})
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: []expr.Any{
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return nil
}

// addRules writes the two chains that judge packets. Offsets: RFC 826, 791, 8200,
// 4861.
func (b *nftBackend) addRules() {
	var (
		network   = expr.PayloadBaseNetworkHeader
		transport = expr.PayloadBaseTransportHeader
		ip4       = be16(unix.ETH_P_IP)
		ip6       = be16(unix.ETH_P_IPV6)
		arp       = be16(unix.ETH_P_ARP)
		in        = b.conn.AddChain(&nftables.Chain{Name: nftIn, Table: b.table})
		out       = b.conn.AddChain(&nftables.Chain{Name: nftOut, Table: b.table})
	)
	is := func(key expr.MetaKey, value []byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
		}
	}
	field := func(base expr.PayloadBase, off, n uint32, value []byte) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: base, Offset: off, Len: n},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
		}
	}
	vmap := func(base expr.PayloadBase, off, n uint32) []expr.Any {
		name := "addr4"
		if n == 16 {
			name = "addr6"
		}
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: base, Offset: off, Len: n},
			&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: name},
		}
	}
	rule := func(c *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: b.table, Chain: c}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		b.conn.AddRule(r)
	}
	advert := append(is(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_ICMPV6}), field(transport, 0, 1, []byte{136})...)
	rule(in, is(expr.MetaKeyPROTOCOL, ip4), vmap(network, 16, 4))
	rule(in, is(expr.MetaKeyPROTOCOL, ip6), vmap(network, 24, 16))

	rule(out, is(expr.MetaKeyPROTOCOL, arp), vmap(network, 14, 4))
	rule(out, is(expr.MetaKeyPROTOCOL, ip4), vmap(network, 12, 4))
	rule(out, is(expr.MetaKeyPROTOCOL, ip6), vmap(network, 8, 16))
	rule(out, is(expr.MetaKeyPROTOCOL, ip6), advert, vmap(transport, 8, 16))
}

func (b *nftBackend) addressElements(group uint32, addrs []netip.Addr) (four, six []nftables.SetElement) {
	for _, a := range addrs {
		e := nftables.SetElement{
			Key:         a.AsSlice(),
			VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: gateChain(group)},
		}
		if a.Is4() {
			four = append(four, e)
		} else {
			six = append(six, e)
		}
	}
	return four, six
}

func (b *nftBackend) addAddresses(group uint32, addrs []netip.Addr) error {
	four, six := b.addressElements(group, addrs)
	return b.bothMaps(four, six, b.conn.SetAddElements)
}

func (b *nftBackend) delAddresses(group uint32, addrs []netip.Addr) error {
	four, six := b.addressElements(group, addrs)
	return b.bothMaps(four, six, b.conn.SetDeleteElements)
}

func (b *nftBackend) bothMaps(four, six []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) error {
	if len(four) > 0 {
		if err := do(addressMap(b.table, false), four); err != nil {
			return err
		}
	}
	if len(six) > 0 {
		return do(addressMap(b.table, true), six)
	}
	return nil
}

func (b *nftBackend) addDevice(ifindex int, name string) {
	for _, c := range []struct {
		name, jump string
		hook       *nftables.ChainHook
	}{
		{outChain(ifindex), nftOut, nftables.ChainHookEgress},
		{inChain(ifindex), nftIn, nftables.ChainHookIngress},
	} {
		chain := b.conn.AddChain(&nftables.Chain{
			Name: c.name, Table: b.table, Type: nftables.ChainTypeFilter,
			Hooknum: c.hook, Priority: nftPriority, Device: name,
		})
		b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: []expr.Any{
			&expr.Verdict{Kind: expr.VerdictJump, Chain: c.jump},
		}})
	}
}

// delDevice deletes the base chains of a device, as far as they are there.
func (b *nftBackend) delDevice(ifindex int, have map[string]bool) {
	for _, name := range []string{inChain(ifindex), outChain(ifindex)} {
		if have[name] {
			c := &nftables.Chain{Name: name, Table: b.table}
			b.conn.FlushChain(c)
			b.conn.DelChain(c)
		}
	}
}

// chains returns the names of the chains of the table, none if there is no table.
func (b *nftBackend) chains() (map[string]bool, error) {
	if err := b.connect(); err != nil {
		return nil, err
	}
	all, err := b.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		b.disconnect()
		return nil, fmt.Errorf("nft: list chains: %w", err)
	}
	have := map[string]bool{}
	for _, c := range all {
		if c.Table.Name == b.table.Name {
			have[c.Name] = true
		}
	}
	return have, nil
}

// oldDevices returns the devices that the table of an earlier process is attached
// to, as far as they exist: interface -> name.
func (b *nftBackend) oldDevices() map[int]string {
	have, err := b.chains()
	if err != nil || len(have) == 0 {
		return nil
	}
	devs := map[int]string{}
	b.ns.do(func() error {
		for name := range have {
			n, ok := strings.CutPrefix(name, "out_")
			if i, err := strconv.Atoi(n); ok && err == nil {
				if dev := ifName(i); dev != "" {
					devs[i] = dev
				}
			}
		}
		return nil
	})
	return devs
}

// drops sums the counters of all gates.
func (b *nftBackend) drops() (Drops, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var d Drops
	if err := b.connect(); err != nil {
		return d, err
	}
	for group := range b.groups {
		rules, err := b.conn.GetRules(b.table, &nftables.Chain{Name: gateChain(group), Table: b.table})
		if err != nil {
			b.disconnect()
			return d, fmt.Errorf("nft: read counters: %w", err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					d.Total += c.Packets
				}
			}
		}
	}
	return d, nil
}
