package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// askEvery is the time between two questions while nothing is heard.
const askEvery = time.Second

// listenOnce returns nil as soon as a frame of another machine has come in, and asks
// for an address meanwhile, as a prober does: nobody's caches are changed. What a
// switch says of itself (BPDUs, LLDP, IGMP and MLD queries) is not heard, as it comes
// through ports that do not forward.
func listenOnce(ctx context.Context, l Link, ask netip.Addr) error {
	filter, err := bpf.Assemble(fromOthers(l.MAC))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", l.Name, err)
	}
	conn, err := packet.Listen(&net.Interface{Index: l.Index}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("listen on %s: %w: %w", l.Name, ErrGone, err)
		}
		return fmt.Errorf("listen on %s: %w", l.Name, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var question []byte
	switch {
	case ask.Is4():
		question, err = arpProbe(l.MAC, ask)
	case ask.Is6():
		question, err = dadSolicit(l.MAC, ask)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", l.Name, err)
	}
	buf := make([]byte, 64)
	for {
		if question != nil { // one that cannot be sent is one without answer
			_, _ = conn.WriteTo(question, &packet.Addr{HardwareAddr: question[:6]})
		}
		if err := conn.SetReadDeadline(time.Now().Add(askEvery)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, _, err := conn.ReadFrom(buf)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("listen on %s: %w: %w", l.Name, ErrGone, err)
		}
	}
}

// fromOthers accepts ARP, and IPv4 and IPv6 that are no multicast other than neighbour
// discovery, in frames without a VLAN tag that came in from another hardware address
// than mac.
func fromOthers(mac net.HardwareAddr) []bpf.Instruction {
	const reject = 255
	p := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: reject},
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: reject},
		bpf.LoadAbsolute{Off: 6, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(mac), SkipTrue: 2},
		bpf.LoadAbsolute{Off: 10, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(mac[4:])), SkipTrue: reject},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 11}, // to accept
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: reject},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_MULTICAST, SkipTrue: 7}, // to accept
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: reject},
		bpf.LoadAbsolute{Off: etherLen + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoICMPv6, SkipTrue: reject},
		bpf.LoadAbsolute{Off: etherLen + 40, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 133, SkipTrue: reject},    // router solicitation
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 136, SkipTrue: reject}, // neighbour advertisement
		bpf.RetConstant{Val: 64},
		bpf.RetConstant{Val: 0},
	}
	last := len(p) - 1
	for i, in := range p {
		if j, ok := in.(bpf.JumpIf); ok && j.SkipTrue == reject {
			j.SkipTrue = uint8(last - i - 1)
			p[i] = j
		}
	}
	return p
}
