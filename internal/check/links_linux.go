package check

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetlinkLinks is the LinkSource of the kernel: route netlink, in the network
// namespace of the thread that calls Watch. The zero value is ready.
type NetlinkLinks struct{}

// Watch implements LinkSource. An interface is up if it has the flags IFF_UP and
// IFF_RUNNING (netdevice(7)): switched on, and with carrier as far as the driver
// can tell.
//
// It returns an error when the kernel has dropped notifications or the socket
// fails; calling it again begins with a complete new state.
func (NetlinkLinks) Watch(ctx context.Context, report func(up map[string]bool)) error {
	updates := make(chan netlink.LinkUpdate, 16)
	done := make(chan struct{})
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default: // the first is enough
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // let the sender see that the socket is closed
		}
	}()

	// Subscribed first, so that no change falls between the two.
	table, err := listLinks()
	if err != nil {
		return err
	}
	last := table.byName()
	report(maps.Clone(last))
	reason := errors.New("the socket was closed")
	for {
		select {
		case <-ctx.Done():
			return nil
		case reason = <-failed:
			// A message was not understood, or the end has come, which the closed
			// channel tells.
			if table, err = listLinks(); err != nil {
				return err
			}
		case u, ok := <-updates:
			if !ok {
				select {
				case reason = <-failed:
				default:
				}
				return fmt.Errorf("follow link changes: %w", reason)
			}
			// A bridge sends messages of its own family when a port joins or leaves
			// it. A deletion of that family does not delete the interface.
			if u.Family == unix.AF_BRIDGE {
				continue
			}
			if u.Header.Type == unix.RTM_DELLINK {
				delete(table, u.Attrs().Index)
			} else {
				table.set(u.Link)
			}
		}
		if now := table.byName(); !maps.Equal(now, last) {
			last = now
			report(maps.Clone(now))
		}
	}
}

// listLinks returns the present interfaces. A dump that was interrupted by
// changes all the time is good enough: the changes are notified as well.
func listLinks() (linkTable, error) {
	var all []netlink.Link
	var err error = netlink.ErrDumpInterrupted
	for i := 0; errors.Is(err, netlink.ErrDumpInterrupted) && i < 5; i++ {
		all, err = netlink.LinkList()
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	table := make(linkTable, len(all))
	for _, l := range all {
		table.set(l)
	}
	return table, nil
}

// A linkTable is what is known of the interfaces, by index: a name can change.
type linkTable map[int]struct {
	name string
	up   bool
}

func (t linkTable) set(l netlink.Link) {
	const up = unix.IFF_UP | unix.IFF_RUNNING
	a := l.Attrs()
	t[a.Index] = struct {
		name string
		up   bool
	}{a.Name, a.RawFlags&up == up}
}

func (t linkTable) byName() map[string]bool {
	m := make(map[string]bool, len(t))
	for _, l := range t {
		m[l.name] = l.up
	}
	return m
}
