package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const (
	// ticketLife bounds the time between reading the clock and the kernel starting
	// the timeout that was calculated from it. A lease is shortened by as much, so it
	// is never late.
	ticketLife = 40 * time.Millisecond
	// ticketTries is the number of tickets drawn before giving up for now.
	ticketTries = 4
	// leaseChunk is the number of groups per transaction; every message of one is
	// acknowledged into a socket buffer of limited size.
	leaseChunk = 16
)

// writeDirty hands the latest deadlines to the kernel. Groups that could not be
// written stay dirty.
func (b *nftBackend) writeDirty() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var shut, open []uint32
	questions := map[uint32]uint64{} // of settle, that this answers
	for i := range b.dirty {
		if !b.dirty[i].Swap(false) {
			continue
		}
		group := uint32(i)
		// Read before the deadline, which was stored before the question was asked.
		questions[group] = b.asked[i].Load()
		if !b.groups[group] {
			continue // Nothing was ever armed; arming asks again.
		}
		if time.Duration(b.deadlines[i].Load())-b.now() <= ticketLife {
			shut = append(shut, group)
		} else {
			open = append(open, group)
		}
	}
	var errs []error
	write := func(groups []uint32, fn func([]uint32) error) {
		for start := 0; start < len(groups); start += leaseChunk {
			part := groups[start:min(start+leaseChunk, len(groups))]
			err := fn(part)
			if errors.Is(err, unix.ENOENT) && b.tableMissing() {
				if err = b.restore("table missing"); err == nil {
					err = fn(part)
				}
			}
			if err != nil {
				errs = append(errs, err)
				for _, g := range part {
					b.dirty[g].Store(true)
					delete(questions, g)
				}
			}
		}
	}
	write(shut, b.shutLeases)
	if len(shut) > 0 && len(open) > 0 {
		// Who waits for silence does not wait for others' leases.
		b.answer(questions, shut)
	}
	write(open, b.openLeases)
	b.answer(questions, slices.Collect(maps.Keys(questions)))
	return errors.Join(errs...)
}

func (b *nftBackend) tableMissing() bool {
	have, err := b.chains()
	return err == nil && len(have) == 0
}

// leaseElements are the elements of a lease, one per protocol.
func leaseElements(timeout time.Duration) []nftables.SetElement {
	var out []nftables.SetElement
	for _, proto := range []uint16{unix.ETH_P_IP, unix.ETH_P_ARP, unix.ETH_P_IPV6} {
		out = append(out, nftables.SetElement{Key: be16(proto), Timeout: timeout})
	}
	return out
}

// clearLease adds to the batch the removal of a lease that may or may not be there:
// deleting an element that is missing would fail the transaction, adding one that is
// there changes nothing if the timeout is the same.
func (b *nftBackend) clearLease(group uint32) error {
	old := max(b.timeout[group], time.Millisecond)
	set := b.leaseSet(group)
	if err := b.conn.SetAddElements(set, leaseElements(old)); err != nil {
		return err
	}
	return b.conn.SetDeleteElements(set, leaseElements(0))
}

// shutLeases ends the leases of the groups now.
func (b *nftBackend) shutLeases(groups []uint32) error {
	return b.transact("shut", func() error {
		for _, g := range groups {
			if err := b.clearLease(g); err != nil {
				return err
			}
		}
		return nil
	})
}

// openLeases sets the leases of the groups to their deadlines.
//
// A timeout is relative: a daemon that is stopped between reading the clock and
// sending, or waits for the lock of nftables, would set it too late. So it first puts
// a ticket into the kernel that lives for ticketLife, then reads the clock, and takes
// the ticket back in the transaction that sets the leases. An expired element cannot
// be deleted, and then the whole transaction fails. Adding an element that is there
// does not refresh it (a silent no-op), so each is deleted and added.
func (b *nftBackend) openLeases(groups []uint32) error {
	var err error
	for range ticketTries {
		if err = b.openOnce(groups); !errors.Is(err, unix.ENOENT) || b.tableMissing() {
			return err
		}
	}
	return fmt.Errorf("nft: %d transactions took longer than %v each: %w", ticketTries, ticketLife, err)
}

func (b *nftBackend) openOnce(groups []uint32) error {
	key, err := b.drawTicket()
	if err != nil {
		return err
	}
	now := b.now()
	left := make(map[uint32]time.Duration, len(groups))
	err = b.transact("set leases", func() error {
		if err := b.conn.SetDeleteElements(timeoutSet(b.table, "ticket"), []nftables.SetElement{{Key: key}}); err != nil {
			return err
		}
		for _, g := range groups {
			if err := b.clearLease(g); err != nil {
				return err
			}
			left[g] = (time.Duration(b.deadlines[g].Load()) - now - ticketLife).Truncate(time.Millisecond)
			if left[g] <= 0 {
				continue
			}
			if err := b.conn.SetAddElements(b.leaseSet(g), leaseElements(left[g])); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for g, d := range left {
			b.timeout[g] = d
		}
	}
	return err
}

// drawTicket puts a new ticket into the kernel and returns its key.
func (b *nftBackend) drawTicket() ([]byte, error) {
	b.ticket++
	key := be16(b.ticket)
	err := b.transact("draw ticket", func() error {
		return b.conn.SetAddElements(timeoutSet(b.table, "ticket"), []nftables.SetElement{{Key: key, Timeout: ticketLife}})
	})
	return key, err
}

// selfTest makes sure that on this kernel a lease can be set, prolonged and ended,
// and that a ticket that has expired stops a transaction.
func (b *nftBackend) selfTest() error {
	const group = MaxGroups - 1
	defer b.deadlines[group].Store(0)
	if err := b.transact("self-test", func() error { return b.addGate(group) }); err != nil {
		return err
	}
	last := time.Duration(0)
	for _, ahead := range []time.Duration{10 * time.Second, 20 * time.Second} {
		b.deadlines[group].Store(int64(b.now() + ahead))
		if err := b.openLeases([]uint32{group}); err != nil {
			return err
		}
		left, err := b.leaseLeft(group)
		if err != nil {
			return err
		}
		if left <= last || left > ahead {
			return fmt.Errorf("nft: self-test: a lease of %v expires in %v", ahead, left)
		}
		last = left
	}
	if err := b.shutLeases([]uint32{group}); err != nil {
		return err
	}
	if left, err := b.leaseLeft(group); err != nil || left != 0 {
		return fmt.Errorf("nft: self-test: a lease that was shut expires in %v (%v)", left, err)
	}
	if err := b.testTicket(); err != nil {
		return err
	}
	return b.transact("self-test", func() error {
		c := &nftables.Chain{Name: gateChain(group), Table: b.table}
		b.conn.FlushChain(c)
		b.conn.DelChain(c)
		b.conn.DelSet(b.leaseSet(group))
		return nil
	})
}

// testTicket makes sure that a ticket which has expired cannot be taken back. The
// kernel counts timeouts in ticks, and while the processor that counts them is held
// up, as a virtual one may be, a ticket outlives its time. A kernel that does not
// expire them at all accepts every one, so only that is an error.
func (b *nftBackend) testTicket() error {
	more := 5 * time.Millisecond
	for range ticketTries {
		key, err := b.drawTicket()
		if err != nil {
			return err
		}
		time.Sleep(ticketLife + more)
		more *= 4
		err = b.transact("self-test", func() error {
			return b.conn.SetDeleteElements(timeoutSet(b.table, "ticket"), []nftables.SetElement{{Key: key}})
		})
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("nft: self-test: take back an expired ticket: %w", err)
		}
	}
	return errors.New("nft: self-test: expired tickets were accepted")
}

// leaseLeft returns the shortest time left among the elements of a lease, 0 if
// there are none.
func (b *nftBackend) leaseLeft(group uint32) (time.Duration, error) {
	if err := b.connect(); err != nil {
		return 0, err
	}
	elems, err := b.conn.GetSetElements(b.leaseSet(group))
	if err != nil {
		b.disconnect()
		return 0, fmt.Errorf("nft: read lease: %w", err)
	}
	left := time.Duration(0)
	for i, e := range elems {
		if i == 0 || e.Expires < left {
			left = e.Expires
		}
	}
	return left, nil
}
