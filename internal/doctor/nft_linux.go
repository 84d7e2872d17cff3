package doctor

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
)

// readRules reads the rules of all tables that judge IP packets. It needs
// CAP_NET_ADMIN.
func readRules() (ruleset, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = conn.CloseLasting() }()
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var out ruleset
	sets := make(map[string]*ruleChain) // by table: whoever has its sets
	for _, c := range chains {
		switch c.Table.Family {
		case nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyNetdev:
		default:
			continue
		}
		r := &ruleChain{Chain: c}
		if r.rules, err = conn.GetRules(c.Table, c); err != nil {
			return nil, fmt.Errorf("list rules of %s: %w", r.where(), err)
		}
		key := familyName(c.Table.Family) + " " + c.Table.Name
		if sets[key] == nil {
			sets[key] = r
			if err := r.readSets(conn); err != nil {
				return nil, err
			}
		}
		r.sets, r.intervals = sets[key].sets, sets[key].intervals
		out = append(out, r)
	}
	return out, nil
}

// readSets reads the sets of the chain's table, as far as their keys are plain.
func (c *ruleChain) readSets(conn *nftables.Conn) error {
	c.sets, c.intervals = make(map[string][]nftables.SetElement), make(map[string]bool)
	sets, err := conn.GetSets(c.Table)
	if err != nil {
		return fmt.Errorf("list sets of %s: %w", c.where(), err)
	}
	for _, s := range sets {
		if s.Concatenation {
			continue
		}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("list set %s of %s: %w", s.Name, c.where(), err)
		}
		c.sets[s.Name], c.intervals[s.Name] = elements, s.Interval
	}
	return nil
}

// legacyTables returns the tables of iptables-legacy in this network namespace, which
// only iptables-legacy itself can read.
func legacyTables() []string {
	var out []string
	for _, f := range []struct{ family, file string }{
		{"ip", "/proc/net/ip_tables_names"}, {"ip6", "/proc/net/ip6_tables_names"},
	} {
		b, err := os.ReadFile(f.file)
		if err != nil {
			continue // the module is not loaded
		}
		for _, table := range strings.Fields(string(b)) {
			if table != "nat" && len(out) < maxTexts/8 {
				out = append(out, f.family+" "+Clean(table))
			}
		}
	}
	return out
}
