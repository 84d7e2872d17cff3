package guard

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// filterPrefix begins the name of every filter of raftvip.
	filterPrefix = "raftvip/"
	// ownQdisc ends the name of a filter on a qdisc that raftvip made, and may
	// therefore delete when it is empty. It must outlive the process, and a qdisc has
	// no room for a note.
	ownQdisc = "+qdisc"
	// filterPriority is the first there is.
	filterPriority = 1
)

// A clsactAttacher attaches by cls_bpf filters in direct-action mode (Linux 4.5 by
// its documentation). They stay when the process dies and need no bpffs, but go
// when anybody deletes the qdisc.
type clsactAttacher struct {
	nl       *netlink.Handle
	instance string
	// pins are where the maps are noted for a later process, which may not be
	// permitted to read them through the filters; nil if there is no bpffs.
	pins   *pinDir
	qdiscs map[int]bool // by interface: made by raftvip
	held   map[hook]bool

	mu    sync.Mutex
	progs map[hook]int // program in the filter
}

func newClsactAttacher(nl *netlink.Handle, instance string, pins *pinDir) *clsactAttacher {
	return &clsactAttacher{nl: nl, instance: instance, pins: pins, qdiscs: map[int]bool{}, held: map[hook]bool{}, progs: map[hook]int{}}
}

// note notes the program of a hook; 0 is none.
func (a *clsactAttacher) note(k hook, id int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id == 0 {
		delete(a.progs, k)
	} else {
		a.progs[k] = id
	}
}

func (a *clsactAttacher) attached(ifindex int, dir direction) error {
	a.mu.Lock()
	id := a.progs[hook{ifindex, dir}]
	a.mu.Unlock()
	if id == 0 {
		return errNotAttached
	}
	filters, err := clsactFilters(a.nl, ifindex, dir)
	if err != nil {
		return err
	}
	if f, ok := firstFilter(filters, a.instance).(*netlink.BpfFilter); !ok || f.Id != id {
		return errNotAttached
	}
	return nil
}

// firstFilter returns the first filter, not counting other instances of raftvip:
// they either drop a packet or hand it on.
func firstFilter(filters []netlink.Filter, instance string) netlink.Filter {
	for _, f := range filters {
		if inst, _ := filterInstance(f); inst == "" || inst == instance {
			return f
		}
	}
	return nil
}

func clsactParent(dir direction) uint32 {
	if dir == ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// filterHandle is the first handle of an instance. Others use small numbers, and
// replacing a filter with their handle would evict it.
func filterHandle(instance string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(instance))
	return 0x72760000 | h.Sum32()&0xfff0
}

// filterInstance returns the instance that a filter belongs to, "" for a filter of
// somebody else.
func filterInstance(f netlink.Filter) (instance string, madeQdisc bool) {
	b, ok := f.(*netlink.BpfFilter)
	if !ok {
		return "", false
	}
	name, ok := strings.CutPrefix(b.Name, filterPrefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, ownQdisc)
}

// filters lists the filters of a hook in the order in which they run, only chain 0.
func clsactFilters(nl *netlink.Handle, ifindex int, dir direction) ([]netlink.Filter, error) {
	all, err := nl.FilterList(linkByIndex(ifindex), clsactParent(dir))
	if err != nil {
		return nil, fmt.Errorf("tc: list filters: %w", err)
	}
	var out []netlink.Filter
	for _, f := range all {
		at := f.Attrs()
		if at.Handle != 0 && (at.Chain == nil || *at.Chain == 0) { // Handle 0 is the head of a priority.
			out = append(out, f)
		}
	}
	return out, nil
}

// linkByIndex is enough of a link for calls that only look at the index.
func linkByIndex(ifindex int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

func (a *clsactAttacher) ensure(dev device, dir direction, p *program) (change, error) {
	c, err := a.ensureFilter(dev, dir, p)
	if err != nil {
		return c, fmt.Errorf("%s %s: %w", dev.name, dir, err)
	}
	info, err := p.Info()
	if err != nil {
		return c, fmt.Errorf("program info: %w", err)
	}
	id, _ := info.ID()
	a.note(hook{dev.index, dir}, int(id))
	return c, nil
}

func (a *clsactAttacher) ensureFilter(dev device, dir direction, p *program) (change, error) {
	k := hook{dev.index, dir}
	if err := a.ensureQdisc(dev.index); err != nil {
		return unchanged, err
	}
	info, err := p.Info()
	if err != nil {
		return unchanged, fmt.Errorf("program info: %w", err)
	}
	id, _ := info.ID()
	filters, err := clsactFilters(a.nl, dev.index, dir)
	if err != nil {
		return unchanged, err
	}
	used := map[uint32]bool{}
	var mine []*netlink.BpfFilter
	for _, f := range filters {
		used[f.Attrs().Handle] = true
		if inst, _ := filterInstance(f); inst == a.instance {
			mine = append(mine, f.(*netlink.BpfFilter))
		}
	}
	if len(mine) == 1 && firstFilter(filters, a.instance) == netlink.Filter(mine[0]) {
		if mine[0].Id == int(id) {
			return unchanged, nil
		}
		// The exchange is atomic.
		if err := a.replace(dev.index, dir, p, mine[0].Handle); err != nil {
			return unchanged, err
		}
		a.held[k] = true
		return adopted, nil
	}
	// The kernel puts a new filter before the others of its priority. The old ones go
	// after it has come, so there is no gap.
	handle := filterHandle(a.instance)
	for used[handle] {
		handle++
	}
	if err := a.replace(dev.index, dir, p, handle); err != nil {
		return unchanged, err
	}
	for _, f := range mine {
		if err := a.nl.FilterDel(f); err != nil {
			return repaired, fmt.Errorf("tc: delete overtaken filter: %w", err)
		}
	}
	if a.held[k] || len(mine) > 0 {
		a.held[k] = true
		return repaired, nil
	}
	a.held[k] = true
	return attached, nil
}

// ensureQdisc adds the clsact qdisc if the device has none.
func (a *clsactAttacher) ensureQdisc(ifindex int) error {
	qdiscs, err := a.nl.QdiscList(linkByIndex(ifindex))
	if err != nil {
		return fmt.Errorf("tc: list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		switch q.Type() {
		case "clsact":
			if _, known := a.qdiscs[ifindex]; !known {
				made, err := a.qdiscIsOurs(ifindex)
				a.qdiscs[ifindex] = made
				return err
			}
			return nil
		case "ingress":
			return errors.New("tc: a qdisc of type ingress is in the place of clsact")
		}
	}
	if err := a.nl.QdiscAdd(&netlink.Clsact{QdiscAttrs: clsactAttrs(ifindex)}); err != nil {
		return fmt.Errorf("tc: add qdisc clsact: %w", err)
	}
	a.qdiscs[ifindex] = true
	return nil
}

func clsactAttrs(ifindex int) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
}

// qdiscIsOurs says whether any filter of raftvip on the qdisc carries the note that
// raftvip made it.
func (a *clsactAttacher) qdiscIsOurs(ifindex int) (bool, error) {
	for _, dir := range []direction{ingress, egress} {
		fs, err := clsactFilters(a.nl, ifindex, dir)
		if err != nil {
			return false, err
		}
		for _, f := range fs {
			if _, made := filterInstance(f); made {
				return true, nil
			}
		}
	}
	return false, nil
}

func (a *clsactAttacher) replace(ifindex int, dir direction, p *program, handle uint32) error {
	name := filterPrefix + a.instance
	if a.qdiscs[ifindex] {
		name += ownQdisc
	}
	err := a.nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    clsactParent(dir),
			Handle:    handle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority,
		},
		Fd:           p.FD(),
		Name:         name,
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("tc: put filter at priority %d: %w", filterPriority, err)
	}
	return nil
}

func (a *clsactAttacher) detach(ifindex int, dir direction, gone bool) error {
	if !a.held[hook{ifindex, dir}] {
		return nil
	}
	delete(a.held, hook{ifindex, dir})
	a.note(hook{ifindex, dir}, 0)
	if gone {
		delete(a.qdiscs, ifindex)
		return nil
	}
	if err := removeFilters(a.nl, ifindex, dir, func(inst string) bool { return inst == a.instance }); err != nil {
		return err
	}
	if a.held[hook{ifindex, ingress}] || a.held[hook{ifindex, egress}] {
		return nil
	}
	made := a.qdiscs[ifindex]
	delete(a.qdiscs, ifindex)
	return removeQdisc(a.nl, ifindex, made)
}

// removeFilters deletes the filters of raftvip whose instance matches.
func removeFilters(nl *netlink.Handle, ifindex int, dir direction, match func(instance string) bool) error {
	fs, err := clsactFilters(nl, ifindex, dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range fs {
		if inst, _ := filterInstance(f); inst == "" || !match(inst) {
			continue
		}
		if err := nl.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("tc: delete filter on interface %d: %w", ifindex, err))
		}
	}
	return errors.Join(errs...)
}

// removeQdisc deletes the clsact qdisc if raftvip made it and nobody uses it.
func removeQdisc(nl *netlink.Handle, ifindex int, made bool) error {
	if !made {
		return nil
	}
	for _, dir := range []direction{ingress, egress} {
		fs, err := clsactFilters(nl, ifindex, dir)
		if err != nil {
			return err
		}
		if len(fs) > 0 {
			return nil
		}
	}
	err := nl.QdiscDel(&netlink.Clsact{QdiscAttrs: clsactAttrs(ifindex)})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("tc: delete qdisc of interface %d: %w", ifindex, err)
	}
	return nil
}

// finish removes what an earlier process left on devices that are not wanted now.
func (a *clsactAttacher) finish(m *gateMaps) error {
	if a.pins != nil {
		// Without the note a later process has to ask for more rights, or to be told.
		if err := a.pins.pinMaps(m); err != nil {
			_ = a.pins.remove()
			a.pins = nil
		}
	}
	return removeClsact(a.nl, func(ifindex int, inst string) bool {
		_, wanted := a.qdiscs[ifindex]
		return inst == a.instance && !wanted
	})
}

// removeClsact removes, on all devices, the filters of raftvip that match, and the
// qdiscs that it made.
func removeClsact(nl *netlink.Handle, match func(ifindex int, instance string) bool) error {
	links, err := listLinks(nl)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		ifindex := l.Attrs().Index
		var found, made bool
		for _, dir := range []direction{ingress, egress} {
			fs, err := clsactFilters(nl, ifindex, dir)
			if err != nil {
				continue // No clsact, or the device is gone.
			}
			for _, f := range fs {
				inst, m := filterInstance(f)
				made = made || m
				found = found || inst != "" && match(ifindex, inst)
			}
		}
		if !found {
			continue
		}
		for _, dir := range []direction{ingress, egress} {
			errs = append(errs, removeFilters(nl, ifindex, dir, func(inst string) bool { return match(ifindex, inst) }))
		}
		errs = append(errs, removeQdisc(nl, ifindex, made))
	}
	return errors.Join(errs...)
}

func (a *clsactAttacher) close() error {
	var errs []error
	for ifindex := range a.qdiscs {
		_, err := a.nl.LinkByIndex(ifindex)
		gone := errors.As(err, &netlink.LinkNotFoundError{})
		errs = append(errs, a.detach(ifindex, ingress, gone), a.detach(ifindex, egress, gone))
	}
	if a.pins != nil {
		errs = append(errs, a.pins.remove())
	}
	return errors.Join(errs...)
}

// abandon has nothing to let go of: filters need no descriptor.
func (a *clsactAttacher) abandon() {}

// clsactProgram returns a program that a filter of an instance, left by an earlier
// process, runs; false if there is no filter of it.
func clsactProgram(nl *netlink.Handle, instance string) (ebpf.ProgramID, bool, error) {
	links, err := listLinks(nl)
	if err != nil {
		return 0, false, err
	}
	for _, l := range links {
		for _, dir := range []direction{ingress, egress} {
			fs, err := clsactFilters(nl, l.Attrs().Index, dir)
			if err != nil {
				continue
			}
			for _, f := range fs {
				if inst, _ := filterInstance(f); inst == instance {
					return ebpf.ProgramID(f.(*netlink.BpfFilter).Id), true, nil
				}
			}
		}
	}
	return 0, false, nil
}
