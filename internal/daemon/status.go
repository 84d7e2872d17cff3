package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip/guard"
)

const (
	// aliveAge is the age up to which a report says that its node is alive.
	aliveAge = 3 * time.Second
	// clockWarning is the difference of wall clocks that is worth a warning.
	clockWarning = 10 * time.Second
)

// Status gathers everything this node knows.
func (d *Daemon) Status() api.Status {
	s := d.node.State()
	standing := d.node.Group(cluster.DefaultGroup).Standing()
	self := d.node.Self()
	st := api.Status{
		API: api.Version, Program: d.settings.Program, Phase: d.node.Phase(),
		Node:    api.Self{Name: self.Name, ID: self.NodeID, Address: d.node.Advertise(), Started: d.started.Format(time.RFC3339)},
		Cluster: d.clusterStatus(s, standing),
		Guard:   d.guardStatus(),
		Config:  d.configStatus(),
	}
	st.Nodes = d.nodeStatus(s, standing)
	st.Groups = []api.Group{d.groupStatus(s, standing)}
	st.VRRP = d.virtualRouters()
	st.Warnings = d.warnings(st)
	return st
}

func (d *Daemon) clusterStatus(s *cluster.State, standing cluster.Standing) api.Cluster {
	c := api.Cluster{
		ID: d.node.Self().ClusterID, Leader: s.Nodes[standing.LeaderID].Name, Term: standing.Term, Version: s.Version,
		HeartbeatTimeout: s.Heartbeat.Current.Seconds(),
	}
	g := d.node.Group(cluster.DefaultGroup)
	for id, suffrage := range d.node.Suffrages() {
		if suffrage != cluster.SuffrageVoter {
			continue
		}
		c.Voters++
		if !standing.Leading {
			continue
		}
		if ago, ok := g.Contact(id); id == d.node.Self().NodeID || ok && ago < max(s.Heartbeat.Current, time.Second) {
			c.Reachable++
		}
	}
	c.Tolerates = max((c.Voters-1)/2, 0)
	return c
}

// ownerName returns who owns, by the reports; "" for nobody.
func (d *Daemon) ownerName(s *cluster.State) string {
	if d.owner.View().owning {
		return d.node.Self().Name
	}
	for id, h := range d.hints.read(d.node.Reports()) {
		if id != d.node.Self().NodeID && h.Owning && h.age < aliveAge && id == d.node.Group(cluster.DefaultGroup).Standing().LeaderID {
			return s.Nodes[id].Name
		}
	}
	return ""
}

func (d *Daemon) groupStatus(s *cluster.State, standing cluster.Standing) api.Group {
	view := d.owner.View()
	g := api.Group{Name: cluster.DefaultGroup, Owner: d.ownerName(s), State: "standby"}
	switch {
	case view.owning:
		g.State = "owner"
	case len(d.owner.faultsNow()) > 0:
		g.State = "fault"
	}
	if left := standing.LeaseUntil - boottime.Now(); left > 0 {
		g.LeaseRemaining = left.Seconds()
	}
	g.Why = whyOwner(s, g.Owner, view, standing)
	placed := make(map[string]placement)
	if d.host != nil {
		for _, p := range d.place(s.Instances) {
			placed[p.address.Prefix.Addr().String()] = p
		}
	}
	kernel := d.owner.keeper.Status()
	g.NotRemoved = kernel.NotRemoved
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			out := api.Address{Prefix: a.Prefix, Instance: in.Name, Excluded: a.Excluded, State: "absent"}
			p := placed[a.Prefix.Addr().String()]
			out.Link = p.link
			if p.err != nil {
				out.Problem = p.err.Error()
			}
			for _, k := range kernel.Addresses {
				if k.Prefix.Addr() != a.Prefix.Addr() {
					continue
				}
				kept := keptAddress(in.Name, k)
				out.Announced, out.State = kept.Announced, kept.State
				if kept.Problem != "" {
					out.Problem = kept.Problem
				}
			}
			g.Addresses = append(g.Addresses, out)
		}
	}
	return g
}

// whyOwner says why the owner is the owner: how it came to be, and what the
// policy thinks of it now.
func whyOwner(s *cluster.State, owner string, view ownerView, standing cluster.Standing) string {
	if owner == "" {
		switch {
		case standing.Leading:
			return view.why
		case standing.LeaderID == "":
			return "no quorum: the addresses are silent"
		}
		if k := len(s.Moves); k > 0 && s.Moves[k-1].To == "" {
			m := s.Moves[k-1]
			return fmt.Sprintf("%s stopped owning: %s (%s)", m.From, m.Reason, m.At.Local().Format(time.DateTime))
		}
		return "the leader does not own; ask it for the reason: raftvip status on " + s.Nodes[standing.LeaderID].Name
	}
	why := ""
	for i := len(s.Moves) - 1; i >= 0; i-- {
		if m := s.Moves[i]; m.To == owner {
			why = fmt.Sprintf("%s (%s)", m.Reason, m.At.Local().Format(time.DateTime))
			break
		}
	}
	if view.owning && view.why != "" {
		if why != "" {
			why += "; now: "
		}
		why += view.why
	}
	return why
}

func (d *Daemon) nodeStatus(s *cluster.State, standing cluster.Standing) []api.Node {
	hints := d.hints.read(d.node.Reports())
	suffrages := d.node.Suffrages()
	owner := d.ownerName(s)
	self := d.node.Self().NodeID
	connected := func(id string) bool { return hints[id].known && hints[id].age < aliveAge }
	views := make(map[string]policy.Node)
	for _, n := range candidates(s, self, hints, suffrages, connected, false) {
		views[n.ID] = n
	}
	var out []api.Node
	for _, n := range s.SortedNodes() {
		h := hints[n.ID]
		v := api.Node{
			Name: n.Name, ID: n.ID, Address: n.Address, Role: string(cluster.SuffrageNone),
			Leader: n.ID == standing.LeaderID, Owner: owner != "" && n.Name == owner, Drained: n.Drained,
			ReportAge: -1, Priority: h.Check.Priority, Checks: h.Check.Instances,
			ClockOffset: h.offset.Seconds(), Drift: h.Drift, ConfigError: h.ConfigError, Program: h.Program,
		}
		if r, ok := suffrages[n.ID]; ok {
			v.Role = string(r)
		}
		if n.Witness && v.Role == string(cluster.SuffrageVoter) {
			v.Role = "witness"
		}
		if h.known {
			v.ReportAge = h.age.Seconds()
			v.Alive = h.age < aliveAge || n.ID == self
			v.Arithmetic = h.Check.Arithmetic()
		}
		if h.Take != nil {
			v.Missing, v.MissingWhy = h.Take.Missing, doctor.Clean(h.Take.String())
		}
		for _, f := range h.Foreign {
			v.Foreign = append(v.Foreign, api.ForeignCopy{Prefix: f.Prefix, Link: f.Link, Silent: f.Silent, Serves: f.Serves, Why: doctor.Clean(f.Why)})
		}
		v.Eligible, v.Why = policy.Eligible(views[n.ID])
		out = append(out, v)
	}
	return out
}

func (d *Daemon) guardStatus() api.Guard {
	if d.guard == nil {
		return api.Guard{Kind: "none", Guarantee: "this node is a witness and never owns an address"}
	}
	g := d.guard.Status()
	out := api.Guard{
		Kind: string(g.Kind), Guarantee: g.Guarantee, Warnings: g.Warnings,
		ClockSource: g.Clocksource, Dropped: g.Drops.Total, Lateness: g.Lateness.Seconds(),
	}
	if g.Lateness == guard.Unbounded {
		out.Lateness = -1
	}
	for _, i := range g.Interfaces {
		out.Interfaces = append(out.Interfaces, api.GuardInterface{Name: i.Name, Attached: i.Attached, Problem: i.Error})
	}
	for _, r := range g.Refused {
		out.Refused = append(out.Refused, string(r.Kind)+": "+r.Reason)
	}
	return out
}

func (d *Daemon) configStatus() api.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := api.Config{File: d.path, LoadedAt: d.loadedAt, Warnings: diagnosticTexts(d.config.Warnings), Drift: d.driftLocked()}
	if d.reload != nil {
		c.Error = d.reload.Error()
	}
	return c
}

// warnings are what an operator should change.
func (d *Daemon) warnings(st api.Status) []string {
	var w []string
	answering := make(map[string]bool) // said already
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	for _, n := range st.Nodes {
		for _, f := range n.Foreign {
			if f.Answers() {
				add("%s ANSWERS FOR %s, whoever owns it: %s", n.Name, f.Prefix.Addr(), f.Why)
				answering[f.Why] = true
			}
		}
	}
	if st.Phase == "" && st.Cluster.Leader == "" {
		add("no quorum: no leader, and no address answers, until a majority of the %d voters is back", st.Cluster.Voters)
	}
	if st.Cluster.Leader != "" && len(st.Groups) > 0 && st.Groups[0].Owner == "" && len(st.Groups[0].Addresses) > 0 {
		add("nobody owns the addresses: %s", st.Groups[0].Why)
	}
	if text := SurvivalWarning(st.Cluster.Voters); text != "" && st.Phase == "" {
		w = append(w, text)
	}
	if st.Cluster.Reachable > 0 && st.Cluster.Reachable < st.Cluster.Voters {
		left := st.Cluster.Reachable - (st.Cluster.Voters/2 + 1)
		add("%d of %d voters answer: %d more may fail", st.Cluster.Reachable, st.Cluster.Voters, max(left, 0))
	}
	for _, n := range st.Nodes {
		// Without a leader nobody passes reports on, and all others seem silent.
		if age := time.Duration(n.ReportAge * float64(time.Second)); !n.Alive && age >= 0 && st.Cluster.Leader != "" {
			add("%s has been silent for %s", n.Name, age.Round(100*time.Millisecond))
		}
		w = append(w, takeWarnings(n, st.Node.Name)...)
		if n.ConfigError != "" {
			add("%s: its last reload changed nothing: %s", n.Name, firstLine(n.ConfigError))
		}
		for _, in := range n.Checks {
			for _, t := range in.Terms {
				if t.Stale != "" {
					add("%s: script %s %s; its last result counts", n.Name, t.Name, t.Stale)
				}
			}
		}
		if len(n.Drift) > 0 {
			add("%s: its file differs from the cluster (%d differences; raftvip status there)", n.Name, len(n.Drift))
		}
		if off := time.Duration(n.ClockOffset * float64(time.Second)); off.Abs() > clockWarning {
			add("%s: its clock is off by %s; ownership does not depend on it, but tokens and the history do", n.Name, off.Round(time.Second))
		}
	}
	if len(st.Groups) > 0 {
		if n := st.Groups[0].NotRemoved; n > 0 {
			add("%d addresses CANNOT BE REMOVED from this node; only the guard keeps them silent: see the log, or take the interface down", n)
		}
		for _, a := range st.Groups[0].Addresses {
			if a.Problem != "" && !answering[a.Problem] {
				add("%s: %s", a.Prefix.Addr(), a.Problem)
			}
		}
	}
	w = append(w, d.levelWarnings()...)
	w = append(w, vrrpWarnings(st.VRRP)...)
	w = append(w, st.Guard.Warnings...)
	return slices.Compact(w)
}

// levelWarnings tell of programs that do not fit the cluster: this one, if it is too
// old to follow, and those that keep all others from what newer ones can do.
func (d *Daemon) levelWarnings() (w []string) {
	if fault := d.node.LogFault(); fault != "" {
		w = append(w, fault)
	}
	s := d.node.State()
	for _, r := range d.node.Reports() {
		if n, ok := s.Nodes[r.NodeID]; ok && max(r.Level, 1) < cluster.FeatureLevel {
			w = append(w, fmt.Sprintf("%s runs an older raftvip: the cluster works at feature level %d until it is upgraded", n.Name, s.FeatureLevel()))
		}
	}
	return w
}

// SurvivalWarning says plainly when a cluster cannot survive the failure of a
// voter, and what to do.
func SurvivalWarning(voters int) string {
	switch voters {
	case 0:
		return ""
	case 1:
		return "this cluster has one voter and cannot survive its failure: join two more nodes"
	case 2:
		return "this cluster has two voters and cannot survive the failure of either: join a third node, any small machine will do (raftvip join --witness)"
	}
	return ""
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i]
		}
	}
	return s
}
