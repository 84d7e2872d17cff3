package operate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
)

// problemFresh is the age up to which an oddity of another router is worth a
// warning: at any interval of VRRP but the longest it would have been seen again.
const problemFresh = time.Minute

// virtualRouters is the status of all instances that speak VRRP on this node.
func (srv *Server) virtualRouters() []api.VirtualRouter {
	names := make(map[netip.Addr]string)
	if srv.Node != nil {
		names = speakerNames(srv.Node.State(), srv.Hints.Seen())
	}
	var out []api.VirtualRouter
	for _, r := range srv.Routers() {
		out = append(out, r.Status(names)...)
	}
	slices.SortFunc(out, func(a, b api.VirtualRouter) int { return cmp.Compare(a.Instance, b.Instance) })
	for i := range out {
		out[i].Check = srv.checkOf(out[i].Instance)
	}
	return out
}

// speakerNames are the nodes by the addresses from which they speak VRRP.
func speakerNames(s *state.State, hints map[string]hint.Seen) map[netip.Addr]string {
	out := make(map[netip.Addr]string)
	for id, h := range hints {
		for _, v := range h.VRRP {
			out[v.Source] = s.Nodes[id].Name
		}
	}
	return out
}

// vrrpWarnings are what an operator should change about VRRP.
func vrrpWarnings(all []api.VirtualRouter) []string {
	var w []string
	for _, v := range all {
		for _, p := range v.Problems {
			if p.Age > problemFresh.Seconds() {
				continue
			}
			from := p.From.String()
			if p.Node != "" {
				from = fmt.Sprintf("%s (node %s)", from, p.Node)
			}
			w = append(w, fmt.Sprintf("vrrp %s: %s %s", v.Instance, from, p.Text))
		}
		switch {
		case v.Mode == string(config.VRRPOnly):
			w = append(w, fmt.Sprintf("vrrp %s: %s", v.Instance, v.Guarantee))
		case v.State == "fault":
			w = append(w, fmt.Sprintf("vrrp %s: %s", v.Instance, v.Why))
		}
	}
	return w
}

// checkOf is what the checks say about an instance.
func (srv *Server) checkOf(instance string) *check.InstanceReport {
	for _, i := range srv.Checks.Report().Instances {
		if i.Name == instance {
			return &i
		}
	}
	return nil
}
