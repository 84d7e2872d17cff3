package vrrpnet

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrVMACTaken says that an interface which is not ours is in the way of a virtual
// MAC, or that another process on this machine runs it.
var ErrVMACTaken = errors.New("virtual MAC is taken")

// addrGenNone is IN6_ADDR_GEN_MODE_NONE: the kernel makes no link-local address.
const addrGenNone = 1

// A vmac is a virtual MAC interface that this process made.
type vmac struct {
	link  netlink.Link
	base  netlink.Link
	holds []setting
	lock  int
}

// mark is the alias of the interfaces we make, for a person and for the next
// start after a crash: name, MAC address and parent alone may be keepalived's.
func (o Options) mark() string {
	family := "IPv4"
	if o.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("raftvip VRRP %s router %d", family, o.VRID)
}

// ours tells whether the interface is a virtual MAC of this virtual router that
// this program made on the base.
func (o Options) ours(link, base netlink.Link) bool {
	a := link.Attrs()
	return link.Type() == "macvlan" && a.ParentIndex == parentOf(base) &&
		bytes.Equal(a.HardwareAddr, o.mac()) && a.Alias == o.mark()
}

// parentOf returns the index of the parent that a macvlan on the base has. On
// another macvlan, as in a container, the kernel puts it beside that one.
func parentOf(base netlink.Link) int {
	if base.Type() == "macvlan" {
		return base.Attrs().ParentIndex
	}
	return base.Attrs().Index
}

// openVMAC makes the virtual MAC interface on the base and sets it up, after
// removing what a crash left of it, virtual addresses included.
func (o Options) openVMAC(base netlink.Link) (v *vmac, err error) {
	on := base.Attrs().Name
	v = &vmac{base: base, lock: -1}
	defer func() {
		if err != nil {
			err = fmt.Errorf("virtual MAC of router %d on %s: %w", o.VRID, on, errors.Join(err, v.close(o)))
			v = nil
		}
	}()
	if v.lock, err = o.lockVMAC(parentOf(base)); err != nil {
		return v, err
	}
	name, err := o.freeName(base)
	if err != nil {
		return v, err
	}
	if err := narrowReversePath(); err != nil {
		return v, err
	}
	if err := held.acquire(baseSettings(on)); err != nil {
		return v, err
	}
	v.holds = baseSettings(on)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = name, base.Attrs().Index, o.mac()
	if err := netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}); err != nil {
		return v, fmt.Errorf("add %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return v, linkError(name, err)
	}
	v.link = link
	// The mark comes first: a crash from here on leaves what is provably ours.
	if err := netlink.LinkSetAlias(link, o.mark()); err != nil {
		return v, fmt.Errorf("mark %s: %w", name, err)
	}
	link.Attrs().Alias = o.mark()
	// RFC 9568 section 7.4: no interface identifier is made from the virtual MAC.
	if err := netlink.LinkSetIP6AddrGenMode(link, addrGenNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return v, fmt.Errorf("set address generation of %s: %w", name, err)
	}
	for _, s := range vmacSettings(name) {
		if err := s.apply(); err != nil {
			return v, err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: another interface on %s has %v: %w", ErrVMACTaken, on, o.mac(), err)
		}
		return v, fmt.Errorf("set %s up: %w", name, err)
	}
	return v, nil
}

// freeName returns the name for the interface, after removing our leftover.
func (o Options) freeName(base netlink.Link) (string, error) {
	names := o.vmacNames()
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("find %s: %w", name, err)
		}
		if !o.ours(link, base) {
			continue
		}
		if err := netlink.LinkDel(link); err != nil {
			return "", fmt.Errorf("remove leftover %s: %w", name, err)
		}
		return name, nil
	}
	return "", fmt.Errorf("%w: an interface %s exists and was not made here", ErrVMACTaken, names[0])
}

// lockVMAC makes sure that no other process in this network namespace runs the same
// virtual MAC: its interface is no leftover. An abstract Unix address is known in
// its network namespace only, and is free again when its process is dead.
func (o Options) lockVMAC(parent int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open lock: %w", err)
	}
	name := fmt.Sprintf("@raftvip/vmac/%d/%v", parent, o.mac())
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: it is in use on this machine", ErrVMACTaken)
		}
		return -1, err
	}
	return fd, nil
}

// present tells whether the interface is still there, up, and on the given base.
func (v *vmac) present(o Options, base netlink.Link) bool {
	link, err := netlink.LinkByIndex(v.link.Attrs().Index)
	return err == nil && v.base.Attrs().Index == base.Attrs().Index && o.ours(link, base) && link.Attrs().RawFlags&unix.IFF_UP != 0
}

// exists tells whether there is such an interface at all. The kernel removes it
// with its base.
func (v *vmac) exists() bool {
	_, err := netlink.LinkByIndex(v.link.Attrs().Index)
	return err == nil
}

// close removes the interface and puts back what it changed. It may be called more
// than once.
func (v *vmac) close(o Options) error {
	var err error
	if v.link != nil {
		// By index, and only if that is still our interface.
		link, e := netlink.LinkByIndex(v.link.Attrs().Index)
		if e == nil && (o.ours(link, v.base) || link.Attrs().Alias == "") && link.Attrs().Name == v.link.Attrs().Name {
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) && !errors.Is(err, unix.ENODEV) {
			err = fmt.Errorf("remove %s: %w", v.link.Attrs().Name, err)
		}
		v.link = nil
	}
	held.release(v.holds)
	v.holds = nil
	if v.lock >= 0 {
		_ = unix.Close(v.lock)
		v.lock = -1
	}
	return err
}
