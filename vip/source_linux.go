package vip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control is for net.Dialer.ControlContext. Where the kernel would send from a
// virtual address to the given one, it binds the socket to an own one.
func (s Source) Control(_ context.Context, _, address string, c syscall.RawConn) error {
	dst, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil // not IP
	}
	chosen, ok := kernelSource(address)
	if !ok || !s.Virtual(chosen) {
		return nil // nothing to say, or none of the business of this
	}
	host, err := OpenHost()
	if err != nil {
		return err
	}
	links, err := host.Links()
	host.Close()
	if err != nil {
		return err
	}
	own, err := s.choose(chosen, dst.Addr().Unmap(), links)
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) { err = bind(int(fd), own, dst) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("send from %s rather than the virtual address %s: %w", own, chosen, err)
	}
	return nil
}

// kernelSource returns the address that the kernel would send from to address; for
// that nothing is sent.
func kernelSource(address string) (netip.Addr, bool) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return netip.Addr{}, false
	}
	defer func() { _ = conn.Close() }()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, false
	}
	return local.Addr().Unmap().WithZone(""), true
}

// bind binds the socket to an address; the port is chosen when it connects, so that
// connections to different peers may share one.
func bind(fd int, own netip.Addr, dst netip.AddrPort) error {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if own.Is4() {
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: own.As4()})
	}
	to := &unix.SockaddrInet6{Addr: own.As16()}
	if zone := dst.Addr().Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return err
		}
		to.ZoneId = uint32(ifi.Index)
	}
	return unix.Bind(fd, to)
}
