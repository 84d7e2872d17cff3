package testnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// build makes switch, hosts and links. What it made before an error is in l, for
// Close.
func (l *Lab) build(ctx context.Context, o Options) error {
	l.nets = []labNet{{id: Front, v4: o.Subnet4, v6: o.Subnet6}}
	if o.PeerNetwork {
		l.nets = append(l.nets, labNet{id: Peer, v4: o.PeerSubnet4, v6: o.PeerSubnet6})
	}
	var err error
	if l.sw, err = l.newHost("switch", 0); err != nil {
		return err
	}
	for i := range l.nets {
		if err := l.addBridge(&l.nets[i], o.MulticastSnooping); err != nil {
			return err
		}
	}
	add := func(name string, num, addrs int, nets []labNet) (*Host, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := l.newHost(name, num)
		if err != nil {
			return nil, err
		}
		for _, n := range nets {
			if err = l.plug(h, n, addrs); err != nil {
				break
			}
		}
		return h, err // a half-plugged host is returned too, to be closed
	}
	for i := range o.Nodes {
		h, err := add(fmt.Sprintf("n%d", i+1), nodeBase+i, 1, l.nets)
		if h != nil {
			l.nodes = append(l.nodes, h)
		}
		if err != nil {
			return err
		}
	}
	for i := range o.Clients {
		h, err := add(fmt.Sprintf("c%d", i+1), clientBase+i, 1, l.nets[:1])
		if h != nil {
			l.clients = append(l.clients, h)
		}
		if err != nil {
			return err
		}
	}
	if l.observer, err = add("observer", observerTag, maxProbers*probeTags, l.nets[:1]); err != nil {
		return err
	}
	if l.faults, err = newFaults(l); err != nil {
		return err
	}
	return l.awaitLinks(ctx)
}

// awaitLinks waits until every link has its carrier. The kernel tells the bridge
// of it with some delay, until which a port forwards nothing; a question of who
// has an address lost then is repeated only after a second.
func (l *Lab) awaitLinks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return WaitFor(ctx, "links to be up", func() error {
		for _, h := range l.endHosts() {
			for n := range h.links {
				for side, up := range map[string]func() (netlink.Link, error){
					"host":   func() (netlink.Link, error) { return h.nl.LinkByIndex(h.links[n]) },
					"switch": func() (netlink.Link, error) { return l.sw.nl.LinkByIndex(h.ports[n]) },
				} {
					link, err := up()
					if err != nil {
						return err
					}
					if s := link.Attrs().OperState; s != netlink.OperUp {
						return fmt.Errorf("link of %s on %v, %s side: %v", h.name, Network(n), side, s)
					}
				}
			}
		}
		return nil
	})
}

func (l *Lab) addBridge(n *labNet, snooping bool) error {
	name := fmt.Sprintf("br%d", int(n.id))
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	br.Name = name
	// Spanning tree is off unless asked for, so ports forward at once.
	if err := l.sw.nl.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	link, err := l.sw.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", name, err)
	}
	n.bridge = link.Attrs().Index
	if err := l.sw.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge %s up: %w", name, err)
	}
	return nil
}

// plug joins the host to the network by a veth whose other end is a port of the
// switch, and gives it addrs addresses of each family.
func (l *Lab) plug(h *Host, n labNet, addrs int) error {
	dev, port := n.id.String(), fmt.Sprintf("%s.%d", h.name, int(n.id))
	mac := net.HardwareAddr{0x02, 0, 0, byte(n.id), 0, byte(h.num)}
	veth := &netlink.Veth{
		LinkAttrs: netlink.NewLinkAttrs(), PeerName: dev,
		PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(h.ns)),
	}
	veth.Name = port
	veth.MasterIndex = n.bridge
	if err := l.sw.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s: %w", port, err)
	}
	pl, err := l.sw.nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s: %w", port, err)
	}
	if err := l.sw.nl.LinkSetUp(pl); err != nil {
		return fmt.Errorf("set port %s up: %w", port, err)
	}
	hl, err := h.nl.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", dev, h.name, err)
	}
	if err := h.nl.LinkSetUp(hl); err != nil {
		return fmt.Errorf("set %s in %s up: %w", dev, h.name, err)
	}
	for i := range addrs {
		for _, p := range []*netlink.Addr{ipNet(nth(n.v4, h.num+i), n.v4.Bits()), ipNet(nth(n.v6, h.num+i), n.v6.Bits())} {
			if p.IP.To4() == nil {
				p.Flags = unix.IFA_F_NODAD
			}
			if err := h.nl.AddrAdd(hl, p); err != nil {
				return fmt.Errorf("add %v to %s in %s: %w", p.IPNet, dev, h.name, err)
			}
		}
	}
	h.nets = append(h.nets, n)
	h.macs = append(h.macs, mac)
	h.ports = append(h.ports, pl.Attrs().Index)
	h.links = append(h.links, hl.Attrs().Index)
	return nil
}

// hostSysctls make addresses usable at once and keep chatter off the wire.
var hostSysctls = map[string]string{
	"net/ipv6/conf/all/accept_dad":               "0",
	"net/ipv6/conf/default/accept_dad":           "0",
	"net/ipv6/conf/default/dad_transmits":        "0",
	"net/ipv6/conf/default/router_solicitations": "0",
}

// switchSysctls keep the switch itself silent: it has ports, no addresses.
var switchSysctls = map[string]string{
	"net/ipv6/conf/all/disable_ipv6":     "1",
	"net/ipv6/conf/default/disable_ipv6": "1",
}

func setSysctls(m map[string]string) error {
	for k, v := range m {
		if err := os.WriteFile("/proc/sys/"+k, []byte(v), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", k, err)
		}
	}
	return nil
}
