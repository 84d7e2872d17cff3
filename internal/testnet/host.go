package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one network namespace of a lab: a node, a client or the observer.
type Host struct {
	lab    *Lab
	name   string
	num    int
	nsName string
	ns     netns.NsHandle
	nl     *netlink.Handle
	pids   pidSpace

	// Indexed by Network: the host's side and the switch's side of each link.
	nets  []labNet
	macs  []net.HardwareAddr
	links []int
	ports []int
}

// newHost makes a namespace with lo up and no other link.
func (l *Lab) newHost(name string, num int) (*Host, error) {
	h := &Host{lab: l, name: name, num: num, nsName: l.prefix + name, ns: netns.None()}
	err := onThread(func() error {
		ns, err := netns.NewNamed(h.nsName) // also moves this thread into it
		if err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		h.ns = ns
		s := hostSysctls
		if name == "switch" {
			s = switchSysctls
		}
		return setSysctls(s)
	})
	if err == nil {
		h.nl, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE)
	}
	if err == nil {
		var lo netlink.Link
		if lo, err = h.nl.LinkByName("lo"); err == nil {
			err = h.nl.LinkSetUp(lo)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host %s: %w", name, err), h.close())
	}
	return h, nil
}

func (h *Host) close() error {
	if h.nl != nil {
		h.nl.Close()
	}
	if !h.ns.IsOpen() {
		return nil
	}
	h.pids.close()
	_ = h.ns.Close()
	return removeNamespace(h.nsName)
}

// Name returns n1, c1, observer, ...
func (h *Host) Name() string { return h.name }

// String returns the host's name.
func (h *Host) String() string { return h.name }

// Namespace returns the name by which `ip netns exec` knows the host.
func (h *Host) Namespace() string { return h.nsName }

// Addr4 returns the host's own IPv4 address on the network.
func (h *Host) Addr4(n Network) netip.Addr { return nth(h.nets[n].v4, h.num) }

// Addr6 returns the host's own IPv6 address on the network.
func (h *Host) Addr6(n Network) netip.Addr { return nth(h.nets[n].v6, h.num) }

// MAC returns the hardware address of the host's interface on the network.
func (h *Host) MAC(n Network) net.HardwareAddr { return append(net.HardwareAddr(nil), h.macs[n]...) }

// Do runs f on an operating-system thread that is in the host's namespace.
// Sockets made by f stay in that namespace and may be used anywhere; goroutines
// started by f are not in it, so dial literal addresses, not names.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter namespace of %s: %w", h.name, err)
		}
		return f()
	})
}

// Addrs returns all addresses of the host's interfaces other than lo.
func (h *Host) Addrs() ([]netip.Prefix, error) {
	as, err := h.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", h.name, err)
	}
	var out []netip.Prefix
	for _, a := range as {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ip.Unmap().IsLoopback() {
			continue
		}
		ones, _ := a.Mask.Size()
		out = append(out, netip.PrefixFrom(ip.Unmap(), ones))
	}
	return out, nil
}

// AddrsOf returns all addresses of the host's interfaces other than lo.
func (l *Lab) AddrsOf(h *Host) ([]netip.Prefix, error) { return h.Addrs() }

// Has tells whether the host has the address on any interface.
func (h *Host) Has(a netip.Addr) (bool, error) {
	ps, err := h.Addrs()
	for _, p := range ps {
		if p.Addr() == a {
			return true, nil
		}
	}
	return false, err
}

// AddAddr adds the address, alone on its prefix, to the host's front interface,
// without announcing it.
func (h *Host) AddAddr(a netip.Addr) error {
	p := ipNet(a, a.BitLen())
	if a.Is6() {
		p.Flags = unix.IFA_F_NODAD
	}
	p.LinkIndex = h.links[Front]
	if err := h.nl.AddrAdd(nil, p); err != nil {
		return fmt.Errorf("add %v to %s: %w", a, h.name, err)
	}
	return nil
}

// DelAddr removes an address that AddAddr added.
func (h *Host) DelAddr(a netip.Addr) error {
	p := ipNet(a, a.BitLen())
	p.LinkIndex = h.links[Front]
	if err := h.nl.AddrDel(nil, p); err != nil {
		return fmt.Errorf("delete %v from %s: %w", a, h.name, err)
	}
	return nil
}

// Exec runs a command in the host to its end and returns what it printed.
func (h *Host) Exec(ctx context.Context, args ...string) (string, error) {
	p, err := h.Start(Cmd{Args: args})
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Kill()
		_, _ = p.Wait(5 * time.Second)
		return p.Output(), fmt.Errorf("run %q in %s: %w", strings.Join(args, " "), h.name, context.Cause(ctx))
	}
	if _, err := p.Wait(0); err != nil {
		return p.Output(), fmt.Errorf("run %q in %s: %w: %s", strings.Join(args, " "), h.name, err, strings.TrimSpace(p.Tail(2000)))
	}
	return p.Output(), nil
}

// onThread runs f on a thread of its own whose namespace f may change. The thread
// is given back only if its namespace could be restored.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		orig, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("find own namespace: %w", err)
			return
		}
		err = f()
		if netns.Set(orig) == nil {
			runtime.UnlockOSThread()
		}
		_ = orig.Close()
		done <- err
	}()
	return <-done
}

// Packets returns how many packets the host has sent and received on the network
// so far, as its link counts them.
func (h *Host) Packets(n Network) (sent, received uint64, err error) {
	link, err := h.nl.LinkByIndex(h.links[n])
	if err != nil {
		return 0, 0, fmt.Errorf("count packets of %s: %w", h.name, err)
	}
	s := link.Attrs().Statistics
	if s == nil {
		return 0, 0, fmt.Errorf("count packets of %s: the link has no statistics", h.name)
	}
	return s.TxPackets, s.RxPackets, nil
}
