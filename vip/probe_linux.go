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

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
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
	q, err := openQuestion(link, addr)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = q.conn.Close() }()
	for range probeCount {
		if mac, err := ask(ctx, q.conn, q.frame, q.to, addr, q.own); err != nil {
			return fail(err)
		} else if mac != nil {
			return mac, true, nil
		}
	}
	return nil, false, nil
}

// A question is a socket on a link and the frame that asks there for an address.
type question struct {
	conn  *packet.Conn
	frame []byte
	to    net.Addr
	own   []string // hardware addresses of this node
}

// openQuestion prepares to ask on the link who has addr.
func openQuestion(link string, addr netip.Addr) (question, error) {
	host, err := OpenHost()
	if err != nil {
		return question{}, err
	}
	links, err := host.Links()
	host.Close()
	if err != nil {
		return question{}, err
	}
	l, err := findLink(links, link)
	switch {
	case err != nil:
		return question{}, err
	case len(l.MAC) != 6:
		return question{}, errors.New("the interface has no Ethernet address")
	case !l.Running:
		return question{}, errors.New("the interface is down")
	}
	frame, err := arpProbe(l.MAC, addr)
	etherType := ethernet.EtherTypeARP
	if addr.Is6() {
		frame, err = dadSolicit(l.MAC, addr)
		etherType = ethernet.EtherTypeIPv6
	}
	if err != nil {
		return question{}, err
	}
	conn, err := packet.Listen(&net.Interface{Index: l.Index}, packet.Raw, int(etherType), &packet.Config{Filter: forThisNode})
	if err != nil {
		return question{}, fmt.Errorf("open packet socket: %w", err)
	}
	return question{conn: conn, frame: frame, to: &packet.Addr{HardwareAddr: frame[:6]}, own: localMACs(links)}, nil
}

// forThisNode lets in what is for this node's own LAN. The rest, of a VLAN without
// a device here, arrives as a packet for another host, which packet.Addr does not
// tell.
var forThisNode = mustAssemble(
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpLessThan, Val: unix.PACKET_OTHERHOST, SkipFalse: 1},
	bpf.RetConstant{Val: 1 << 18}, // all of it
	bpf.RetConstant{Val: 0},
)

// ask sends the frame and returns the first claimant of addr that is not one of
// own, or nil if there is none within probeGap.
func ask(ctx context.Context, conn *packet.Conn, frame []byte, to net.Addr, addr netip.Addr, own []string) (net.HardwareAddr, error) {
	if err := conn.SetDeadline(time.Now().Add(probeGap)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := conn.WriteTo(frame, to)
	buf := make([]byte, 2048)
	for {
		var n int
		if err == nil {
			n, _, err = conn.ReadFrom(buf)
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case err != nil:
			return nil, err
		}
		if mac, ok := claimant(buf[:n], addr); ok && !slices.Contains(own, mac.String()) {
			return mac, nil
		}
	}
}
