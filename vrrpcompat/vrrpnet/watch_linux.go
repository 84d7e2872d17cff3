package vrrpnet

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rewatchAfter is how long to wait before following the kernel again after that
// has failed, as it does when more changes than notifications could be kept.
const rewatchAfter = 200 * time.Millisecond

// watch calls changed whenever a link or an address of this machine may have
// changed, until ctx ends.
func watch(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		_ = follow(ctx, changed) // whatever it was, look again and go on
		changed()
		select {
		case <-ctx.Done():
		case <-time.After(rewatchAfter):
		}
	}
}

func follow(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return fmt.Errorf("subscribe to link and address changes: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	changed() // what happened before
	for {
		if _, _, err := s.Receive(); err != nil {
			return fmt.Errorf("follow link and address changes: %w", err)
		}
		changed()
	}
}
