package daemon

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// linkPoll is how often the interfaces are looked at to place addresses; the
// keeper and the guard follow the kernel's events.
const linkPoll = 2 * time.Second

// followLinks keeps the list of interfaces fresh, so that a take does not begin
// with asking the kernel for it.
func (d *Daemon) followLinks(ctx context.Context) {
	tick := time.NewTicker(linkPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.lookAtLinks()
		case <-ctx.Done():
			return
		}
	}
}

func (d *Daemon) lookAtLinks() []vip.Link {
	links, err := d.host.Links()
	if err != nil {
		d.log.Error("cannot list the interfaces", "error", err)
		return nil
	}
	for i := range links {
		for k := range links[i].Addresses {
			links[i].Addresses[k].Lifetime = 0 // it runs, and nothing here depends on it
		}
		links[i].Addresses = slices.DeleteFunc(links[i].Addresses, func(a vip.KernelAddress) bool { return a.Protocol == vip.AddrProtocol })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil || !reflect.DeepEqual(d.links, links) {
		d.links = links // else what was calculated from them stays good
	}
	return d.links
}

// currentLinks returns the interfaces, at most linkPoll old, without the addresses
// that raftvip has put there.
func (d *Daemon) currentLinks() []vip.Link {
	d.mu.Lock()
	links := d.links
	d.mu.Unlock()
	if links == nil {
		return d.lookAtLinks()
	}
	return links
}
