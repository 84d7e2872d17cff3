package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const nftTablePrefix = "raftvip_"

func nftTableName(instance string) string { return nftTablePrefix + instance }

// nftWriteRetry is the time after which a failed write of leases is tried again.
const nftWriteRetry = 5 * time.Millisecond

// An nftBackend guards by an nftables table of family netdev (egress hook: Linux
// 5.16 by its documentation). A lease is a set element that times out.
type nftBackend struct {
	ns      *netNS
	table   *nftables.Table
	now     func() time.Duration
	log     *slog.Logger
	damaged func(what string)

	// deadlines are the wanted ones, by group; dirty says that the kernel may have
	// another; latest is the latest that was ever wanted, so that after it no lease of
	// the kernel is left. They are all that setDeadline touches.
	deadlines [MaxGroups]atomic.Int64
	latest    [MaxGroups]atomic.Int64
	dirty     [MaxGroups]atomic.Bool
	wake      chan struct{}
	writer    chan struct{} // closed when the writer has ended
	quit      chan struct{} // closed to end it
	once      sync.Once

	// asked counts the questions of settle, by group; obeyed is the latest of them
	// after which the kernel was given what was wanted. news is closed, and made anew,
	// when that has grown.
	asked  [MaxGroups]atomic.Uint64
	obeyed [MaxGroups]atomic.Uint64
	newsMu sync.Mutex
	news   chan struct{}

	mu      sync.Mutex // all below, and the connection
	conn    *nftables.Conn
	armed   map[netip.Addr]uint32
	groups  map[uint32]bool // groups that have a gate
	devs    map[int]string  // interface -> name, as in the base chains
	timeout map[uint32]time.Duration
	ticket  uint16
}

// openNFT makes the table, with the inherited addresses shut in it, in place of
// one that an earlier process left, and tests that its timeouts work.
func openNFT(ns *netNS, opts Options, log *slog.Logger, damaged func(string), inherited []netip.Addr) (*nftBackend, error) {
	b := &nftBackend{
		ns:      ns,
		table:   &nftables.Table{Family: nftables.TableFamilyNetdev, Name: nftTableName(opts.Instance)},
		now:     opts.Now,
		log:     log,
		damaged: damaged,
		wake:    make(chan struct{}, 1),
		writer:  make(chan struct{}),
		quit:    make(chan struct{}),
		news:    make(chan struct{}),
		armed:   map[netip.Addr]uint32{},
		groups:  map[uint32]bool{},
		devs:    map[int]string{},
		timeout: map[uint32]time.Duration{},
	}
	for _, a := range inherited {
		b.armed[a] = slotInherited
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// The table of an earlier process goes in the same transaction in which ours
	// comes, and its devices are ours from the start.
	if err := b.rebuild(b.oldDevices()); err != nil {
		b.disconnect()
		return nil, err
	}
	if err := b.selfTest(); err != nil {
		if len(inherited) > 0 {
			b.disconnect() // The table keeps them shut, as that of the earlier process did.
			return nil, err
		}
		return nil, errors.Join(err, b.destroy())
	}
	go b.write()
	return b, nil
}

func (b *nftBackend) kind() Kind { return NFT }

// flush sends the batch as one transaction. After an error the connection is made
// anew, as acknowledgements may still wait in it.
func (b *nftBackend) flush(what string) error {
	if err := b.conn.Flush(); err != nil {
		b.disconnect()
		return fmt.Errorf("nft: %s: %w", what, err)
	}
	return nil
}

// connect opens the connection if there is none.
func (b *nftBackend) connect() error {
	if b.conn != nil {
		return nil
	}
	return b.ns.do(func() error {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("nft: open netlink: %w", err)
		}
		b.conn = c
		return nil
	})
}

func (b *nftBackend) disconnect() {
	if b.conn != nil {
		b.conn.CloseLasting()
		b.conn = nil
	}
}

// transact builds and sends one transaction.
func (b *nftBackend) transact(what string, build func() error) error {
	if err := b.connect(); err != nil {
		return err
	}
	if err := build(); err != nil {
		b.disconnect() // The connection keeps what was built.
		return fmt.Errorf("nft: %s: %w", what, err)
	}
	return b.flush(what)
}

func (b *nftBackend) arm(group uint32, addrs []netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for start := 0; start < len(addrs); start += nftChunk {
		part := addrs[start:min(start+nftChunk, len(addrs))]
		err := b.armChunk(group, part)
		if errors.Is(err, unix.ENOENT) {
			if err = b.restore("table missing"); err == nil {
				err = b.armChunk(group, part)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *nftBackend) armChunk(group uint32, addrs []netip.Addr) error {
	var moved, fresh []netip.Addr
	for _, a := range addrs {
		if old, ok := b.armed[a]; !ok {
			fresh = append(fresh, a)
		} else if old != group {
			moved = append(moved, a)
		}
	}
	if len(moved)+len(fresh) == 0 {
		return nil
	}
	err := b.transact(fmt.Sprintf("arm %d addresses of group %d", len(moved)+len(fresh), group), func() error {
		if !b.groups[group] {
			if err := b.addGate(group); err != nil {
				return err
			}
		}
		for _, a := range moved {
			if err := b.delAddresses(b.armed[a], []netip.Addr{a}); err != nil {
				return err
			}
		}
		return b.addAddresses(group, append(moved, fresh...))
	})
	if err != nil {
		return err
	}
	if !b.groups[group] {
		b.groups[group] = true
		b.touch(group) // A deadline set before had no place to go.
	}
	for _, a := range append(moved, fresh...) {
		b.armed[a] = group
	}
	return nil
}

func (b *nftBackend) disarm(_ uint32, addrs []netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for start := 0; start < len(addrs); start += nftChunk {
		err := b.disarmChunk(addrs[start:min(start+nftChunk, len(addrs))])
		if errors.Is(err, unix.ENOENT) {
			if err = b.restore("table missing"); err == nil {
				err = b.disarmChunk(addrs[start:min(start+nftChunk, len(addrs))])
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *nftBackend) disarmChunk(addrs []netip.Addr) error {
	byGroup := map[uint32][]netip.Addr{}
	for _, a := range addrs {
		if group, ok := b.armed[a]; ok {
			byGroup[group] = append(byGroup[group], a)
		}
	}
	if len(byGroup) == 0 {
		return nil
	}
	err := b.transact(fmt.Sprintf("disarm %d addresses", len(addrs)), func() error {
		for group, part := range byGroup {
			if err := b.delAddresses(group, part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, part := range byGroup {
		for _, a := range part {
			delete(b.armed, a)
		}
	}
	return nil
}

func (b *nftBackend) setDeadline(group uint32, sinceBoot time.Duration) {
	at := int64(max(sinceBoot, 0))
	for {
		latest := b.latest[group].Load()
		if at <= latest || b.latest[group].CompareAndSwap(latest, at) {
			break
		}
	}
	b.deadlines[group].Store(at)
	b.touch(group)
}

// touch asks the writer to write the deadline of a group.
func (b *nftBackend) touch(group uint32) {
	if group >= MaxGroups {
		return // The inherited addresses have no deadline.
	}
	b.dirty[group].Store(true)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// settle waits for the writer, who may wait for others' transactions, and no longer
// than the kernel can go on answering by itself.
func (b *nftBackend) settle(group uint32) {
	left := func() time.Duration { return time.Duration(b.latest[group].Load()) - b.now() }
	if left() <= 0 {
		return
	}
	asked := b.asked[group].Add(1)
	b.touch(group)
	for {
		b.newsMu.Lock()
		news := b.news
		b.newsMu.Unlock()
		wait := left()
		if b.obeyed[group].Load() >= asked || wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// answer notes that the kernel was given what was wanted for these groups when
// their questions were asked, or later.
func (b *nftBackend) answer(questions map[uint32]uint64, groups []uint32) {
	answered := false
	for _, group := range groups {
		if n, ok := questions[group]; ok && b.obeyed[group].Swap(n) != n {
			answered = true
		}
	}
	if !answered {
		return
	}
	b.newsMu.Lock()
	close(b.news)
	b.news = make(chan struct{})
	b.newsMu.Unlock()
}

// write is the writer: it hands deadlines to the kernel until quit is closed, of
// each group only the latest.
func (b *nftBackend) write() {
	defer close(b.writer)
	retry := time.NewTimer(0)
	defer retry.Stop()
	failing := false
	for {
		select {
		case <-b.quit:
			b.writeDirty() // A last 0 must not be lost.
			return
		case <-b.wake:
		case <-retry.C:
		}
		err := b.writeDirty()
		if err != nil {
			retry.Reset(nftWriteRetry)
		}
		if (err != nil) != failing {
			failing = err != nil
			if failing {
				b.log.Error("guard cannot write leases; addresses fall silent", "err", err)
			} else {
				b.log.Info("guard writes leases again")
			}
		}
	}
}

func (b *nftBackend) stopWriter() {
	b.once.Do(func() { close(b.quit) })
	<-b.writer
}

func (b *nftBackend) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// attached looks for the two chains of the device, which the kernel takes away with
// it. They are bound to its name.
func (b *nftBackend) attached(ifindex int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, ok := b.devs[ifindex]
	if !ok {
		return errNotAttached
	}
	now := ""
	if err := b.ns.do(func() error { now = ifName(ifindex); return nil }); err != nil {
		return err
	}
	if now != name {
		return fmt.Errorf("%w: interface %d was %q when it was attached to and is %q", errNotAttached, ifindex, name, now)
	}
	if err := b.connect(); err != nil {
		return err
	}
	for _, chain := range []string{inChain(ifindex), outChain(ifindex)} {
		if _, err := b.conn.ListChain(b.table, chain); err != nil {
			b.disconnect()
			return fmt.Errorf("nft: chain %s: %w", chain, err)
		}
	}
	return nil
}

func (b *nftBackend) ensure(dev device) (change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, err := b.chains()
	if err != nil {
		return unchanged, err
	}
	complete := have[inChain(dev.index)] && have[outChain(dev.index)]
	name, known := b.devs[dev.index]
	if complete && name == dev.name {
		return unchanged, nil
	}
	if len(have) == 0 {
		if err := b.restore("table missing"); err != nil {
			return unchanged, err
		}
		if _, known = b.devs[dev.index]; known {
			return repaired, nil
		}
		have = nil
	}
	err = b.transact("attach to "+dev.name, func() error {
		b.delDevice(dev.index, have)
		b.addDevice(dev.index, dev.name)
		return nil
	})
	if err != nil {
		return unchanged, err
	}
	b.devs[dev.index] = dev.name
	if known && name == dev.name {
		return repaired, nil
	}
	return attached, nil
}

func (b *nftBackend) detach(ifindex int, _ bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.devs[ifindex]; !ok {
		return nil
	}
	delete(b.devs, ifindex)
	have, err := b.chains() // The kernel may have removed them with the device.
	if err != nil {
		return err
	}
	return b.transact("detach", func() error {
		b.delDevice(ifindex, have)
		return nil
	})
}

func (b *nftBackend) finish() error       { return nil }
func (b *nftBackend) vmacSupported() bool { return false }

func (b *nftBackend) close() error {
	b.stopWriter()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.destroy()
}

func (b *nftBackend) abandon() {
	b.stopWriter()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disconnect()
}

// destroy deletes the table.
func (b *nftBackend) destroy() error {
	err := b.transact("delete table", func() error {
		b.conn.AddTable(b.table) // So that deleting cannot fail where it is missing.
		b.conn.DelTable(b.table)
		return nil
	})
	b.disconnect()
	return err
}

// withNFT calls fn with a connection of its own in the namespace.
func withNFT(ns *netNS, fn func(c *nftables.Conn) error) error {
	var c *nftables.Conn
	err := ns.do(func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return fmt.Errorf("nft: open netlink: %w", err)
	}
	defer c.CloseLasting()
	return fn(c)
}

// cleanTables deletes the tables of instances that match.
func cleanTables(ns *netNS, match func(instance string) bool) error {
	return withNFT(ns, func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
		if err != nil {
			return ignoreMissing(fmt.Errorf("nft: list tables: %w", err))
		}
		for _, t := range tables {
			if inst, ok := strings.CutPrefix(t.Name, nftTablePrefix); ok && match(inst) {
				c.DelTable(t)
			}
		}
		if err := c.Flush(); err != nil {
			return ignoreMissing(fmt.Errorf("nft: delete tables: %w", err))
		}
		return nil
	})
}

// ignoreMissing drops errors that mean that there is no nftables or nothing in it.
func ignoreMissing(err error) error {
	for _, none := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EINVAL} {
		if errors.Is(err, none) {
			return nil
		}
	}
	return err
}

// nftEstate returns the addresses armed in the table that an earlier process left,
// and for how long its last lease goes on.
func nftEstate(ns *netNS, table string) (addrs []netip.Addr, left time.Duration, found bool, err error) {
	err = withNFT(ns, func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
		if err != nil {
			return ignoreMissing(fmt.Errorf("nft: list tables: %w", err))
		}
		for _, t := range tables {
			if t.Name != table {
				continue
			}
			found = true
			sets, err := c.GetSets(t)
			if err != nil {
				return ignoreMissing(fmt.Errorf("nft: list sets: %w", err))
			}
			for _, s := range sets {
				lease := strings.HasPrefix(s.Name, leasePrefix)
				if !lease && s.Name != addressMap(t, false).Name && s.Name != addressMap(t, true).Name {
					continue
				}
				elems, err := c.GetSetElements(s)
				if err != nil {
					return ignoreMissing(fmt.Errorf("nft: read %s: %w", s.Name, err))
				}
				for _, e := range elems {
					if lease {
						left = max(left, e.Expires)
					} else if a, ok := netip.AddrFromSlice(e.Key); ok {
						addrs = append(addrs, a)
					}
				}
			}
		}
		return nil
	})
	return addrs, left, found, err
}
