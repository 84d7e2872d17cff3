package testnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// echo is an ICMP or ICMPv6 echo socket of the kernel's normal stack: routes, the
// neighbour cache and everything else take part, as for any client.
type echo struct {
	fd     int
	v6     bool
	cookie uint64
	buf    [8 + 16]byte
}

const (
	icmpEcho       = 8
	icmpEchoReply  = 0
	icmp6Echo      = 128
	icmp6EchoReply = 129
)

// openEcho opens a socket for the address; call it inside the namespace.
func openEcho(vip netip.Addr, cookie uint64) (*echo, error) {
	e := &echo{v6: vip.Is6(), cookie: cookie}
	var to unix.Sockaddr
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if e.v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		to = &unix.SockaddrInet6{Addr: vip.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: vip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("open echo socket: %w", err)
	}
	e.fd = fd
	if e.v6 {
		// A set bit blocks the type (RFC 3542 section 3.2).
		f := unix.ICMPv6Filter{Data: [8]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}}
		f.Data[icmp6EchoReply/32] &^= 1 << (icmp6EchoReply % 32)
		err = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	} else {
		// ICMP_FILTER of raw(7), level SOL_RAW.
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, 1, ^(1 << icmpEchoReply))
	}
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up echo socket for %v: %w", vip, err)
	}
	return e, nil
}

// send sends one request. Errors are not: what is not sent is not answered.
func (e *echo) send(seq uint64) {
	b := e.buf[:]
	b[0] = icmpEcho
	if e.v6 {
		b[0] = icmp6Echo
	}
	b[1], b[2], b[3] = 0, 0, 0
	binary.BigEndian.PutUint16(b[4:], uint16(e.cookie))
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.BigEndian.PutUint64(b[8:], e.cookie)
	binary.BigEndian.PutUint64(b[16:], seq)
	if !e.v6 { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(b[2:], ^uint16(checksum(0, b)))
	}
	_, _ = unix.Write(e.fd, b)
}

// parse returns the number of the request that the packet answers.
func (e *echo) parse(b []byte) (seq uint64, ok bool) {
	want := byte(icmp6EchoReply)
	if !e.v6 {
		if len(b) < 20 {
			return 0, false
		}
		want = icmpEchoReply
		b = b[min(len(b), int(b[0]&0xf)*4):]
	}
	if len(b) < len(e.buf) || b[0] != want || binary.BigEndian.Uint64(b[8:]) != e.cookie {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[16:]), true
}
