package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A conflict probe asks probeCount times, probeGap apart, and listens for probeGap
// after the last: RFC 5227 2.1.1 and RFC 4862 5.4 with the waits shortened from
// seconds, for a LAN and a person at a prompt.
const (
	probeCount = 3
	probeGap   = 200 * time.Millisecond
)

// ProbeConflict asks on the link whether another node answers for addr, and returns
// its hardware address. It takes about 600 ms if nobody does, and changes nobody's
// caches. The link must exist and be up, and CAP_NET_RAW is needed.
func ProbeConflict(ctx context.Context, link string, addr netip.Addr) (mac net.HardwareAddr, found bool, err error) {
	fail := func(err error) (net.HardwareAddr, bool, error) {
		return nil, false, fmt.Errorf("probe for %s on %s: %w", addr, link, err)
	}
	addr = addr.Unmap().WithZone("")
	host, err := OpenHost()
	if err != nil {
		return fail(err)
	}
	links, err := host.Links()
	host.Close()
	if err != nil {
		return fail(err)
	}
	l, err := findLink(links, link)
	switch {
	case err != nil:
		return fail(err)
	case len(l.MAC) != 6:
		return fail(errors.New("the interface has no Ethernet address"))
	case !l.Running:
		return fail(errors.New("the interface is down"))
	}
	frame, etherType := arpProbe(l.MAC, addr), uint16(etherTypeARP)
	if addr.Is6() {
		frame, etherType = dadSolicit(l.MAC, addr), etherTypeIPv6
	}
	s, err := openProbe(l.Index, etherType)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = s.file.Close() }()

	own := localMACs(links)
	to := linkAddr(l.Index, etherType, net.HardwareAddr(frame[:6]))
	for range probeCount {
		if err := s.send(frame, to); err != nil {
			return fail(err)
		}
		mac, err := s.listen(ctx, time.Now().Add(probeGap), addr, own)
		if err != nil {
			return fail(err)
		}
		if mac != nil {
			return mac, true, nil
		}
	}
	return nil, false, nil
}

// probeSocket is a packet socket in the runtime's poller.
type probeSocket struct{ file *os.File }

func openProbe(link int, etherType uint16) (*probeSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(etherType), Ifindex: link}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	return &probeSocket{file: os.NewFile(uintptr(fd), "packet")}, nil
}

func (s *probeSocket) send(frame []byte, to unix.Sockaddr) error {
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = c.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), frame, 0, to)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// listen returns the first claimant of addr that is not one of own, or nil at the
// deadline.
func (s *probeSocket) listen(ctx context.Context, deadline time.Time, addr netip.Addr, own []string) (net.HardwareAddr, error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	for {
		var n int
		var from unix.Sockaddr
		var recvErr error
		err := c.Read(func(fd uintptr) bool {
			n, from, recvErr = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case errors.Join(err, recvErr) != nil:
			return nil, errors.Join(err, recvErr)
		}
		// What is not for this node's own LAN (a VLAN without a device here) arrives
		// as a packet for another host.
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OTHERHOST || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if mac, ok := claimant(buf[:n], addr); ok && !slices.Contains(own, mac.String()) {
			return mac, nil
		}
	}
}
