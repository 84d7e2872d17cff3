package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An estate is what a dead process of an instance has left in the kernel.
type estate struct {
	// guarded: a mechanism that judges packets is in place, whose armed addresses are
	// addrs, as far as they could be read.
	guarded bool
	addrs   []netip.Addr
	// until is when the last lease of an armed address ends, on CLOCK_BOOTTIME; 0 if
	// there is none. It is not known if unread is not nil.
	until  time.Duration
	unread error // why not all could be read
}

// add takes over what one mechanism has left.
func (e *estate) add(addrs []netip.Addr, until time.Duration) {
	e.guarded = true
	for _, a := range addrs {
		if a = a.Unmap(); a.IsValid() && !slices.Contains(e.addrs, a) {
			e.addrs = append(e.addrs, a)
		}
	}
	e.until = max(e.until, until)
}

// survey reads what earlier processes of an instance left, by whatever mechanism.
func survey(nl *netlink.Handle, ns *netNS, pinDir, instance string, now func() time.Duration) estate {
	var e estate
	noted := false // somewhere in a bpffs, which is enough for filters too
	var errs []error
	for _, b := range pinBases(pinDir) {
		addrs, until, found, err := pinnedEstate(filepath.Join(b.dir, instanceDir(instance, ns.inode)))
		if found {
			e.add(addrs, until)
		}
		noted = noted || found && err == nil
		errs = append(errs, err)
	}
	program, found, err := clsactProgram(nl, instance)
	if found {
		var addrs []netip.Addr
		var until time.Duration
		if addrs, until, err = programEstate(program); err != nil && noted {
			err = nil
		}
		e.add(addrs, until)
	}
	errs = append(errs, err)
	addrs, left, found, err := nftEstate(ns, nftTableName(instance))
	if found {
		until := time.Duration(0)
		if left > 0 {
			until = now() + left
		}
		e.add(addrs, until)
	}
	e.unread = errors.Join(append(errs, err)...)
	return e
}

// inherit returns the addresses that must be shut from the first instant: those
// that an earlier process of this instance left armed, by whatever mechanism, or
// that the caller names, if they are on an interface now. Otherwise exchanging its
// programs for ours, which know no address yet, would open the gate for the
// addresses it left.
func (g *Guard) inherit() ([]netip.Addr, error) {
	e := survey(g.nl, g.ns, g.opts.PinDir, g.opts.Instance, g.opts.Now)
	candidates := slices.Concat(g.opts.Leftovers, e.addrs)
	if len(candidates) == 0 {
		return nil, e.unread
	}
	present, err := presentAddresses(g.nl)
	var out []netip.Addr
	for _, a := range candidates {
		if a = a.Unmap().WithZone(""); a.IsValid() && (err != nil || present[a]) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, errors.Join(e.unread, err)
}

// pinnedEstate reads the pin directory of an earlier process: the maps that it
// pinned, else those of the programs of its links.
func pinnedEstate(dir string) (addrs []netip.Addr, until time.Duration, found bool, err error) {
	if m, err := ebpf.LoadPinnedMap(filepath.Join(dir, vipsPin), nil); err == nil {
		defer m.Close()
		d, err := ebpf.LoadPinnedMap(filepath.Join(dir, deadlinesPin), nil)
		if err != nil {
			addrs, _, readErr := mapsEstate(m, nil)
			return addrs, 0, true, errors.Join(fmt.Errorf("bpf: deadlines of an earlier process: %w", err), readErr)
		}
		defer d.Close()
		addrs, until, err = mapsEstate(m, d)
		return addrs, until, true, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, false, nil
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
			addrs, until, err = programEstate(info.Program)
			return addrs, until, true, err
		}
	}
	return nil, 0, false, nil
}

// programEstate is mapsEstate of the maps of a program of an earlier process. The
// kernel opens objects by number for CAP_SYS_ADMIN only.
func programEstate(id ebpf.ProgramID) ([]netip.Addr, time.Duration, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, 0, fmt.Errorf("bpf: open program %d of an earlier process: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, 0, fmt.Errorf("bpf: program %d: %w", id, err)
	}
	var vips, deadlines *ebpf.Map
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, 0, fmt.Errorf("bpf: open map %d of an earlier process: %w", id, err)
		}
		defer m.Close()
		switch m.Type() {
		case ebpf.Hash:
			vips = m
		case ebpf.Array:
			deadlines = m
		}
	}
	if vips == nil {
		return nil, 0, nil // The program of a virtual MAC has no addresses.
	}
	return mapsEstate(vips, deadlines)
}

// mapsEstate returns the armed addresses in the maps of an earlier process and the
// latest deadline among their groups.
func mapsEstate(vips, deadlines *ebpf.Map) (addrs []netip.Addr, until time.Duration, err error) {
	if vips.KeySize() != 16 || vips.ValueSize() != vipsEntryGroup {
		return nil, 0, errors.New("bpf: not an address map of raftvip")
	}
	var (
		key    [16]byte
		group  uint32
		groups = map[uint32]bool{}
	)
	it := vips.Iterate()
	for it.Next(&key, &group) {
		addrs = append(addrs, netip.AddrFrom16(key).Unmap())
		groups[group] = true
	}
	if err := it.Err(); err != nil {
		return addrs, 0, fmt.Errorf("bpf: read address map: %w", err)
	}
	if deadlines == nil {
		return addrs, 0, nil
	}
	for group := range groups {
		var at uint64
		if err := deadlines.Lookup(group, &at); err != nil {
			return addrs, 0, fmt.Errorf("bpf: read deadline of group %d: %w", group, err)
		}
		until = max(until, time.Duration(at))
	}
	return addrs, until, nil
}

// listAddresses lists the addresses of the namespace, or of one link.
func listAddresses(nl *netlink.Handle, on netlink.Link) (list []netlink.Addr, err error) {
	for range 5 {
		if list, err = nl.AddrList(on, unix.AF_UNSPEC); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// presentAddresses returns all addresses on interfaces of the namespace.
func presentAddresses(nl *netlink.Handle) (map[netip.Addr]bool, error) { return addressesOn(nl, nil) }

// addressesOn returns the addresses on one link, or on all.
func addressesOn(nl *netlink.Handle, on netlink.Link) (map[netip.Addr]bool, error) {
	list, err := listAddresses(nl, on)
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out[ip.Unmap()] = true
		}
	}
	return out, nil
}

// stillThere returns those of the addresses that are on an interface, sorted. What
// cannot be found out is there.
func stillThere(nl *netlink.Handle, addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	present, err := presentAddresses(nl)
	var out []netip.Addr
	for _, a := range addrs {
		if err != nil || present[a] {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
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
