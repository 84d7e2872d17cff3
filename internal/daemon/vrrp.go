package daemon

import (
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
)

// openHybrid makes the VRRP half of the owner, which wake has look again. The addresses
// of its instances are beside those of main. slow: no guard silences them.
func (d *Daemon) openHybrid(main *vip.Holding, wake func(), slow bool) {
	d.hybrid = vrrp.NewHybrid(vrrp.HybridConfig{
		Log: d.log.With("group", state.DefaultGroup), Holdings: d.kept,
		File: d.configuration, Report: d.checks.Report, Members: d.routers,
		Hold: func() (*vip.Gate, vrrp.Holding, error) {
			gate, err := d.newGate()
			if err != nil {
				return nil, nil, err
			}
			return gate, main.Beside(gate), nil
		},
		Free: d.freeGate,
		Slow: slow, IsVirtual: d.isVirtual, Wake: wake,
	})
}

// routers are what the other members are in hybrid instances, by name.
func (d *Daemon) routers() map[string][]vrrp.Member {
	out := make(map[string][]vrrp.Member)
	for id, h := range d.seen() {
		if id == d.node.Self().NodeID {
			continue
		}
		for name, v := range h.VRRP {
			out[name] = append(out[name], vrrp.Member{Source: v.Source, Master: v.Master, Age: h.Age})
		}
	}
	return out
}

// routersHere are what this node is in hybrid instances, by name, for its hint.
func (d *Daemon) routersHere() map[string]hint.VirtualRouter {
	out := make(map[string]hint.VirtualRouter)
	for name, m := range d.hybrid.Told() {
		out[name] = hint.VirtualRouter{Source: m.Source, Master: m.Master}
	}
	return out
}

// GroupReport is what the checks say about the instances that the cluster may have:
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

// openPlain makes the routers of the instances with "vrrp only".
func (d *Daemon) openPlain() {
	d.plain = vrrp.NewPlain(vrrp.PlainConfig{
		Log: d.log, File: d.configuration, Report: d.checks.Report, Claimed: d.claimed, Place: d.places.PlaceVRRPOnly,
		Keeper: vip.NewKeeper(vip.KeeperConfig{
			Host: d.host, Announcer: d.sender, Logger: d.log, Journal: d.journal, Lifetime: vrrp.PlainLifetime, Hearing: d.hearing,
		}),
		IsVirtual: d.isVirtual,
	})
}

// claimed says why the cluster has the say about an instance with "vrrp only", or "".
func (d *Daemon) claimed(in *config.Instance) string {
	if d.node == nil {
		return ""
	}
	return vrrp.Claimed(d.node.State(), in)
}
