package testnet

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// path is one direction between two ports of the switch, by ifindex.
type path struct{ from, to int }

// filter drops frames on the way from one port of the switch to another: an
// nftables set of (in, out) pairs looked up in the bridge's forward hook. Every
// frame passes it once for each port it leaves by, flooded ones and those of
// established connections too, and a dropped one is gone without a sound.
type filter struct {
	conn *nftables.Conn
	set  *nftables.Set
}

func newFilter(sw *Host) (*filter, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(sw.ns)), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	f := &filter{conn: conn}
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "faults"})
	accept := nftables.ChainPolicyAccept
	c := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	key, err := nftables.ConcatSetType(nftables.TypeIFIndex, nftables.TypeIFIndex)
	if err != nil {
		return nil, fmt.Errorf("make nftables key: %w", err)
	}
	// The library draws numbers from an unguarded global where none is given, and
	// labs are built in parallel. It only has to be unique in one transaction.
	f.set = &nftables.Set{Table: t, ID: 1, Name: "cut", KeyType: key, Concatenation: true}
	if err := conn.AddSet(f.set, nil); err != nil {
		return nil, fmt.Errorf("add nftables set: %w", err)
	}
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: unix.NFT_REG32_00},
		&expr.Meta{Key: expr.MetaKeyOIF, Register: unix.NFT_REG32_01},
		&expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: f.set.Name, SetID: f.set.ID},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("install nftables rule: %w", err)
	}
	return f, nil
}

// change blocks and frees paths in one transaction: they change together.
func (f *filter) change(block, free []path) error {
	if len(block) == 0 && len(free) == 0 {
		return nil
	}
	if len(block) > 0 {
		if err := f.conn.SetAddElements(f.set, elements(block)); err != nil {
			return fmt.Errorf("block paths: %w", err)
		}
	}
	if len(free) > 0 {
		if err := f.conn.SetDeleteElements(f.set, elements(free)); err != nil {
			return fmt.Errorf("free paths: %w", err)
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("change blocked paths: %w", err)
	}
	return nil
}

func (f *filter) close() { _ = f.conn.CloseLasting() }

func elements(ps []path) []nftables.SetElement {
	var es []nftables.SetElement
	for _, p := range ps {
		k := binary.NativeEndian.AppendUint32(nil, uint32(p.from))
		es = append(es, nftables.SetElement{Key: binary.NativeEndian.AppendUint32(k, uint32(p.to))})
	}
	return es
}
