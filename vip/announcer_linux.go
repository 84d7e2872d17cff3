package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// sendBuffer holds the frames of a burst for a thousand addresses on a slow link.
const sendBuffer = 4 << 20

// PacketAnnouncer is the Announcer of the network namespace that it is first used
// in. One packet socket serves all links: it is bound to none, so that a link that
// comes back under another index needs nothing, and it receives nothing. It must
// be closed.
type PacketAnnouncer struct {
	mu   sync.Mutex
	conn *packet.Conn // nil if not open
	raw  syscall.RawConn
}

var _ Announcer = (*PacketAnnouncer)(nil)

// NewAnnouncer returns an announcer that opens its socket when it is needed, or by
// Prepare.
func NewAnnouncer() *PacketAnnouncer { return &PacketAnnouncer{} }

// Prepare opens the socket now, which needs CAP_NET_RAW.
func (p *PacketAnnouncer) Prepare() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open()
}

// Close closes the socket. A later Announce opens it again.
func (p *PacketAnnouncer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.close()
}

// open is called with mu held.
func (p *PacketAnnouncer) open() error {
	if p.conn != nil {
		return nil
	}
	// Interface index 0 is none in particular, protocol 0 receives nothing.
	conn, err := packet.Listen(&net.Interface{}, packet.Raw, 0, nil)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("open packet socket: %w (CAP_NET_RAW is needed)", err)
		}
		return fmt.Errorf("open packet socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
			}
		})
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("open packet socket: %w", err)
	}
	p.conn, p.raw = conn, raw
	return nil
}

// close is called with mu held.
func (p *PacketAnnouncer) close() error {
	if p.conn == nil {
		return nil
	}
	conn := p.conn
	p.conn, p.raw = nil, nil
	return conn.Close()
}

// Announce sends one gratuitous ARP or unsolicited neighbour advertisement out of
// the link, with the link's hardware address. It returns ErrBusy if the transmit
// queue is full, and never waits.
func (p *PacketAnnouncer) Announce(link Link, addr netip.Addr) error {
	if len(link.MAC) != 6 {
		return fmt.Errorf("announce %s: interface %s has no Ethernet address", addr, link.Name)
	}
	var frame []byte
	var err error
	etherType := ethernet.EtherTypeARP
	if addr.Is4() {
		frame, err = gratuitousARP(link.MAC, addr)
	} else {
		etherType = ethernet.EtherTypeIPv6
		frame, err = unsolicitedNA(link.MAC, addr, link.Forwards6)
	}
	if err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	err = p.send(link.Index, etherType, frame)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("announce %s on %s: %w", addr, link.Name, ErrBusy)
	case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		// The link's trouble, not the socket's.
	default:
		_ = p.close()
	}
	return fmt.Errorf("announce %s on %s: %w", addr, link.Name, err)
}

// send hands the frame to the link, or returns EAGAIN. It is called with mu held.
//
// packet.Conn.WriteTo cannot take its place. It waits for room in a full queue, so
// that the frame would leave some time after the gate was read; a write deadline
// shortens that and does not rule it out, and one that has passed keeps every frame
// from being sent. And it sends out of the link that its Conn is bound to, so that
// each link, and each new one of an old name, would need a socket of its own,
// opened on the way of a takeover.
func (p *PacketAnnouncer) send(link int, etherType ethernet.EtherType, frame []byte) error {
	var proto [2]byte // in network order, see packet(7)
	binary.BigEndian.PutUint16(proto[:], uint16(etherType))
	to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(proto[:]), Ifindex: link, Halen: 6}
	copy(to.Addr[:], frame[:6])
	var sent error
	err := p.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), frame, 0, to)
		return true // not again, whatever came of it
	})
	if err != nil {
		return err
	}
	return sent
}
