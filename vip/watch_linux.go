package vip

import (
	"context"
	"errors"
	"fmt"
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
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_, _ = unix.Write(end, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	})
	defer func() {
		if !stop() {
			<-ended
		}
		_ = unix.Close(end)
	}()

	if err := h.snapshot(sink); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := h.follow(ctx, s.GetFd(), end, sink); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	return nil
}

// follow reads changes until ctx ends, upon which end is readable. It waits in
// poll(2) rather than in the runtime's poller, which wakes a thread for every
// message that arrives: during a take that would be a thousand times, on the cores
// that the take needs. So the first change is read at once, and those that follow
// it closely are left to gather.
func (h *Netlink) follow(ctx context.Context, fd, end int, sink func(Event)) error {
	buf := make([]byte, 64<<10)
	var last time.Time
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(end), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if time.Since(last) < gather {
			time.Sleep(gather)
		}
		for {
			if ctx.Err() != nil {
				return nil
			}
			n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.ENOBUFS) { // changes were lost
				if err := h.snapshot(sink); err != nil {
					return err
				}
				continue
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			if sa, ok := from.(*unix.SockaddrNetlink); err != nil || !ok || sa.Pid != nl.PidKernel {
				continue
			}
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
		last = time.Now()
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
