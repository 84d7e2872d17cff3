package place

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
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

// Same tells whether two slices are one: nobody changes the elements of those that
// are compared here.
func Same[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// placed is where a group's addresses belong on this node.
type placed struct {
	places    []Placement
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

// A Config is what places are made of.
type Config struct {
	Log *slog.Logger
	// File is the node's file as last read.
	File    func() *config.Config
	Links   *Links
	Hearing *vip.Hearing
	// VMACs are the interfaces with a virtual MAC, by instance with vrrp hybrid.
	VMACs func() map[string]string
	// Unguarded says why this node must not own an address on an interface, or "".
	Unguarded func(link string) string
}

// Places are where addresses belong on this node: those of the cluster, and those of its
// own instances with "vrrp only". Nil places, those of a witness, have none.
type Places struct {
	Config

	mu     sync.Mutex
	placed map[string]placed // by group
	// asked are the links to listen on, by what asks for them: an instance with "vrrp
	// only", or a group.
	asked map[string]map[string]netip.Addr

	// sites are where the cluster's addresses were placed, plainSites those of instances
	// with "vrrp only".
	sites, plainSites Sites
}

// New makes places that know of no address yet.
func New(c Config) *Places { return &Places{Config: c} }

// Addresses places the addresses of a group on this node's interfaces. faults are those
// that have no interface, or one that is not guarded. What it returns is not to be
// changed.
func (p *Places) Addresses(group string, s *state.State) (addrs []vip.Address, schedule vip.Schedule, faults []string) {
	schedule = vip.DefaultSchedule()
	if p == nil {
		return nil, schedule, nil
	}
	now := placed{instances: s.Instances, config: p.File(), links: p.Links.Current(), vmacs: p.VMACs()}
	p.mu.Lock()
	was := p.placed[group]
	p.mu.Unlock()
	if was.config == now.config && Same(was.instances, now.instances) && Same(was.links, now.links) && maps.Equal(was.vmacs, now.vmacs) && (was.until == 0 || boottime.Now() < was.until) {
		now = was
	} else {
		now.places = p.Place(s.Instances)
		p.forget(group, now.places)
		now.fill(now.places, schedule)
		now.until = p.sites.until()
		for _, w := range now.warnings {
			if !slices.Contains(was.warnings, w) {
				p.Log.Warn("address stays where it was", "reason", w)
			}
		}
		p.listenOn("group "+group, now.addrs, now.vmacs)
		p.mu.Lock()
		if p.placed == nil {
			p.placed = make(map[string]placed)
		}
		p.placed[group] = now
		p.mu.Unlock()
	}
	faults = slices.Clone(now.faults)
	for _, link := range now.on {
		faults = addNew(faults, p.Unguarded(link))
	}
	return now.addrs, schedule, faults
}

// forget has the sites forget what no group has any more; places are those of one group.
func (p *Places) forget(group string, places []Placement) {
	p.mu.Lock()
	all := slices.Clone(places)
	for name, other := range p.placed {
		if name != group {
			all = append(all, other.places...)
		}
	}
	p.mu.Unlock()
	p.sites.forget(all)
}

// Drop forgets a group.
func (p *Places) Drop(group string) {
	if p == nil {
		return
	}
	p.listenOn("group "+group, nil, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.placed, group)
}

func (p *placed) fill(places []Placement, usual vip.Schedule) {
	schedules := make(map[string]vip.Schedule)
	for _, in := range p.instances {
		if schedules[in.Name] = usual; in.GARP != (state.GARP{}) {
			schedules[in.Name] = ScheduleOf(in.GARP)
		}
	}
	unclear := make(map[string][]netip.Addr)
	for _, at := range places {
		per := schedules[at.Instance]
		if at.Warning != "" {
			unclear[at.Warning] = append(unclear[at.Warning], at.Address.Prefix.Addr())
		}
		a, err := at.addressOf(per)
		switch {
		case errors.Is(err, vip.ErrNoLink):
			// It is a fault, and the keeper waits for the interface all the same.
			p.faults = append(p.faults, err.Error())
			p.addrs = append(p.addrs, vip.Address{Prefix: at.Address.Prefix, Link: at.Link, Schedule: per})
		case err != nil:
			p.faults = append(p.faults, err.Error())
		default:
			p.addrs = append(p.addrs, a)
			p.on = addNew(p.on, a.Link)
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
func (p *Places) listenOn(who string, addrs []vip.Address, vmacs map[string]string) {
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Hearing == nil || maps.Equal(p.asked[who], ask) {
		return
	}
	if p.asked == nil {
		p.asked = make(map[string]map[string]netip.Addr)
	}
	p.asked[who] = ask
	all := make(map[string]netip.Addr)
	for _, each := range p.asked {
		maps.Copy(all, each)
	}
	p.Hearing.Follow(all)
}

// Drift is how the file differs from the cluster.
type Drift struct {
	instances             []state.Instance
	config                *config.Config
	configured, heartbeat time.Duration
	known                 bool
	result                []string
}

// Lines lists the differences, one per line, of a file and the heartbeat timeout that it
// asks for.
func (d *Drift) Lines(s *state.State, c *config.Config, heartbeat time.Duration) []string {
	if d.known && d.config == c && Same(d.instances, s.Instances) && d.configured == s.Heartbeat.Configured && d.heartbeat == heartbeat {
		return d.result
	}
	*d = Drift{instances: s.Instances, config: c, configured: s.Heartbeat.Configured, heartbeat: heartbeat, known: true}
	if file := InstancesIn(c, s.Instances); len(file) > 0 {
		d.result = Difference(s.Instances, file, s.Heartbeat.Configured, heartbeat)
	}
	return d.result
}

// PlaceVRRPOnly resolves the addresses of an instance with "vrrp only". vmacs are the
// interfaces with a virtual MAC, by instance.
func (p *Places) PlaceVRRPOnly(in state.Instance, vmacs map[string]string) (addrs []vip.Address, faults []string) {
	for _, at := range Resolve([]state.Instance{in}, p.File(), p.Links.Current(), &p.plainSites) {
		if link, ok := vmacs[at.Instance]; ok && at.Address.Dev == "" {
			at.Link, at.Err = link, nil
		}
		a, err := at.addressOf(ScheduleOf(in.GARP))
		if err != nil {
			faults = append(faults, err.Error())
			if errors.Is(err, vip.ErrNoLink) {
				addrs = append(addrs, vip.Address{Prefix: at.Address.Prefix, Link: at.Link, Schedule: ScheduleOf(in.GARP)})
			}
			continue
		}
		addrs = append(addrs, a)
	}
	p.listenOn("instance "+in.Name, addrs, vmacs)
	return addrs, faults
}

// Resolve resolves the cluster's addresses on this node.
func (p *Places) Resolve(instances []state.Instance) []Placement {
	return Resolve(instances, p.File(), p.Links.Current(), &p.sites)
}

// Warnings are about addresses that stay where they were, though it is not clear any
// more that they belong there.
func (p *Places) Warnings() []string {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, group := range slices.Sorted(maps.Keys(p.placed)) {
		for _, w := range p.placed[group].warnings {
			all = addNew(all, w)
		}
	}
	return all
}

// Hardware are the hardware addresses of this node (macs), those of the links that the
// cluster's addresses belong on first, and of these links alone (fronts).
func (p *Places) Hardware() (macs, fronts []string) {
	if p == nil {
		return nil, nil
	}
	p.mu.Lock()
	var on []string
	for _, group := range slices.Sorted(maps.Keys(p.placed)) {
		for _, link := range p.placed[group].on {
			on = addNew(on, link)
		}
	}
	p.mu.Unlock()
	known := p.Links.known()
	return macsOf(on, known), frontsOf(on, known)
}

// Place resolves the cluster's addresses on this node, those of a virtual router with a
// virtual MAC on its interface.
func (p *Places) Place(instances []state.Instance) []Placement {
	out := p.Resolve(instances)
	vmacs := p.VMACs()
	for i, at := range out {
		if link, ok := vmacs[at.Instance]; ok && at.Address.Dev == "" {
			out[i].Link, out[i].Warning, out[i].Err = link, "", nil
		}
	}
	return out
}

// addNew appends a text that is there and not in the list yet.
func addNew(list []string, text string) []string {
	if text == "" || slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}
