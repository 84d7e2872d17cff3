package config

import (
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

func (l *loader) globalDefs(n *keepalived.Node) {
	l.noMore(n, 0)
	g := &l.cfg.Global
	known := map[string]statement{
		"router_id": {read: func(n *keepalived.Node) {
			if v, ok := l.value(n, "a name for this node"); ok {
				g.RouterID = v
			}
		}},
		"script_user": {read: func(n *keepalived.Node) {
			if user, group, ok := l.userAndGroup(n); ok {
				g.ScriptUser, g.ScriptGroup = user, group
			}
		}},
		"enable_script_security": {read: l.setFlag(&g.EnableScriptSecurity)},
		"default_interface": {read: func(n *keepalived.Node) {
			if v, ok := l.value(n, "an interface name"); ok && l.interfaceName(n.Pos, n.Keyword(), v) {
				g.DefaultInterface = v
				l.defaultInterfaceWritten = true
			}
		}},
		"dynamic_interfaces": {read: func(n *keepalived.Node) {
			if args := n.Args(); len(args) > 0 && args[0].Text == "allow_if_changes" {
				g.DynamicInterfaces = true
				return
			}
			l.setFlag(&g.DynamicInterfaces)(n)
		}},
		"vrrp_version": {read: func(n *keepalived.Node) {
			if v, ok := l.integer(n, 2, 3); ok {
				g.VRRPVersion = v
			}
		}},
		"vrrp_garp_interval": {read: l.setSeconds(&g.GARP.Interval, "0", "4294")},
		"vrrp_gna_interval":  {read: l.setSeconds(&g.GARP.GNAInterval, "0", "4294")},
	}
	l.garpStatements(known, "vrrp_", &g.GARP, nil)
	l.statements(ctxGlobal, l.splitVRRP(n.Block), known)
}

// garpStatements adds the four garp_master_* keywords. written, if not nil,
// receives what is to be done to a GARP that starts as a copy of the global one.
func (l *loader) garpStatements(known map[string]statement, prefix string, to *GARP, written *[]func(*GARP)) {
	set := func(f func(*GARP)) {
		f(to)
		if written != nil {
			*written = append(*written, f)
		}
	}
	seconds := func(high string, store func(*GARP, time.Duration)) statement {
		return statement{read: func(n *keepalived.Node) {
			if d, ok := l.seconds(n, "0", high); ok {
				set(func(g *GARP) { store(g, d) })
			}
		}}
	}
	count := func(store func(*GARP, int)) statement {
		return statement{read: func(n *keepalived.Node) {
			v, ok := l.integer(n, 0, 10000)
			if !ok {
				return
			}
			if v == 0 {
				l.warnf(n.Pos, "%s 0: taken as 1, as in keepalived", n.Keyword())
				v = 1
			}
			set(func(g *GARP) { store(g, v) })
		}}
	}
	known[prefix+"garp_master_delay"] = seconds("4294", func(g *GARP, d time.Duration) { g.MasterDelay = d })
	known[prefix+"garp_master_refresh"] = seconds("4294967295", func(g *GARP, d time.Duration) { g.MasterRefresh = d })
	known[prefix+"garp_master_repeat"] = count(func(g *GARP, v int) { g.MasterRepeat = v })
	known[prefix+"garp_master_refresh_repeat"] = count(func(g *GARP, v int) { g.MasterRefreshRepeat = v })
}

func (l *loader) setSeconds(to *time.Duration, low, high string) func(*keepalived.Node) {
	return func(n *keepalived.Node) {
		if d, ok := l.seconds(n, low, high); ok {
			*to = d
		}
	}
}
