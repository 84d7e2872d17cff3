package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// loadElements is how many set elements a transaction of an NFTLoad makes. The
	// kernel holds the lock of nftables for some tens of milliseconds for so many.
	loadElements = 20_000
	// loadPause is the time between two: long enough for a lease to be renewed, which
	// takes two transactions, or it would be over before it is given away.
	loadPause = 15 * time.Millisecond
)

// NFTLoad is somebody else who keeps the lock of a host's nftables: a large set that
// is loaded over and over.
type NFTLoad struct {
	stop func()

	mu      sync.Mutex
	loads   int
	longest time.Duration
	err     error
}

// LoadNFTables begins such a load on the host. Stop or the lab's Close ends it.
func (h *Host) LoadNFTables() (*NFTLoad, error) {
	batch, err := loadBatch()
	if err != nil {
		return nil, fmt.Errorf("load nftables: %w", err)
	}
	var fd int
	err = h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load nftables: %w", err)
	}
	l := &NFTLoad{}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(batch)),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("load nftables: %w", err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer unix.Close(fd)
		for {
			began := time.Now()
			// The kernel has carried it out when the call returns.
			err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			l.note(time.Since(began), err)
			select {
			case <-done:
				return
			case <-time.After(loadPause):
			}
		}
	}()
	forget := func() {}
	l.stop = sync.OnceFunc(func() {
		close(done)
		<-ended
		forget()
	})
	forget = h.lab.onClose(l.stop)
	return l, nil
}

func (l *NFTLoad) note(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loads++
	l.longest = max(l.longest, took)
	l.err = errors.Join(l.err, err)
}

// Stop ends the load and returns how often the lock was held, for how long at the
// most, and what went wrong.
func (l *NFTLoad) Stop() (times int, longest time.Duration, err error) {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads, l.longest, l.err
}

// loadBatch is one transaction: the table, in place of that of the last time, with a
// large set. It is made once, so that the load is the kernel's and not the test's.
func loadBatch() ([]byte, error) {
	var batch []byte
	conn, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		for _, m := range req {
			m.Header.Flags &^= netlink.Acknowledge
			m.Header.Length = uint32(16 + len(m.Data))
			b, err := m.MarshalBinary()
			if err != nil {
				return nil, err
			}
			batch = append(batch, b...)
		}
		return nil, nil
	}))
	if err != nil {
		return nil, err
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: "load"}
	conn.AddTable(t)
	conn.DelTable(t)
	conn.AddTable(t)
	set := &nftables.Set{Table: t, ID: 1, Name: "many", KeyType: nftables.TypeIPAddr}
	if err := conn.AddSet(set, nil); err != nil {
		return nil, err
	}
	for n := 0; n < loadElements; n += 2000 {
		es := make([]nftables.SetElement, 2000)
		for i := range es {
			es[i].Key = binary.BigEndian.AppendUint32(nil, uint32(0x0b000000+n+i))
		}
		if err := conn.SetAddElements(set, es); err != nil {
			return nil, err
		}
	}
	// The dialled double answers nothing, which is an error to the library.
	if err := conn.Flush(); len(batch) == 0 {
		return nil, fmt.Errorf("make the transaction: %w", err)
	}
	return batch, nil
}
