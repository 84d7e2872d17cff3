package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
)

// The owner looks at everything at each turn, and with a thousand addresses that
// would take longer than a takeover. So what follows from the addresses is kept
// until what it was calculated from is replaced.

// same tells whether two slices are one: nobody changes the elements of those that
// are compared here.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// placed is where the group's addresses belong on this node.
type placed struct {
	instances []state.Instance
	config    *config.Config
	links     []vip.Link
	vmacs     map[string]string

	addrs  []vip.Address
	on     []string // interfaces that have some
	faults []string
	// warnings are about addresses that stay where they were, though it is not clear
	// any more that they belong there.
	warnings []string
	// until is when to look again though nothing has changed; 0 for never.
	until time.Duration
}

// addresses places the group's addresses on this node's interfaces. What it returns
// is not to be changed.
func (d *Daemon) addresses(s *state.State) (addrs []vip.Address, schedule vip.Schedule, faults []string) {
	schedule = vip.DefaultSchedule()
	if d.host == nil {
		return nil, schedule, nil
	}
	now := placed{instances: s.Instances, config: d.configuration(), links: d.currentLinks(), vmacs: d.hybrid.vmacs()}
	d.mu.Lock()
	was := d.placed
	d.mu.Unlock()
	if was.config == now.config && same(was.instances, now.instances) && same(was.links, now.links) && maps.Equal(was.vmacs, now.vmacs) && (was.until == 0 || boottime.Now() < was.until) {
		now = was
	} else {
		places := d.place(s.Instances)
		d.sites.forget(places)
		now.fill(places, schedule)
		now.until = d.sites.until()
		for _, w := range now.warnings {
			if !slices.Contains(was.warnings, w) {
				d.log.Warn("address stays where it was", "reason", w)
			}
		}
		d.listenOn("", now.addrs, now.vmacs)
		d.mu.Lock()
		d.placed = now
		d.mu.Unlock()
	}
	faults = slices.Clone(now.faults)
	for _, link := range now.on {
		faults = appendNew(faults, d.unguarded(link))
	}
	return now.addrs, schedule, faults
}

func (p *placed) fill(places []placement, usual vip.Schedule) {
	schedules := make(map[string]vip.Schedule)
	for _, in := range p.instances {
		if schedules[in.Name] = usual; in.GARP != (state.GARP{}) {
			schedules[in.Name] = scheduleOf(in.GARP)
		}
	}
	unclear := make(map[string][]netip.Addr)
	for _, at := range places {
		per := schedules[at.instance]
		if at.warning != "" {
			unclear[at.warning] = append(unclear[at.warning], at.address.Prefix.Addr())
		}
		a, err := at.addressOf(per)
		switch {
		case errors.Is(err, vip.ErrNoLink):
			// It is a fault, and the keeper waits for the interface all the same.
			p.faults = append(p.faults, err.Error())
			p.addrs = append(p.addrs, vip.Address{Prefix: at.address.Prefix, Link: at.link, Schedule: per})
		case err != nil:
			p.faults = append(p.faults, err.Error())
		default:
			p.addrs = append(p.addrs, a)
			p.on = appendNew(p.on, a.Link)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(unclear)) {
		which := unclear[why][0].String()
		if n := len(unclear[why]) - 1; n > 0 {
			which += fmt.Sprintf(" and %d more", n)
		}
		p.warnings = append(p.warnings, which+": "+why)
	}
}

// listenOn has the interfaces of the addresses listened on. Nothing is sent from one
// with a virtual MAC: that would take it from its master.
func (d *Daemon) listenOn(who string, addrs []vip.Address, vmacs map[string]string) {
	ask := make(map[string]netip.Addr)
	for _, a := range addrs {
		if _, ok := ask[a.Link]; !ok {
			ask[a.Link] = a.Prefix.Addr()
		}
	}
	for _, link := range vmacs {
		if _, ok := ask[link]; ok {
			ask[link] = netip.Addr{}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hearing == nil || maps.Equal(d.asked[who], ask) {
		return
	}
	if d.asked == nil {
		d.asked = make(map[string]map[string]netip.Addr)
	}
	d.asked[who] = ask
	all := make(map[string]netip.Addr)
	for _, each := range d.asked {
		maps.Copy(all, each)
	}
	d.hearing.Follow(all)
}

// drifted is how the file differs from the cluster.
type drifted struct {
	instances             []state.Instance
	config                *config.Config
	configured, heartbeat time.Duration
	known                 bool
	result                []string
}

func (d *drifted) lines(s *state.State, c *config.Config, heartbeat time.Duration) []string {
	if d.known && d.config == c && same(d.instances, s.Instances) && d.configured == s.Heartbeat.Configured && d.heartbeat == heartbeat {
		return d.result
	}
	*d = drifted{instances: s.Instances, config: c, configured: s.Heartbeat.Configured, heartbeat: heartbeat, known: true}
	if file := instancesOf(c); len(file) > 0 {
		d.result = difference(s.Instances, file, s.Heartbeat.Configured, heartbeat)
	}
	return d.result
}
