package place

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
)

// InstancesOf is the cluster-wide part of a node's file. In a cluster that has instances,
// InstancesIn is.
func InstancesOf(c *config.Config) []state.Instance {
	out := make([]state.Instance, 0, len(c.Instances))
	for _, in := range c.Instances {
		if !in.Shared() {
			continue // it is none of the cluster's
		}
		i := InstanceOf(in)
		i.Group = GroupOf(c, in)
		out = append(out, i)
	}
	return out
}

// InstanceOf is an instance of a file as the cluster knows it, in the default group: who
// owns what is said by the file as a whole.
func InstanceOf(in *config.Instance) state.Instance {
	i := state.Instance{
		Name: in.Name, Group: state.DefaultGroup, FromFile: true,
		VirtualRouterID: in.VirtualRouterID, GARP: garpOf(in.GARP),
	}
	if in.VRRP != nil {
		i.VRRP = string(in.VRRP.Mode)
	}
	for _, a := range in.Addresses {
		i.Addresses = append(i.Addresses, state.Address{
			Prefix: a.Prefix, Excluded: a.Excluded, Dev: a.Dev, Brd: a.Brd, Scope: a.Scope, Label: a.Label,
		})
	}
	return i
}

func garpOf(g config.GARP) state.GARP {
	return state.GARP{
		MasterDelay: g.MasterDelay, MasterRepeat: g.MasterRepeat,
		MasterRefresh: g.MasterRefresh, MasterRefreshRepeat: g.MasterRefreshRepeat,
		Interval: g.Interval, GNAInterval: g.GNAInterval,
	}
}

// ScheduleOf is the announcement schedule of an instance.
func ScheduleOf(g state.GARP) vip.Schedule {
	return vip.Schedule{
		Repeat: g.MasterRepeat, Delay: g.MasterDelay, Refresh: g.MasterRefresh, RefreshRepeat: g.MasterRefreshRepeat,
		Interval: g.Interval, GNAInterval: g.GNAInterval,
	}
}

// Difference lists, one per line, what would change in the cluster if want took
// the place of have. Devices and labels may differ between nodes and are not
// compared. Instances that no file brought in are the operator's.
func Difference(have, want []state.Instance, heartbeatHave, heartbeatWant time.Duration) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	find := func(list []state.Instance, name string) (state.Instance, bool) {
		i := slices.IndexFunc(list, func(in state.Instance) bool { return in.Name == name })
		if i < 0 {
			return state.Instance{}, false
		}
		return list[i], true
	}
	for _, w := range want {
		h, ok := find(have, w.Name)
		if !ok {
			add("instance %s: the file has it, the cluster does not", w.Name)
			for _, h := range have {
				for _, a := range h.Addresses {
					if !h.FromFile && hasAddress(w, a.Prefix.Addr()) {
						add("address %s: in instance %s of the file, in %s of the cluster", a.Prefix, w.Name, h.Name)
					}
				}
			}
			continue
		}
		for _, a := range w.Addresses {
			i := slices.IndexFunc(h.Addresses, func(b state.Address) bool { return b.Prefix.Addr() == a.Prefix.Addr() })
			switch {
			case i < 0:
				add("instance %s: address %s is in the file only", w.Name, a.Prefix)
			case h.FromFile && h.Addresses[i].Added:
				add("instance %s: address %s is in the file, and in the cluster by raftvip vip add", w.Name, a.Prefix)
			case !sameAddress(h.Addresses[i], a):
				add("instance %s: address %s is %s in the file, %s in the cluster", w.Name, a.Prefix.Addr(), describeAddress(a), describeAddress(h.Addresses[i]))
			}
		}
		for _, a := range h.Addresses {
			if !a.Added && !slices.ContainsFunc(w.Addresses, func(b state.Address) bool { return b.Prefix.Addr() == a.Prefix.Addr() }) {
				add("instance %s: address %s is in the cluster only", w.Name, a.Prefix)
			}
		}
		if groupName(h) != groupName(w) {
			add("instance %s: ownership group is %s in the file, %s in the cluster", w.Name, groupName(w), groupName(h))
		}
		if h.VirtualRouterID != w.VirtualRouterID {
			add("instance %s: virtual_router_id is %d in the file, %d in the cluster", w.Name, w.VirtualRouterID, h.VirtualRouterID)
		}
		if h.VRRP != w.VRRP {
			add("instance %s: vrrp is %s in the file, %s in the cluster", w.Name, vrrpWord(w.VRRP), vrrpWord(h.VRRP))
		} else if h.VRRP != "" && !sameOrder(h, w) {
			add("instance %s: virtual_ipaddress has another order in the file than in the cluster", w.Name)
		}
		if h.GARP != w.GARP {
			add("instance %s: the announcement schedule (garp_*) differs", w.Name)
		}
	}
	if len(want) > 0 {
		for _, h := range have {
			if _, ok := find(want, h.Name); !ok && h.FromFile {
				add("instance %s: the cluster has it, the file does not", h.Name)
			}
		}
	}
	if heartbeatWant > 0 && heartbeatHave != heartbeatWant {
		add("heartbeat_timeout is %s in the file, %s in the cluster", heartbeatWant, heartbeatHave)
	}
	return lines
}

func vrrpWord(mode string) string {
	if mode == "" {
		return "off"
	}
	return mode
}

// sameOrder tells whether two instances with the same addresses advertise them in
// the same order.
func sameOrder(a, b state.Instance) bool {
	as, bs := Advertised(a), Advertised(b)
	same := slices.Equal(as, bs)
	slices.SortFunc(as, netip.Addr.Compare)
	slices.SortFunc(bs, netip.Addr.Compare)
	return same || !slices.Equal(as, bs)
}

func sameAddress(a, b state.Address) bool {
	a.Dev, a.Label, b.Dev, b.Label = "", "", "", ""
	a.Added, b.Added = false, false
	return a == b
}

func describeAddress(a state.Address) string {
	s := a.Prefix.String()
	if a.Excluded {
		s += " excluded"
	}
	if a.Brd != "" {
		s += " brd " + a.Brd
	}
	if a.Scope != "" {
		s += " scope " + a.Scope
	}
	return s
}

func hasAddress(in state.Instance, ip netip.Addr) bool {
	return slices.ContainsFunc(in.Addresses, func(a state.Address) bool { return a.Prefix.Addr() == ip })
}

// Proposal is what a reload of this node's file makes of the cluster's instances:
// those of the file, and what no file brought in, also into an instance of a file. An
// address that "init --vip" or "vip add" brought in and the file names too is the
// file's from now on.
func Proposal(have []state.Instance, file []state.Instance) []state.Instance {
	if len(file) == 0 {
		return have // a node without instances in its file has no say
	}
	out := slices.Clone(file)
	for _, h := range have {
		var rest []state.Address
		for _, a := range h.Addresses {
			if h.FromFile && !a.Added {
				continue
			}
			if !slices.ContainsFunc(file, func(in state.Instance) bool { return hasAddress(in, a.Prefix.Addr()) }) {
				rest = append(rest, a)
			}
		}
		i := slices.IndexFunc(out, func(o state.Instance) bool { return o.Name == h.Name })
		switch {
		case i >= 0:
			out[i].Addresses = slices.Concat(out[i].Addresses, rest)
		case len(rest) > 0, len(h.Addresses) == 0 && !h.FromFile:
			h.Addresses, h.FromFile = rest, false
			out = append(out, h)
		}
	}
	return out
}

// A Placement is one address of the cluster as this node would put it up.
type Placement struct {
	Instance string
	Address  state.Address
	// Link is the interface; with an error that it would be on, or "".
	Link string
	// Warning says what is not clear, though the address stays where it was.
	Warning string
	// Err says why it cannot be put up; vip.ErrNoLink if its interface may yet come.
	Err error
}

// Resolve resolves the cluster's addresses on this node: the node's own file may
// name another interface or label for an address than the cluster does. sites, which may
// be nil, remember where each was placed.
func Resolve(instances []state.Instance, c *config.Config, links []vip.Link, sites *Sites) []Placement {
	type local struct {
		iface string
		lines map[netip.Addr]config.Address
	}
	own := make(map[string]local)
	for _, in := range c.Instances {
		l := local{iface: in.Interface, lines: make(map[netip.Addr]config.Address)}
		for _, a := range in.Addresses {
			l.lines[a.Prefix.Addr()] = a
		}
		own[in.Name] = l
	}
	var out []Placement
	for _, in := range instances {
		for _, a := range in.Addresses {
			l, known := own[in.Name]
			if line, ok := l.lines[a.Prefix.Addr()]; ok {
				a.Dev, a.Label = line.Dev, line.Label
			} else if known {
				a.Label = ""
			}
			p := Placement{Instance: in.Name, Address: a}
			p.Link, p.Warning, p.Err = sites.resolve(in.Name, a.Prefix, a.Dev, l.iface, links)
			if errors.Is(p.Err, vip.ErrNoLink) && a.Dev != "" && !known {
				// The device is another node's name for it; here the subnet says more.
				if other, warning, err := sites.resolve(in.Name, a.Prefix, "", l.iface, links); err == nil {
					p.Link, p.Warning, p.Err = other, warning, nil
				}
			}
			out = append(out, p)
		}
	}
	return out
}

// addressOf makes what the keeper needs of a placement.
func (p Placement) addressOf(schedule vip.Schedule) (vip.Address, error) {
	if p.Err != nil {
		return vip.Address{}, p.Err
	}
	a := vip.Address{Prefix: p.Address.Prefix, Link: p.Link, Schedule: schedule}
	if a.Prefix.Addr().Is4() {
		a.Label = p.Address.Label
		// A label has to begin with the name of the link that it is on.
		if a.Label != "" && a.Label != p.Link && !strings.HasPrefix(a.Label, p.Link+":") {
			a.Label = ""
		}
		var err error
		if a.Broadcast, err = vip.ParseBroadcast(p.Address.Brd, p.Address.Prefix); err != nil {
			return vip.Address{}, err
		}
	}
	scope, err := vip.ParseScope(p.Address.Scope)
	if err != nil {
		return vip.Address{}, err
	}
	a.Scope = scope
	return a, nil
}

// DefaultInstance is the instance that addresses without a file belong to.
func DefaultInstance(addrs []state.Address) state.Instance {
	return state.Instance{Name: "default", Group: state.DefaultGroup, GARP: DefaultGARP(), Addresses: addrs}
}

// DefaultGARP is the announcement schedule of an instance that no file brought in.
func DefaultGARP() state.GARP {
	s := vip.DefaultSchedule()
	return state.GARP{MasterDelay: s.Delay, MasterRepeat: s.Repeat, MasterRefresh: s.Refresh, MasterRefreshRepeat: s.RefreshRepeat}
}

// Advertised are the addresses that go on the wire: those of virtual_ipaddress in
// their order, not the excluded ones.
func Advertised(in state.Instance) []netip.Addr {
	var out []netip.Addr
	for _, a := range in.Addresses {
		if !a.Excluded {
			out = append(out, a.Prefix.Addr())
		}
	}
	return out
}

// FileAddresses are the virtual addresses in a file.
func FileAddresses(c *config.Config) []netip.Addr {
	var out []netip.Addr
	for _, in := range c.Instances {
		for _, a := range in.Addresses {
			out = append(out, a.Prefix.Addr())
		}
	}
	return out
}

// HeartbeatOf is the heartbeat timeout that a file asks for, or 0 if it says nothing.
func HeartbeatOf(c *config.Config) time.Duration {
	if c.Raft.HeartbeatPos.Line == 0 {
		return 0
	}
	return c.Raft.HeartbeatTimeout
}
