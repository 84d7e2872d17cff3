package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Listening has to be cheap also where somebody floods the network with claims: after
// claimBatch frames it pauses for claimPause, and the kernel drops what does not fit
// into a small buffer.
const (
	claimBatch  = 32
	claimPause  = 100 * time.Millisecond
	claimBuffer = 32 << 10
	// claimReopen is the time after which a socket that failed is opened again.
	claimReopen = 5 * time.Second
)

// A ClaimListener hears who claims addresses in the network namespace that it runs
// in. It uses one socket for ARP and one for neighbour discovery, neither bound to a
// link, so that links may come and go; ordinary packets never reach them.
type ClaimListener struct {
	log  *slog.Logger
	sink func(Claim)

	mu    sync.Mutex
	addrs map[netip.Addr]bool
	arp   *packet.Conn     // nil while closed
	nd    *ipv6.PacketConn // nil while closed
}

// NewClaimListener returns a listener for no address. sink is called for each claim
// of an address that is listened for, by two goroutines, this node's own claims
// included. logger may be nil.
func NewClaimListener(logger *slog.Logger, sink func(Claim)) *ClaimListener {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &ClaimListener{log: logger, sink: sink}
}

// Listen sets the addresses to listen for, in place of those before. It makes a few
// system calls, and does not block.
func (l *ClaimListener) Listen(addrs []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addrs = make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		l.addrs[a] = true
	}
	l.filter()
}

// filter tells the kernel what to pass. It is called with mu held.
func (l *ClaimListener) filter() {
	list, six := make([]netip.Addr, 0, len(l.addrs)), false
	for a := range l.addrs {
		list = append(list, a)
		six = six || a.Is6()
	}
	slices.SortFunc(list, netip.Addr.Compare)
	if l.arp != nil {
		if err := l.arp.SetBPF(claimFilter(list)); err != nil {
			l.log.Warn("cannot filter ARP", "reason", err)
		}
	}
	if l.nd != nil {
		var f ipv6.ICMPFilter
		f.SetAll(true)
		if six {
			f.Accept(ipv6.ICMPTypeNeighborAdvertisement)
		}
		if err := l.nd.SetICMPFilter(&f); err != nil {
			l.log.Warn("cannot filter neighbour advertisements", "reason", err)
		}
	}
}

func (l *ClaimListener) wants(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addrs[a]
}

// Run listens until ctx ends. What cannot be opened is tried again.
func (l *ClaimListener) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.keepReading(ctx, "ARP", l.readARP) })
	wg.Go(func() { l.keepReading(ctx, "neighbour advertisements", l.readND) })
	wg.Wait()
	return nil
}

func (l *ClaimListener) keepReading(ctx context.Context, what string, read func(context.Context) error) {
	for told := ""; ctx.Err() == nil; {
		err := read(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != told {
			told = text
			l.log.Warn("cannot hear who else claims the addresses by "+what, "reason", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(claimReopen):
		}
	}
}

// readARP reads ARP until ctx ends or an error occurs, which it returns.
func (l *ClaimListener) readARP(ctx context.Context) error {
	// Nothing is passed before the filter is set.
	nothing := mustAssemble(bpf.RetConstant{Val: 0})
	conn, err := packet.Listen(&net.Interface{}, packet.Raw, int(ethernet.EtherTypeARP), &packet.Config{Filter: nothing})
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, claimBuffer)
	})
	l.mu.Lock()
	l.arp = conn
	l.filter()
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.arp = nil
		l.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 2048)
	for {
		for range claimBatch {
			n, link, err := receive(raw, buf)
			if err != nil {
				return fmt.Errorf("read ARP: %w", err)
			}
			if link == 0 || n < etherLen {
				continue
			}
			if c, ok := arpClaim(buf[etherLen:n]); ok {
				c.Link = link
				l.pass(c)
			}
		}
		pause(ctx)
	}
}

// receive waits for one frame and returns its length and the index of its link,
// which packet.Conn does not tell.
func receive(raw syscall.RawConn, buf []byte) (n, link int, err error) {
	var from unix.Sockaddr
	var received error
	err = raw.Read(func(fd uintptr) bool {
		n, from, received = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return !errors.Is(received, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return 0, 0, err
	case errors.Is(received, unix.ENETDOWN), errors.Is(received, unix.EINTR):
		return 0, 0, nil // a link's trouble, not the socket's
	case received != nil:
		return 0, 0, received
	}
	if at, ok := from.(*unix.SockaddrLinklayer); ok {
		link = at.Ifindex
	}
	return n, link, nil
}

// readND reads neighbour advertisements until ctx ends or an error occurs, which it
// returns. They come over a socket for ICMPv6 rather than one for frames, which would
// look at each IPv6 packet of the machine.
func (l *ClaimListener) readND(ctx context.Context) error {
	conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return fmt.Errorf("open ICMPv6 socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	p := ipv6.NewPacketConn(conn)
	if err := p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true); err != nil {
		return fmt.Errorf("open ICMPv6 socket: %w", err)
	}
	if c, ok := conn.(*net.IPConn); ok {
		_ = c.SetReadBuffer(claimBuffer)
	}
	l.mu.Lock()
	l.nd = p
	l.filter()
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.nd = nil
		l.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 2048)
	for {
		for range claimBatch {
			n, cm, _, err := p.ReadFrom(buf)
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return err
				}
				return fmt.Errorf("read neighbour advertisements: %w", err)
			}
			if cm == nil {
				continue
			}
			if c, ok := naClaim(buf[:n], cm.HopLimit); ok {
				c.Link = cm.IfIndex
				l.pass(c)
			}
		}
		pause(ctx)
	}
}

func (l *ClaimListener) pass(c Claim) {
	if l.wants(c.Addr) {
		l.sink(c)
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(claimPause):
	}
}

// BridgePort returns the name of the port behind which the bridge with the index
// link has last seen mac, or "" if link is no bridge or it does not know.
func BridgePort(link int, mac net.HardwareAddr) string {
	entries, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.MasterIndex == link && e.LinkIndex != link && slices.Equal(e.HardwareAddr, mac) {
			name, err := linkName(e.LinkIndex)
			if err != nil {
				return ""
			}
			return name
		}
	}
	return ""
}
