package vip

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchBuffer is the receive buffer for changes: 1000 addresses at once make about
// 1000 messages of some 200 bytes, each accounted with its overhead.
const watchBuffer = 4 << 20

// Watch implements Host. Links and addresses come over one socket, so that their
// order is the kernel's.
func (h *Netlink) Watch(ctx context.Context, sink func(Event)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	// Forcing needs CAP_NET_ADMIN; a smaller buffer means more snapshots.
	_ = s.SetReceiveBufferSize(watchBuffer, true)

	if err := h.snapshot(sink); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	for {
		msgs, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			// Changes were lost.
			if err := h.snapshot(sink); err != nil {
				return fmt.Errorf("watch addresses: %w", err)
			}
			continue
		case err != nil:
			return fmt.Errorf("watch addresses: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range msgs {
			if e, ok := parseEvent(m.Header.Type, m.Data); ok {
				sink(e)
			}
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
