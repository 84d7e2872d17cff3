package guard

import (
	"errors"
	"fmt"
	"path"

	"github.com/vishvananda/netlink"
)

// listLinks lists the links of the handle's namespace. The kernel marks a listing
// that changed meanwhile as incomplete; it is repeated.
func listLinks(nl *netlink.Handle) ([]netlink.Link, error) {
	var (
		links []netlink.Link
		err   error
	)
	for range 5 {
		links, err = nl.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// selectDevices returns the devices to attach to: all with an Ethernet header that
// match one of the patterns (all if there is none), and the loopback if local.
//
// Attaching to the addresses' own interface would not do: the kernel answers ARP
// for its addresses on every interface and takes in packets for them on any.
// Ports of a bridge are left out unless a pattern names them: what comes in there
// for this host passes the bridge device, and what is for others must not be
// dropped.
func selectDevices(links []netlink.Link, patterns []string, local bool) []device {
	bridge := map[int]bool{}
	for _, l := range links {
		if t := l.Type(); t == "bridge" || t == "openvswitch" {
			bridge[l.Attrs().Index] = true
		}
	}
	var out []device
	for _, l := range links {
		at := l.Attrs()
		wanted := false
		switch at.EncapType {
		case "loopback":
			wanted = local
		case "ether":
			if len(patterns) == 0 {
				wanted = !bridge[at.MasterIndex]
			}
			for _, p := range patterns {
				if ok, _ := path.Match(p, at.Name); ok {
					wanted = true
				}
			}
		}
		if wanted {
			out = append(out, device{index: at.Index, name: at.Name})
		}
	}
	return out
}
