package daemon

import (
	"net/netip"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// openHybrid makes the VRRP half of the owner.
func (d *Daemon) openHybrid(keeper *shares) {
	log := d.log.With("group", state.DefaultGroup)
	d.hybrid = &hybrid{
		log: log, shares: keeper, config: d.configuration, report: d.checks.Report, fellows: d.fellows,
		newSlot: func(name string, number uint32) *slot {
			s := &slot{name: name, gate: vip.NewGate(d.vipGuard(), number, nil), slow: !d.owner.silent}
			s.keeper = d.newKeeper(s.gate, number)
			return s
		},
		newSpeaker: func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (speaker, error) {
			s.net.IsVirtual = d.isVirtual
			return s.router(addrs, priority, sink, log.With("instance", name))
		},
		wake: d.owner.sink.notify, now: boottime.Now, began: boottime.Now(), parts: make(map[string]*part),
	}
	d.owner.hybrid = d.hybrid
}

// fellows are what the other members are in hybrid instances, by name.
func (d *Daemon) fellows() map[string][]fellow {
	out := make(map[string][]fellow)
	for id, h := range d.seen() {
		if id == d.node.Self().NodeID {
			continue
		}
		for name, v := range h.VRRP {
			out[name] = append(out[name], fellow{v, h.Age})
		}
	}
	return out
}

// groupReport is what the checks say about the instances that the cluster may have:
// those with "vrrp only" are not among them.
func (d *Daemon) groupReport() check.Report {
	group, _ := splitReport(d.checks.Report(), d.configuration())
	return group
}

// splitReport divides a report into that of the group and those of the instances
// with "vrrp only".
func splitReport(r check.Report, c *config.Config) (group check.Report, plain map[string]check.InstanceReport) {
	plain = make(map[string]check.InstanceReport)
	for _, in := range c.Instances {
		if in.VRRP != nil && in.VRRP.Mode == config.VRRPOnly {
			plain[in.Name] = check.InstanceReport{}
		}
	}
	if len(plain) == 0 {
		return r, plain
	}
	var rest []check.InstanceReport
	for _, i := range r.Instances {
		if _, ok := plain[i.Name]; ok {
			plain[i.Name] = i
		} else {
			rest = append(rest, i)
		}
	}
	return check.Combine(rest), plain
}
