package vrrpnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoInterface says that the interface does not exist or cannot be used now: it
// is switched off or has no carrier. It may come back.
var ErrNoInterface = errors.New("interface not usable")

// A place is where in this machine a virtual router is: what a Conn was opened
// with. When the kernel's answer differs, the Conn has to be opened again.
type place struct {
	base   netlink.Link // never nil
	source netip.Addr
}

// same tells whether sockets opened at p are still right at q.
func (p place) same(q place) bool {
	return p.base.Attrs().Index == q.base.Attrs().Index &&
		p.base.Attrs().Name == q.base.Attrs().Name && p.source == q.source
}

// locate asks the kernel where a router with these options is now.
func (o Options) locate() (place, error) {
	var p place
	var index int
	if o.Interface != "" {
		link, err := netlink.LinkByName(o.Interface)
		if err != nil {
			return p, linkError(o.Interface, err)
		}
		p.base, index = link, link.Attrs().Index
	}
	all, err := addresses(o.IPv6)
	if err != nil {
		return p, fmt.Errorf("list addresses: %w", err)
	}
	a, err := o.source(all, index)
	if err != nil {
		if o.Interface != "" {
			err = fmt.Errorf("%s: %w", o.Interface, err)
		}
		return p, err
	}
	p.source = a.addr
	if p.base == nil {
		if p.base, err = netlink.LinkByIndex(a.index); err != nil {
			return p, linkError(fmt.Sprintf("the interface of %v", a.addr), err)
		}
	}
	flags, name := p.base.Attrs().RawFlags, p.base.Attrs().Name
	switch {
	case o.IgnoreCarrier:
	case flags&unix.IFF_UP == 0:
		return p, fmt.Errorf("%w: %s is down", ErrNoInterface, name)
	case flags&unix.IFF_RUNNING == 0:
		return p, fmt.Errorf("%w: %s has no carrier", ErrNoInterface, name)
	}
	return p, nil
}

func linkError(what string, err error) error {
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return fmt.Errorf("%w: %s does not exist", ErrNoInterface, what)
	}
	return fmt.Errorf("find %s: %w", what, err)
}

// addresses lists the machine's addresses of a family.
func addresses(ipv6 bool) ([]address, error) {
	family := netlink.FAMILY_V4
	if ipv6 {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.AddrList(nil, family)
	// A listing interrupted by a change is good enough: the change is notified.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	all := make([]address, 0, len(list))
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		all = append(all, address{
			addr: ip.Unmap(), index: a.LinkIndex,
			unusable: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0,
			passing:  a.Flags&unix.IFA_F_PERMANENT == 0 || a.Flags&unix.IFA_F_DEPRECATED != 0 || ipv6 && a.Flags&unix.IFA_F_TEMPORARY != 0,
			// IPv6 uses the same bit for a temporary address.
			secondary: !ipv6 && a.Flags&unix.IFA_F_SECONDARY != 0,
			narrow:    a.Scope >= unix.RT_SCOPE_LINK,
		})
	}
	return all, nil
}
