package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MaxGroups is the number of groups; valid group numbers are below it.
const MaxGroups = 500

// MaxAddresses is the number of addresses that can be armed at once.
const MaxAddresses = 8192

// The deadline array is one page. Slots above MaxGroups are the package's own.
const (
	slots          = 512
	slotInherited  = 510 // addresses armed by an earlier process; always shut
	slotSelfTest   = 511
	cellsSize      = slots * 8
	vipsEntryGroup = 4
)

// gateMaps are the maps of the eBPF gate.
type gateMaps struct {
	vips      *ebpf.Map // address (16 bytes, IPv4 mapped) -> group
	deadlines *ebpf.Map // group -> deadline, ns of CLOCK_BOOTTIME
	drops     *ebpf.Map // direction -> packets, per CPU
	cells     *[slots]uint64
}

func newGateMaps() (_ *gateMaps, err error) {
	m := &gateMaps{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	create := func(spec ebpf.MapSpec) (*ebpf.Map, error) {
		mp, err := ebpf.NewMap(&spec)
		if err != nil {
			return nil, fmt.Errorf("bpf: create map %s: %w", spec.Name, err)
		}
		return mp, nil
	}
	// The hash is allocated at once (about 0.5 MiB), so that arming cannot fail for
	// want of memory during a takeover.
	if m.vips, err = create(ebpf.MapSpec{Name: "raftvip_addr", Type: ebpf.Hash, KeySize: 16, ValueSize: vipsEntryGroup, MaxEntries: MaxAddresses}); err != nil {
		return nil, err
	}
	if m.deadlines, err = create(ebpf.MapSpec{Name: "raftvip_dline", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: slots, Flags: unix.BPF_F_MMAPABLE}); err != nil {
		return nil, err
	}
	if m.drops, err = create(ebpf.MapSpec{Name: "raftvip_drops", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 2}); err != nil {
		return nil, err
	}
	p, err := unix.MmapPtr(m.deadlines.FD(), 0, nil, cellsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("bpf: mmap deadlines: %w", err)
	}
	m.cells = (*[slots]uint64)(p)
	return m, nil
}

// setDeadline is one atomic store: no call, no lock. (Map.Memory of the library is
// a copy without such a promise.)
func (m *gateMaps) setDeadline(slot uint32, sinceBoot time.Duration) {
	atomic.StoreUint64(&m.cells[slot], uint64(max(sinceBoot, 0)))
}

func (m *gateMaps) put(a netip.Addr, slot uint32) error {
	if err := m.vips.Put(a.As16(), slot); err != nil {
		return fmt.Errorf("bpf: arm %s: %w", a, err)
	}
	return nil
}

// putAll is put of many with one system call: a takeover waits for it. Kernels
// before 5.6 need one for each.
func (m *gateMaps) putAll(addrs []netip.Addr, slot uint32) error {
	if len(addrs) > 1 {
		keys, values := make([][16]byte, len(addrs)), make([]uint32, len(addrs))
		for i, a := range addrs {
			keys[i], values[i] = a.As16(), slot
		}
		_, err := m.vips.BatchUpdate(keys, values, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("bpf: arm %d addresses: %w", len(addrs), err)
		}
	}
	for _, a := range addrs {
		if err := m.put(a, slot); err != nil {
			return err
		}
	}
	return nil
}

func (m *gateMaps) remove(a netip.Addr) error {
	if err := m.vips.Delete(a.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("bpf: disarm %s: %w", a, err)
	}
	return nil
}

// dropped returns the number of dropped packets of one direction.
func (m *gateMaps) dropped(dir direction) (uint64, error) {
	var per []uint64
	if err := m.drops.Lookup(uint32(dir), &per); err != nil {
		return 0, fmt.Errorf("bpf: read drop counter: %w", err)
	}
	var sum uint64
	for _, n := range per {
		sum += n
	}
	return sum, nil
}

// resetDrops sets the drop counters to 0, after the self-test.
func (m *gateMaps) resetDrops() error {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	for _, dir := range []direction{ingress, egress} {
		if err := m.drops.Put(uint32(dir), make([]uint64, n)); err != nil {
			return fmt.Errorf("bpf: reset drop counter: %w", err)
		}
	}
	return nil
}

// close lets go of the maps; attached programs keep their own reference. A
// setDeadline that is still running, or comes later, must not fault: the page is
// replaced by plain memory in one step and never unmapped.
func (m *gateMaps) close() {
	if m.cells != nil {
		_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(m.cells), cellsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
		_ = err // The old page stays then, which is as safe.
	}
	for _, mp := range []*ebpf.Map{m.vips, m.deadlines, m.drops} {
		if mp != nil {
			mp.Close()
		}
	}
}
