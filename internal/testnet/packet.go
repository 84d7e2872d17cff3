package testnet

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// packetSocket opens a raw AF_PACKET socket on the interface; call it inside the
// namespace. With proto 0 it receives nothing. Filter and options are in force
// before the first frame can arrive.
func packetSocket(ifindex int, proto uint16, filter []bpf.Instruction, opt func(fd int) error) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if filter != nil {
		err = attachFilter(fd, filter)
	}
	if err == nil && opt != nil {
		err = opt(fd)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: htons(proto)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("set up packet socket on interface %d: %w", ifindex, err)
	}
	return fd, nil
}

func attachFilter(fd int, prog []bpf.Instruction) error {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	ins := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		ins[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// filterARPAndNA passes ARP and neighbour advertisements.
var filterARPAndNA = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 5},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 5},
	bpf.LoadAbsolute{Off: 20, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 54, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmp6NA, SkipTrue: 1},
	bpf.RetConstant{Val: 128},
	bpf.RetConstant{Val: 0},
}

const (
	arpRequest = 1
	arpReply   = 2
	icmp6NS    = 135
	icmp6NA    = 136
)

// arpFrame builds a broadcast ARP request (RFC 826).
func arpFrame(mac [6]byte, spa, tpa netip.Addr) []byte {
	b := make([]byte, 0, 42)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, mac[:]...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, arpRequest)
	b = append(b, mac[:]...)
	b = append(b, spa.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, tpa.AsSlice()...)
}

// nsFrame builds a neighbour solicitation to the target's solicited-node group
// (RFC 4861 section 4.3, RFC 4291 section 2.7.1).
func nsFrame(mac [6]byte, src, target netip.Addr) []byte {
	t, s := target.As16(), src.As16()
	dst := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}
	b := make([]byte, 0, 86)
	b = append(b, 0x33, 0x33, 0xff, t[13], t[14], t[15])
	b = append(b, mac[:]...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, unix.IPPROTO_ICMPV6, 255)
	b = append(b, s[:]...)
	b = append(b, dst[:]...)
	b = append(b, icmp6NS, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, t[:]...)
	b = append(b, 1, 1) // source link-layer address
	b = append(b, mac[:]...)
	sum := checksum(checksum(0, b[22:54]), b[54:]) + 32 + unix.IPPROTO_ICMPV6
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	b[56], b[57] = byte(^sum>>8), byte(^sum)
	return b
}

// checksum adds b to a running Internet checksum (RFC 1071), not complemented.
func checksum(sum uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// claim is what an ARP packet or neighbour advertisement says: addr is at mac.
type claim struct {
	addr  netip.Addr
	mac   [6]byte
	to    netip.Addr // ARP target address or IPv6 destination
	op    byte       // arpRequest, arpReply or icmp6NA
	flags byte       // of the advertisement: router, solicited, override
}

func (c *claim) solicited() bool { return c.flags&0x40 != 0 }

// parseClaim reads a frame that filterARPAndNA passed. It allocates nothing.
func parseClaim(b []byte) (c claim, ok bool) {
	if len(b) < 42 {
		return c, false
	}
	switch uint16(b[12])<<8 | uint16(b[13]) {
	case unix.ETH_P_ARP:
		if b[16] != 0x08 || b[17] != 0 || b[18] != 6 || b[19] != 4 {
			return c, false
		}
		c.op = b[21]
		c.mac = [6]byte(b[22:28])
		c.addr = netip.AddrFrom4([4]byte(b[28:32]))
		c.to = netip.AddrFrom4([4]byte(b[38:42]))
		return c, true
	case unix.ETH_P_IPV6:
		if len(b) < 78 || b[20] != unix.IPPROTO_ICMPV6 || b[54] != icmp6NA {
			return c, false
		}
		c.op, c.flags = icmp6NA, b[58]
		c.to = netip.AddrFrom16([16]byte(b[38:54]))
		c.addr = netip.AddrFrom16([16]byte(b[62:78]))
		c.mac = [6]byte(b[6:12])
		// Target link-layer address (RFC 4861 section 4.6.1).
		if len(b) >= 86 && b[78] == 2 && b[79] == 1 {
			c.mac = [6]byte(b[80:86])
		}
		return c, true
	}
	return c, false
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

const (
	batchSize  = 64
	packetBuf  = 128
	controlBuf = 64
)

// batch reads many packets by one system call, each with the kernel's receive
// time, and allocates nothing per packet.
type batch struct {
	fd   int
	msgs [batchSize]mmsghdr
	iovs [batchSize]unix.Iovec
	data [batchSize][packetBuf]byte
	ctl  [batchSize][controlBuf]byte
}

func newBatch(fd int) (*batch, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return nil, fmt.Errorf("ask for receive times: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	b := &batch{fd: fd}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(packetBuf)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
		b.msgs[i].hdr.Control = &b.ctl[i][0]
	}
	return b, nil
}

// drain calls f for every packet waiting; at is in boot time.
func (b *batch) drain(f func(at time.Duration, data []byte)) {
	for {
		for i := range b.msgs {
			b.msgs[i].hdr.SetControllen(controlBuf)
		}
		r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.msgs[0])),
			batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		n := int(r)
		if errno != 0 || n <= 0 {
			return
		}
		off := realToBoot()
		for i := range n {
			f(b.stamp(i)+off, b.data[i][:min(int(b.msgs[i].n), packetBuf)])
		}
		if n < batchSize {
			return
		}
	}
}

// stamp returns the wall-clock receive time of message i; SO_TIMESTAMPNS is the
// only control message asked for.
func (b *batch) stamp(i int) time.Duration {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[i][0]))
	if b.msgs[i].hdr.Controllen < unix.SizeofCmsghdr || h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_TIMESTAMPNS {
		return time.Duration(time.Now().UnixNano())
	}
	ts := (*unix.Timespec)(unsafe.Pointer(&b.ctl[i][unix.CmsgLen(0)]))
	return time.Duration(ts.Nano())
}

// lost returns how many packets the socket dropped since last asked.
func lost(fd int) int {
	st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return int(st.Drops)
}
