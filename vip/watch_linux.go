package vip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchBuffer is the receive buffer for changes: 1000 addresses at once make about
// 1000 messages of some 200 bytes, each accounted with its overhead.
const watchBuffer = 4 << 20

// gather is the time that changes wait for more of them when they come in numbers.
const gather = time.Millisecond

// Watch implements Host. Links and addresses come over one socket, so that their
// order is the kernel's.
func (h *Netlink) Watch(ctx context.Context, sink func(Event)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer s.Close()
	// Forcing needs CAP_NET_ADMIN; a smaller buffer means more snapshots.
	_ = s.SetReceiveBufferSize(watchBuffer, true)
	// A file of our own, which can be waited for with a deadline.
	fd, err := unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	f := os.NewFile(uintptr(fd), "route netlink events")
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	if err := h.snapshot(sink); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := h.follow(ctx, f, sink); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	return nil
}

// follow reads changes until ctx ends, upon which f has a deadline that has passed.
// The first change is read at once; those that follow it closely are left to
// gather: during a take there are a thousand, and to wake up for each would take
// the processors that the take needs.
func (h *Netlink) follow(ctx context.Context, f *os.File, sink func(Event)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	var woken time.Time
	for {
		var n int
		var from unix.Sockaddr
		var received error
		waited := false
		err := raw.Read(func(fd uintptr) bool {
			n, from, received = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			waited = waited || errors.Is(received, unix.EAGAIN)
			return !errors.Is(received, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case errors.Is(received, unix.ENOBUFS): // changes were lost
			if err := h.snapshot(sink); err != nil {
				return err
			}
			continue
		case errors.Is(received, unix.EINTR):
			continue
		case received != nil:
			return received
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == nl.PidKernel {
			msgs, err := syscall.ParseNetlinkMessage(buf[:n])
			if err != nil {
				return err
			}
			for _, m := range msgs {
				if e, ok := parseEvent(m.Header.Type, m.Data); ok {
					sink(e)
				}
			}
		}
		if waited {
			now := time.Now()
			if now.Sub(woken) < 2*gather {
				time.Sleep(gather)
			}
			woken = now
		}
	}
}

func (h *Netlink) snapshot(sink func(Event)) error {
	links, err := h.Links()
	if err != nil {
		return err
	}
	sink(Event{Kind: Snapshot, Links: links})
	return nil
}

// parseEvent returns false for a message that is no change of a link or address,
// or cannot be read.
func parseEvent(msgType uint16, data []byte) (Event, bool) {
	switch msgType {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok, err := parseLinkMessage(data)
		if err != nil || !ok {
			return Event{}, false
		}
		if msgType == unix.RTM_DELLINK {
			return Event{Kind: LinkRemoved, Link: Link{Index: l.Index}}, true
		}
		return Event{Kind: LinkChanged, Link: l}, true
	case unix.RTM_NEWNETCONF:
		l, ok := parseNetconfMessage(data)
		return Event{Kind: ForwardingChanged, Link: l}, ok
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		index, a, err := parseAddrMessage(data)
		if err != nil {
			return Event{}, false
		}
		e := Event{Kind: AddressAdded, Link: Link{Index: index}, Address: a}
		if msgType == unix.RTM_DELADDR {
			e.Kind = AddressRemoved
		}
		return e, true
	}
	return Event{}, false
}
