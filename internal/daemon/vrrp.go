package daemon

import (
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
)

// newHybrid makes the VRRP half of a seat's owner. The addresses of its instances are
// beside those that move with the group alone. slow: no guard silences them.
func (d *Daemon) newHybrid(t *seat, name string, slow bool) *vrrp.Hybrid {
	return vrrp.NewHybrid(vrrp.HybridConfig{
		Log: d.log.With("group", name), Holdings: t.kept,
		File: d.configuration, Report: d.checks.Report, Members: d.routers,
		Hold: func() (*vip.Gate, vrrp.Holding, error) {
			gate, err := d.newGate()
			if err != nil {
				return nil, nil, err
			}
			return gate, t.holding.Beside(gate), nil
		},
		Free: d.freeGate,
		Slow: slow, IsVirtual: d.isVirtual, Wake: t.sink.Notify,
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
	for _, t := range d.seats.with() {
		for name, m := range t.hybrid.Told() {
			out[name] = hint.VirtualRouter{Source: m.Source, Master: m.Master}
		}
	}
	return out
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
