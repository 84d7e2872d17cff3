package trial

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// Setup says how the lab is built and what is observed.
type Setup struct {
	// PeerNetwork has the nodes talk to each other over a network of their own.
	PeerNetwork bool
	// V4 and V6 are how many addresses of each family there are, up to 1000 of
	// each; both zero mean one of each. keepalived needs an IPv4 one to speak at all,
	// so V4 is 1 at least.
	V4, V6 int
	// Instances gives each address a vrrp_instance of its own, up to 250.
	Instances bool
	// Separate gives each instance an owner of its own, where the product can: raftvip with
	// ownership separate, keepalived without a vrrp_sync_group. Spread has the nodes take
	// turns at being the best one for an instance; else the first is for all.
	Separate, Spread bool
	// Check gives each node a check script that fails when [System.Break] says so.
	Check bool
	// Spare gives the lab a machine that can become a node.
	Spare bool
	// Interval is how often prober and client ask; 0 is a millisecond.
	Interval time.Duration
}

// mostProbed bounds how many addresses of a family the prober asks for. Each
// question goes to every host of the lab, so many of them would be all that the
// machine does, and what takes over would wait for it.
const mostProbed = 3

// addresses returns all virtual addresses, the IPv4 ones first. More than one of a
// family are outside the range that the lab keeps free, in a larger subnet.
func (s Setup) addresses(lab *testnet.Lab) []netip.Addr {
	v4, v6 := s.counts()
	many := func(one netip.Addr, n int, nth func(i int) netip.Addr) []netip.Addr {
		if n == 1 {
			return []netip.Addr{one}
		}
		var as []netip.Addr
		for i := range n {
			as = append(as, nth(i))
		}
		return as
	}
	out := many(lab.VIP4(100), v4, func(i int) netip.Addr {
		b := lab.VIP4(100).As4()
		b[2], b[3] = byte(1+i/250), byte(1+i%250)
		return netip.AddrFrom4(b)
	})
	return append(out, many(lab.VIP6(100), v6, func(i int) netip.Addr {
		b := lab.VIP6(100).As16()
		b[13], b[14], b[15] = 1, byte((i+1)>>8), byte(i+1)
		return netip.AddrFrom16(b)
	})...)
}

func (s Setup) counts() (v4, v6 int) {
	if s.V4 == 0 && s.V6 == 0 {
		return 1, 1
	}
	return max(1, s.V4), s.V6
}

// spread returns at most n of the addresses, evenly, the first and the last
// among them.
func spread(as []netip.Addr, n int) []netip.Addr {
	if len(as) <= n {
		return as
	}
	var out []netip.Addr
	for i := range n {
		out = append(out, as[i*(len(as)-1)/(n-1)])
	}
	return out
}

// bits is the prefix length of the front network.
func (r *Rig) bits(a netip.Addr) int {
	switch {
	case a.Is6():
		return 64
	case len(r.Addresses) > 2:
		return 16
	}
	return 24
}

func (r *Rig) interval() time.Duration {
	if r.Setup.Interval > 0 {
		return r.Setup.Interval
	}
	return testnet.DefaultWindow
}

// index is the number of the node, from 0.
func (r *Rig) index(h *testnet.Host) int { return slices.Index(r.Lab.Nodes(), h) }

// checkInterval is how often a check script runs: as often as keepalived can.
const checkInterval = time.Second

// instances writes the check script and the vrrp_instance blocks of a node's file,
// the same for both products; about is what else stands in each of them.
func (r *Rig) instances(b *strings.Builder, h *testnet.Host, priority int, first bool, about string) {
	if r.Setup.Check {
		fmt.Fprintf(b, "vrrp_script well {\n    script \"/usr/bin/test -e %s\"\n    interval %g\n    fall 1\n    rise 1\n}\n", r.checkFile(h), checkInterval.Seconds())
	}
	state := "BACKUP"
	if first {
		state = "MASTER"
	}
	groups := [][]netip.Addr{r.Addresses}
	if r.Setup.Instances {
		groups = nil
		for _, a := range r.Addresses {
			groups = append(groups, []netip.Addr{a})
		}
		if !r.Setup.Separate {
			b.WriteString("vrrp_sync_group G {\n    group {\n")
			for i := range groups {
				fmt.Fprintf(b, "        V%d\n", i+1)
			}
			b.WriteString("    }\n}\n")
		}
	}
	base := priority
	for i, as := range groups {
		if r.Setup.Spread {
			state, priority = "BACKUP", base
			if r.bestFor(i) == h {
				state, priority = "MASTER", vrrpBase+vrrpStep
			}
		}
		fmt.Fprintf(b, "vrrp_instance V%d {\n    state %s\n    interface %v\n    virtual_router_id %d\n    priority %d\n%s", i+1, state, r.Peers(), i+1, priority, about)
		if r.Setup.Check {
			b.WriteString("    track_script {\n        well\n    }\n")
		}
		// An advertisement has room for few addresses, all of one family.
		b.WriteString("    virtual_ipaddress {\n")
		for j, a := range as {
			if j == 1 {
				b.WriteString("    }\n    virtual_ipaddress_excluded {\n")
			}
			fmt.Fprintf(b, "        %v/%d dev %v\n", a, r.bits(a), testnet.Front)
		}
		b.WriteString("    }\n}\n")
	}
}

// bestFor is the node that is to have an instance, by its number from 0, where they are
// spread.
func (r *Rig) bestFor(instance int) *testnet.Host {
	nodes := r.Lab.Nodes()
	return nodes[instance%len(nodes)]
}

// checkFile is what the check script of a node looks for.
func (r *Rig) checkFile(h *testnet.Host) string {
	return filepath.Join(r.Lab.Dir(), h.Name()+"-well")
}

func (r *Rig) breakCheck(h *testnet.Host) error { return os.Remove(r.checkFile(h)) }

func (r *Rig) mendCheck(h *testnet.Host) error {
	f, err := os.OpenFile(r.checkFile(h), os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mend check of %s: %w", h, err)
	}
	return f.Close()
}
