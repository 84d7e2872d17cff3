package vrrpnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/raftvip/raftvip/vrrpcompat"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrQueueFull says that an advertisement was not sent because the machine's send
// queue was full. Waiting for room would hold the virtual router up, so the next
// advertisement has to make up for it.
var ErrQueueFull = errors.New("send queue full")

// A socket is a raw socket of protocol 112 on one interface. It never blocks.
type socket struct {
	file  *os.File // gives it to the runtime's poller
	raw   syscall.RawConn
	ipv6  bool
	index int
}

// openSocket opens a raw socket that is bound to the interface, so that routers on
// other interfaces neither see nor send its packets.
func openSocket(ipv6 bool, index int, name string, filter []bpf.Instruction) (*socket, error) {
	family := unix.AF_INET
	if ipv6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, vrrpcompat.Protocol)
	if err != nil {
		return nil, fmt.Errorf("open raw socket of protocol %d: %w", vrrpcompat.Protocol, err)
	}
	err = attachFilter(fd, filter)
	if err == nil {
		err = option("SO_BINDTODEVICE", unix.BindToDevice(fd, name))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), "vrrp"), ipv6: ipv6, index: index}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() error { return s.file.Close() }

// set sets integer options in order.
func (s *socket) set(opts ...sockopt) error {
	var err error
	ctl := s.raw.Control(func(fd uintptr) {
		for _, o := range opts {
			if err = option(o.name, unix.SetsockoptInt(int(fd), o.level, o.opt, o.value)); err != nil {
				return
			}
		}
	})
	return errors.Join(ctl, err)
}

type sockopt struct {
	name              string
	level, opt, value int
}

func option(name string, err error) error {
	if err != nil {
		return fmt.Errorf("set socket option %s: %w", name, err)
	}
	return nil
}

func attachFilter(fd int, prog []bpf.Instruction) error {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return fmt.Errorf("assemble socket filter: %w", err)
	}
	ins := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		ins[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return option("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}))
}

// openReceiver opens the receiving socket; group is invalid for unicast.
func openReceiver(ipv6 bool, index int, name string, vrid uint8, group netip.Addr) (*socket, error) {
	s, err := openSocket(ipv6, index, name, filterVRID(ipv6, vrid))
	if err != nil {
		return nil, err
	}
	if ipv6 {
		err = s.set(
			sockopt{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			sockopt{"IPV6_RECVHOPLIMIT", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		)
	} else {
		err = s.set(
			sockopt{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
			// Only groups joined by this socket, not those that others in this machine
			// joined on the same interface.
			sockopt{"IP_MULTICAST_ALL", unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0},
		)
	}
	if err == nil && ipv6 {
		// Linux 4.20; on an older one the destination is still looked at later.
		_ = s.set(sockopt{"IPV6_MULTICAST_ALL", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0})
	}
	if err == nil && group.IsValid() {
		err = s.join(group)
	}
	if err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) join(group netip.Addr) error {
	var err error
	ctl := s.raw.Control(func(fd uintptr) {
		if s.ipv6 {
			err = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
				&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.index)})
		} else {
			err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
				&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(s.index)})
		}
	})
	if err := errors.Join(ctl, err); err != nil {
		return fmt.Errorf("join %v: %w", group, err)
	}
	return nil
}

// openSender opens the sending socket. With foreign it may send from an address of
// another interface of this machine: that of the base from the virtual MAC.
func openSender(ipv6 bool, index int, name string, ttl int, foreign bool) (*socket, error) {
	s, err := openSocket(ipv6, index, name, filterAll)
	if err != nil {
		return nil, err
	}
	if ipv6 {
		const level = unix.IPPROTO_IPV6
		err = s.set(
			sockopt{"IPV6_MULTICAST_IF", level, unix.IPV6_MULTICAST_IF, index},
			sockopt{"IPV6_MULTICAST_HOPS", level, unix.IPV6_MULTICAST_HOPS, vrrpcompat.TTL},
			sockopt{"IPV6_MULTICAST_LOOP", level, unix.IPV6_MULTICAST_LOOP, 0},
			sockopt{"IPV6_UNICAST_HOPS", level, unix.IPV6_UNICAST_HOPS, ttl},
			sockopt{"IPV6_TCLASS", level, unix.IPV6_TCLASS, trafficClass},
			// An advertisement that does not fit is an error, not two fragments: much that
			// stands between routers drops these.
			sockopt{"IPV6_MTU_DISCOVER", level, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE},
			sockopt{"IPV6_DONTFRAG", level, unix.IPV6_DONTFRAG, 1},
		)
		if err == nil && foreign {
			err = s.set(sockopt{"IPV6_FREEBIND", level, unix.IPV6_FREEBIND, 1})
		}
	} else {
		const level = unix.IPPROTO_IP
		err = s.set(
			sockopt{"IP_MULTICAST_TTL", level, unix.IP_MULTICAST_TTL, vrrpcompat.TTL},
			sockopt{"IP_MULTICAST_LOOP", level, unix.IP_MULTICAST_LOOP, 0},
			sockopt{"IP_TTL", level, unix.IP_TTL, ttl},
			sockopt{"IP_TOS", level, unix.IP_TOS, trafficClass},
			// As above, and without DF in the header, as keepalived.
			sockopt{"IP_MTU_DISCOVER", level, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE},
		)
	}
	if err == nil {
		// TC_PRIO_CONTROL, after IP_TOS, which sets a priority of its own: a queue of
		// this machine that is full of data must not delay an advertisement.
		err = s.set(sockopt{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, 7})
	}
	if err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

// send sends the payload once, without waiting.
func (s *socket) send(payload []byte, src, dst netip.Addr) error {
	var control []byte
	var to unix.Sockaddr
	if s.ipv6 {
		control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: src.As16(), Ifindex: uint32(s.index)})
		sa := &unix.SockaddrInet6{Addr: dst.As16()}
		if dst.IsLinkLocalUnicast() || dst.IsMulticast() {
			sa.ZoneId = uint32(s.index)
		}
		to = sa
	} else {
		control = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(s.index), Spec_dst: src.As4()})
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	}
	var n int
	var err error
	ctl := s.raw.Control(func(fd uintptr) {
		for {
			n, err = unix.SendmsgN(int(fd), payload, control, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case ctl != nil:
		return closed(ctl)
	case err == unix.EAGAIN || err == unix.ENOBUFS:
		return ErrQueueFull
	case err != nil:
		return err
	case n != len(payload):
		return fmt.Errorf("sent %d of %d bytes", n, len(payload))
	}
	return nil
}

// wait waits until there is something to receive, or an error waiting.
func (s *socket) wait() error {
	return closed(s.raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			if err != unix.EINTR {
				return n > 0 || err != nil
			}
		}
	}))
}

// closed returns net.ErrClosed for what the runtime's poller says of a closed file,
// which is an error of its own without a name. Other than that it says only that a
// deadline has passed.
func closed(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return net.ErrClosed
}

// A buffer holds the largest packet there is, so that none is cut off.
type buffer struct {
	data    [1 << 16]byte
	control [128]byte
}

// receive takes one packet, without waiting: unix.EAGAIN if there is none. ok is
// false for one that is not this socket's after all: it arrived before the socket
// was bound and filtered, or is malformed. The payload is a copy.
func (s *socket) receive(b *buffer, vrid uint8) (d vrrpcompat.Datagram, ok bool, err error) {
	var n, oobn int
	var from unix.Sockaddr
	ctl := s.raw.Control(func(fd uintptr) {
		for {
			n, oobn, _, from, err = unix.Recvmsg(int(fd), b.data[:], b.control[:], unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return
			}
		}
	})
	if ctl != nil {
		return d, false, closed(ctl)
	}
	if err != nil {
		return d, false, err
	}
	a, fine := parseControl(b.control[:oobn])
	if !fine || a.index != s.index {
		return d, false, nil
	}
	payload := b.data[:n]
	if s.ipv6 {
		sa, is6 := from.(*unix.SockaddrInet6)
		if !is6 || !a.dst.IsValid() || a.hops < 0 {
			return d, false, nil
		}
		d.Source, d.Destination, d.TTL = netip.AddrFrom16(sa.Addr), a.dst, a.hops
	} else {
		d.Source, d.Destination, d.TTL, payload, fine = parseIPv4(payload)
		if !fine {
			return d, false, nil
		}
	}
	if len(payload) < 2 || payload[1] != vrid {
		return d, false, nil
	}
	d.Payload = append([]byte(nil), payload...)
	return d, true, nil
}

// ancillary is what comes beside a packet.
type ancillary struct {
	index int
	dst   netip.Addr // IPv6 only
	hops  int        // IPv6 only, -1 if not told
}

func parseControl(b []byte) (ancillary, bool) {
	a := ancillary{hops: -1}
	msgs, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return a, false
	}
	for _, m := range msgs {
		level, kind := m.Header.Level, m.Header.Type
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			a.index = int(int32(binary.NativeEndian.Uint32(m.Data)))
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			a.dst = netip.AddrFrom16([16]byte(m.Data))
			a.index = int(int32(binary.NativeEndian.Uint32(m.Data[16:])))
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			a.hops = int(int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return a, true
}
