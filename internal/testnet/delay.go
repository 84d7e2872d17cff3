package testnet

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// vnetHdrLen is the size of struct virtio_net_hdr, which carries checksum and
	// segmentation offload along with the frame (packet(7), PACKET_VNET_HDR).
	// Without it the half-done checksums of veth would be delivered as wrong ones.
	vnetHdrLen = 10
	maxFrame   = vnetHdrLen + 14 + 65536
	maxHeld    = 16384 // frames; more are dropped, as by a full queue
)

// relay carries frames from one port of the switch to another, late.
type relay struct {
	rx, tx *os.File
	others map[[6]byte]bool // hosts other than the receiver: not for it
	delay  atomic.Int64
	cut    atomic.Bool
	ended  atomic.Bool

	queue chan heldFrame
	wg    sync.WaitGroup
	kill  chan struct{}
	once  sync.Once
}

type heldFrame struct {
	due  time.Time
	data []byte
}

func startRelay(l *Lab, from, to *Host, n Network, d time.Duration) (*relay, error) {
	r := &relay{queue: make(chan heldFrame, maxHeld), kill: make(chan struct{}), others: map[[6]byte]bool{}}
	r.delay.Store(int64(d))
	for _, h := range l.endHosts() {
		if h != to && int(n) < len(h.macs) {
			r.others[[6]byte(h.macs[n])] = true
		}
	}
	err := l.sw.Do(func() error {
		var err error
		if r.rx, err = relaySocket(from.ports[n], unix.ETH_P_ALL); err != nil {
			return err
		}
		r.tx, err = relaySocket(to.ports[n], 0)
		return err
	})
	if err != nil {
		if r.rx != nil {
			_ = r.rx.Close()
		}
		return nil, err
	}
	r.wg.Add(2)
	go r.read()
	go r.write()
	return r, nil
}

func relaySocket(port int, proto uint16) (*os.File, error) {
	fd, err := packetSocket(port, proto, nil, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		// The receiver's frames leave by this port too; only what the sender sent
		// counts.
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("relay port %d", port)), nil
}

func (r *relay) read() {
	defer r.wg.Done()
	defer close(r.queue)
	buf := make([]byte, maxFrame)
	for {
		n, err := r.rx.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // the port is set down; it may come back
		}
		if err != nil {
			return
		}
		if n < vnetHdrLen+14 || !r.wanted(buf[vnetHdrLen:n]) {
			continue
		}
		f := heldFrame{time.Now().Add(time.Duration(r.delay.Load())), append([]byte(nil), buf[:n]...)}
		select {
		case r.queue <- f:
		default:
		}
	}
}

// wanted tells whether a switch would send the frame to the receiver's port: to
// a group, to the receiver, or to an address nobody is known by.
func (r *relay) wanted(frame []byte) bool {
	return !r.others[[6]byte(frame[:6])]
}

func (r *relay) write() {
	defer r.wg.Done()
	for f := range r.queue {
		if wait := time.Until(f.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.kill:
				return
			}
		}
		if !r.cut.Load() {
			_, _ = r.tx.Write(f.data) // a port that is down loses it, as it should
		}
	}
}

// finish stops taking frames; those held are still delivered.
func (r *relay) finish() {
	_ = r.rx.Close()
	go func() {
		r.wg.Wait()
		_ = r.tx.Close()
		r.ended.Store(true)
	}()
}

// stop ends the relay with what it holds.
func (r *relay) stop() {
	r.once.Do(func() { close(r.kill) })
	_ = r.rx.Close()
	r.wg.Wait()
	_ = r.tx.Close()
}
