package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// sendBuffer holds the frames of a burst for a thousand addresses on a slow link.
const sendBuffer = 4 << 20

// PacketAnnouncer is the Announcer of the network namespace that it is first used
// in. One packet socket serves all links: it is bound to none, so that a link that
// comes back under another index needs nothing, and it receives nothing. It must
// be closed.
type PacketAnnouncer struct {
	mu sync.Mutex
	fd int // -1 if not open
}

var _ Announcer = (*PacketAnnouncer)(nil)

// NewAnnouncer returns an announcer that opens its socket when it is needed, or by
// Prepare.
func NewAnnouncer() *PacketAnnouncer {
	return &PacketAnnouncer{fd: -1}
}

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

func (p *PacketAnnouncer) open() error {
	if p.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("open packet socket: %w (CAP_NET_RAW is needed)", err)
		}
		return fmt.Errorf("open packet socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	p.fd = fd
	return nil
}

func (p *PacketAnnouncer) close() error {
	if p.fd < 0 {
		return nil
	}
	fd := p.fd
	p.fd = -1
	return unix.Close(fd)
}

// Announce sends one gratuitous ARP or unsolicited neighbour advertisement out of
// the link, with the link's hardware address. It returns ErrBusy if the transmit
// queue is full, and never waits.
func (p *PacketAnnouncer) Announce(link Link, addr netip.Addr) error {
	if len(link.MAC) != 6 {
		return fmt.Errorf("announce %s: interface %s has no Ethernet address", addr, link.Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var frame []byte
	var to net.HardwareAddr
	etherType := uint16(etherTypeARP)
	if addr.Is4() {
		frame, to = gratuitousARP(link.MAC, addr), broadcastMAC
	} else {
		frame, to = unsolicitedNA(link.MAC, addr, link.Forwards6), allNodesMAC
		etherType = etherTypeIPv6
	}
	if err := p.open(); err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	err := unix.Sendto(p.fd, frame, 0, linkAddr(link.Index, etherType, to))
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

// linkAddr is the packet(7) address of a frame.
func linkAddr(link int, etherType uint16, to net.HardwareAddr) *unix.SockaddrLinklayer {
	sa := &unix.SockaddrLinklayer{Protocol: networkOrder(etherType), Ifindex: link, Halen: 6}
	copy(sa.Addr[:], to)
	return sa
}

// networkOrder is htons.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
