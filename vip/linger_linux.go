package vip

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lingerFrom is the number of IPv6 addresses deleted together from which their
	// groups are kept. The first batch of a long list has as many.
	lingerFrom = deleteBatch
	// lingerFor is how long they are kept after the last.
	lingerFor = time.Minute
	// lingerJoins bounds the memberships of one socket, which are in a list, and in
	// the memory that it may use for options (net.core.optmem_max).
	lingerJoins = 200
)

// A linger stays in the solicited-node groups of IPv6 addresses (RFC 4291 2.7.1) for
// some time after they were deleted.
//
// The kernel remembers for one or two seconds each group that the last member has
// left, to report that it has. And for every address that is added it goes through
// all groups of the link, and for each of these through all those left (ipv6_mc_up,
// mld_del_delrec): a thousand addresses that come back within these seconds take
// the processor for two seconds, and the network's state for as long. With the
// groups kept it is a quarter of a second. To be in a group without the address
// means to receive solicitations that nobody answers.
type linger struct {
	mu     sync.Mutex
	socks  []int
	joins  int // of the last socket
	groups map[lingerGroup]bool
	last   time.Time
	timer  *time.Timer
}

type lingerGroup struct {
	link int
	ip   [16]byte
}

// solicitedNode returns the multicast address that the neighbours ask for addr at.
func solicitedNode(addr netip.Addr) [16]byte {
	a := addr.As16()
	return [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
}

// before is called before the changes are made, and joins the groups of the IPv6
// addresses that they delete. What fails makes a later take slower and is no error.
func (l *linger) before(changes []Change) {
	var groups []lingerGroup
	for _, c := range changes {
		if c.Kind == DeleteAddress && c.Address.Prefix.Addr().Is6() {
			groups = append(groups, lingerGroup{link: c.Link, ip: solicitedNode(c.Address.Prefix.Addr())})
		}
	}
	if len(groups) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(groups) < lingerFrom && time.Since(l.last) > time.Second {
		return
	}
	l.last = time.Now()
	for _, g := range groups {
		if l.groups[g] {
			continue
		}
		if l.join(g) != nil {
			break
		}
		if l.groups == nil {
			l.groups = map[lingerGroup]bool{}
		}
		l.groups[g] = true
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(lingerFor, l.end)
	}
	l.timer.Reset(lingerFor)
}

// join is called with mu held.
func (l *linger) join(g lingerGroup) error {
	if len(l.socks) == 0 || l.joins >= lingerJoins {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		l.socks, l.joins = append(l.socks, fd), 0
	}
	mreq := &unix.IPv6Mreq{Multiaddr: g.ip, Interface: uint32(g.link)}
	err := unix.SetsockoptIPv6Mreq(l.socks[len(l.socks)-1], unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, mreq)
	if errors.Is(err, unix.ENOMEM) && l.joins > 0 {
		l.joins = lingerJoins // the socket has no room for more
		return l.join(g)
	}
	l.joins++
	return err
}

// end leaves all groups.
func (l *linger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fd := range l.socks {
		_ = unix.Close(fd)
	}
	l.socks, l.groups = nil, nil
}

// close leaves all groups for good.
func (l *linger) close() {
	l.mu.Lock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.end()
}
