package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inherit returns the addresses that must be shut from the first instant: those
// that an earlier process of this instance left armed, by whatever mechanism, or
// that the caller names, if they are on an interface now. Otherwise exchanging its
// programs for ours, which know no address yet, would open the gate for the
// addresses it left.
func (g *Guard) inherit() ([]netip.Addr, error) {
	candidates := append([]netip.Addr(nil), g.opts.Leftovers...)
	var errs []error
	for _, b := range pinBases(g.opts.PinDir) {
		a, err := pinnedAddresses(filepath.Join(b.dir, instanceDir(g.opts.Instance, g.ns.inode)))
		candidates = append(candidates, a...)
		errs = append(errs, err)
	}
	a, err := clsactAddresses(g.nl, g.opts.Instance)
	candidates = append(candidates, a...)
	errs = append(errs, err)
	a, err = nftAddresses(g.ns, nftTableName(g.opts.Instance))
	candidates = append(candidates, a...)
	errs = append(errs, err)
	if len(candidates) == 0 {
		return nil, errors.Join(errs...)
	}
	present, err := presentAddresses(g.nl)
	errs = append(errs, err)
	var out []netip.Addr
	for _, a := range candidates {
		if a.IsValid() && (err != nil || present[a.Unmap()]) {
			out = append(out, a.Unmap())
		}
	}
	return out, errors.Join(errs...)
}

// pinnedAddresses reads the armed addresses from the pin directory of an earlier
// process: from the map it pinned, else through the programs of its links.
func pinnedAddresses(dir string) ([]netip.Addr, error) {
	if m, err := ebpf.LoadPinnedMap(filepath.Join(dir, vipsPin), nil); err == nil {
		defer m.Close()
		return addressesOf(m)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "link_") {
			continue
		}
		lk, err := link.LoadPinnedLink(filepath.Join(dir, e.Name()), nil)
		if err != nil {
			continue
		}
		info, err := lk.Info()
		lk.Close()
		if err == nil {
			return programAddresses(info.Program)
		}
	}
	return nil, nil
}

// programAddresses returns the armed addresses in the maps of a program of an
// earlier process. The kernel opens objects by number for CAP_SYS_ADMIN only.
func programAddresses(id ebpf.ProgramID) ([]netip.Addr, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("bpf: open program %d of an earlier process: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("bpf: program %d: %w", id, err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, fmt.Errorf("bpf: open map %d of an earlier process: %w", id, err)
		}
		if m.Type() == ebpf.Hash {
			defer m.Close()
			return addressesOf(m)
		}
		m.Close()
	}
	return nil, nil
}

// presentAddresses returns all addresses on interfaces of the namespace.
func presentAddresses(nl *netlink.Handle) (map[netip.Addr]bool, error) {
	var (
		list []netlink.Addr
		err  error
	)
	for range 5 {
		if list, err = nl.AddrList(nil, unix.AF_UNSPEC); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out[ip.Unmap()] = true
		}
	}
	return out, nil
}

// sweep disarms inherited addresses that have gone from all interfaces: an entry
// must outlive its address, but no longer, or a router would drop what it forwards
// to the new owner.
func (g *Guard) sweep() error {
	if len(g.inheritedNow()) == 0 {
		return nil
	}
	present, err := presentAddresses(g.nl)
	if err != nil {
		return err
	}
	g.arming.Lock()
	defer g.arming.Unlock()
	var errs []error
	for a, group := range g.armed {
		if group != slotInherited || present[a] {
			continue
		}
		if err := g.backend.disarm(slotInherited, []netip.Addr{a}); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(g.armed, a)
	}
	return errors.Join(errs...)
}

// inheritedNow returns the inherited addresses that nobody has armed or freed since.
func (g *Guard) inheritedNow() []netip.Addr {
	g.arming.Lock()
	defer g.arming.Unlock()
	var out []netip.Addr
	for a, group := range g.armed {
		if group == slotInherited {
			out = append(out, a)
		}
	}
	return out
}
