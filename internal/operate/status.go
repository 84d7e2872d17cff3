package operate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip/guard"
)

const (
	// aliveAge is the age up to which a report says that its node is alive.
	aliveAge = 3 * time.Second
	// clockWarning is the difference of wall clocks that is worth a warning.
	clockWarning = 10 * time.Second
)

// Status gathers everything this node knows, and asks the leader who owns.
func (srv *Server) Status(ctx context.Context) api.Status {
	shown := srv.shown()
	sights := eachSeat(shown, func(t Seat) sight { return srv.sight(ctx, t) })
	base := srv.base()
	s := srv.Node.State()
	standing := base.Group.Standing()
	seen := sights[0]
	if shown[0].ID != base.ID {
		seen = srv.sight(ctx, base)
	}
	self := srv.Node.Self()
	st := api.Status{
		API: api.Version, Program: srv.Program, Phase: srv.Node.Phase(),
		Node:    api.Self{Name: self.Name, ID: self.NodeID, Address: srv.Node.Advertise(), Started: srv.Started.Format(time.RFC3339)},
		Cluster: srv.clusterStatus(s, standing, seen),
		Guard:   srv.guardStatus(),
		Config:  srv.FileStatus(),
	}
	for i, t := range shown {
		st.Groups = append(st.Groups, srv.groupStatus(t, sights[i]))
	}
	// The troubles of all nodes are those of all groups.
	st.Groups[0].Troubles = seen.troubles
	st.Nodes = srv.nodeStatus(s, standing, st.Groups)
	problemsFirst(st.Groups)
	st.VRRP = srv.virtualRouters()
	st.Findings = srv.Node.Findings()
	st.Warnings = append(identityWarnings(s, st.Findings), srv.warnings(st)...)
	return st
}

// identityWarnings say what is wrong with members' identities.
func identityWarnings(s *state.State, findings []identity.Finding) []string {
	var w []string
	for _, f := range findings {
		name := s.Nodes[f.Node].Name
		if name == "" {
			name = f.Node
		}
		effect := " and does not take part"
		if f.Kind == identity.FindingDiverged {
			effect = ""
		}
		w = append(w, fmt.Sprintf("IDENTITY of %s%s: %s; %s", name, effect, f.Text, f.Hint))
	}
	return w
}

func (srv *Server) clusterStatus(s *state.State, standing group.Standing, seen sight) api.Cluster {
	c := api.Cluster{
		ID: srv.Node.Self().ClusterID, Term: standing.Term, Version: s.Version,
		HeartbeatTimeout: s.Heartbeat.Current.Seconds(), Reachable: seen.reachable,
	}
	if standing.LeaderID != "" {
		c.Leader = owner.NameOf(s, standing.LeaderID)
	}
	for _, suffrage := range srv.Node.Suffrages() {
		if suffrage == cluster.SuffrageVoter {
			c.Voters++
		}
	}
	c.Tolerates = tolerates(c.Voters, c.Reachable)
	return c
}

// tolerates is the number of voters of those that answer that may fail yet.
func tolerates(voters, answering int) int { return max(answering-(voters/2+1), 0) }

// ownerName returns who owns in a group, as far as this node can tell without asking; "" also if
// it cannot.
func (srv *Server) ownerName(t Seat) string {
	if t.Owner.View().Owning {
		return srv.Node.Self().Name
	}
	s, standing := t.State(), t.Group.Standing()
	if owner.OwnedIn(s, t.Name, standing.LeaderID, standing.Term, hint.Owns(hint.In(t.ID, srv.Hints.Seen()))) {
		return owner.NameOf(s, standing.LeaderID)
	}
	return ""
}

func (srv *Server) groupStatus(t Seat, seen sight) api.Group {
	view, s, standing := t.Owner.View(), t.State(), t.Group.Standing()
	g := api.Group{
		Name: t.Name, Owner: seen.owner, Unknown: seen.owner == "" && !seen.known, Why: seen.why,
		State: "standby", Term: standing.Term, Nodes: srv.groupNodes(t, seen.owner),
	}
	switch {
	case view.Owning:
		g.State = "owner"
	case len(t.Report().Faults)+len(view.Faults) > 0:
		g.State = "fault"
	}
	if left := standing.LeaseUntil - boottime.Now(); left > 0 {
		g.LeaseRemaining = left.Seconds()
	}
	for _, suffrage := range srv.Node.SuffragesIn(t.ID) {
		if suffrage == cluster.SuffrageVoter {
			g.Voters++
		}
	}
	placed := make(map[string]place.Placement)
	if srv.Places != nil {
		for _, p := range srv.Places.Place(s.Instances) {
			placed[p.Address.Prefix.Addr().String()] = p
		}
	}
	kernel := t.Kept.Status()
	g.NotRemoved = kernel.NotRemoved
	_, g.ForeignClaims = srv.Claims.now()
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			out := api.Address{Prefix: a.Prefix, Instance: in.Name, Excluded: a.Excluded, State: "absent"}
			p := placed[a.Prefix.Addr().String()]
			out.Link = p.Link
			if p.Err != nil {
				out.Problem = p.Err.Error()
			}
			for _, k := range kernel.Addresses {
				if k.Prefix.Addr() != a.Prefix.Addr() {
					continue
				}
				kept := vrrp.KeptAddress(in.Name, k)
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

// groupNodes are the members as the group's policy sees them, by name.
func (srv *Server) groupNodes(t Seat, owner string) []api.GroupNode {
	hints := srv.Hints.Seen()
	connected := func(id string) bool { return hints[id].Known && hints[id].Age < aliveAge }
	told := hint.In(t.ID, hints)
	var out []api.GroupNode
	for _, n := range srv.candidates(t, hints, connected) {
		v := api.GroupNode{Name: n.Name, Priority: n.Priority, Owner: owner != "" && n.Name == owner}
		if n.Self {
			v.Priority = t.Report().Priority
		}
		if h := told[n.ID]; h.Known {
			v.Arithmetic = h.Check.Arithmetic()
		}
		v.Eligible, v.Why = policy.Eligible(n)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b api.GroupNode) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// arithmetic is how the priority of a node comes about, of which inDefault is what it says
// of the default group: that in the one group there is, or none.
func arithmetic(groups []api.Group, node string, inDefault string) string {
	switch {
	case len(groups) > 1:
		return ""
	case len(groups) == 0, groups[0].Name == state.DefaultGroup:
		return inDefault
	}
	for _, n := range groups[0].Nodes {
		if n.Name == node {
			return n.Arithmetic
		}
	}
	return ""
}

func (srv *Server) nodeStatus(s *state.State, standing group.Standing, groups []api.Group) []api.Node {
	hints := srv.Hints.Seen()
	suffrages := srv.Node.Suffrages()
	self := srv.Node.Self().NodeID
	connected := func(id string) bool { return hints[id].Known && hints[id].Age < aliveAge }
	views := make(map[string]policy.Node)
	for _, n := range srv.candidates(srv.shown()[0], hints, connected) {
		views[n.ID] = n
	}
	owns := make(map[string][]string) // groups, by the owner's name
	for _, g := range groups {
		if g.Owner != "" {
			owns[g.Owner] = append(owns[g.Owner], g.Name)
		}
	}
	var out []api.Node
	for _, n := range s.SortedNodes() {
		h := hints[n.ID]
		v := api.Node{
			Name: n.Name, ID: n.ID, Address: n.Address, Role: string(cluster.SuffrageNone),
			Leader: n.ID == standing.LeaderID, Owner: len(owns[n.Name]) > 0, Owns: owns[n.Name], Drained: n.Drained,
			ReportAge: -1, Priority: h.Check.Priority, Checks: h.Check.Instances,
			ClockOffset: h.Offset.Seconds(), Drift: h.Drift, ConfigError: h.ConfigError, Program: h.Program,
		}
		if r, ok := suffrages[n.ID]; ok {
			v.Role = string(r)
		}
		if n.Witness && v.Role == string(cluster.SuffrageVoter) {
			v.Role = "witness"
		}
		if h.Known {
			v.ReportAge = h.Age.Seconds()
			v.Alive = h.Age < aliveAge || n.ID == self
			v.Arithmetic = arithmetic(groups, n.Name, h.Check.Arithmetic())
		}
		for _, in := range h.All() {
			if in.Take != nil {
				v.Missing += in.Take.Missing
				v.MissingWhy = cmp.Or(v.MissingWhy, doctor.Clean(in.Take.String()))
			}
			for _, f := range in.Foreign {
				v.Foreign = append(v.Foreign, api.ForeignCopy{Prefix: f.Prefix, Link: f.Link, Silent: f.Silent, Serves: f.Serves, Why: doctor.Clean(f.Why)})
			}
		}
		if len(groups) > 1 || h.Check.Instances == nil {
			v.Checks = nil
			for _, in := range h.All() {
				v.Checks = append(v.Checks, in.Check.Instances...)
			}
		}
		v.Claims = apiClaims(h.Claims)
		v.AddressClaims = apiTwins(n.Name, n.Name+" itself", h.Twins)
		if n.ID == self {
			heard, _ := srv.Claims.now()
			v.Claims = apiClaims(heard)
			v.AddressClaims = apiTwins(n.Name, "this one", srv.Claims.twinsNow())
		}
		v.Eligible, v.Why = policy.Eligible(views[n.ID])
		out = append(out, v)
	}
	return out
}

func (srv *Server) guardStatus() api.Guard {
	if srv.Guard == nil {
		return api.Guard{Kind: "none", Guarantee: "this node is a witness and never owns an address"}
	}
	g := srv.Guard.Status()
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

// warnings are what an operator should change.
func (srv *Server) warnings(st api.Status) []string {
	var w []string
	answering := make(map[string]bool) // said already
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	w = append(w, claimWarnings(st.Nodes, true)...)
	w = append(w, twinWarnings(st.Nodes)...)
	for _, n := range st.Nodes {
		for _, f := range n.Foreign {
			if f.Answers() {
				add("%s ANSWERS FOR %s, whoever owns it: %s", n.Name, f.Prefix.Addr(), f.Why)
				answering[f.Why] = true
			}
		}
	}
	w = append(w, ownershipWarnings(st, srv.Node.State().Founded())...)
	w = append(w, heldBack(srv.Node.State())...)
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
			add("%s: its file differs from the cluster (differences: %d; raftvip status there)", n.Name, len(n.Drift))
		}
		if off := time.Duration(n.ClockOffset * float64(time.Second)); off.Abs() > clockWarning {
			add("%s: its clock is off by %s; ownership does not depend on it, but tokens and the history do", n.Name, off.Round(time.Second))
		}
	}
	w = append(w, claimWarnings(st.Nodes, false)...)
	{
		for _, g := range st.Groups {
			for _, t := range g.Troubles {
				if t.Kind == api.TroubleStray && !t.Address.IsValid() && t.Node != st.Node.Name {
					add("%s: %s; see raftvip status there", t.Node, t.Why)
				}
			}
			if n := g.NotRemoved; n > 0 {
				add("%d addresses CANNOT BE REMOVED from this node; only the guard keeps them silent: see the log, or take the interface down", n)
			}
			for _, a := range g.Addresses {
				if a.Problem != "" && !answering[a.Problem] {
					add("%s: %s", a.Prefix.Addr(), a.Problem)
				}
			}
		}
	}
	w = append(w, srv.levelWarnings()...)
	w = append(w, srv.Places.Warnings()...)
	w = append(w, vrrpWarnings(st.VRRP)...)
	w = append(w, st.Guard.Warnings...)
	return slices.Compact(w)
}

// levelWarnings tell of programs that do not fit the cluster: this one, if it is too
// old to follow, and those that keep all others from what newer ones can do.
func (srv *Server) levelWarnings() (w []string) {
	if fault := srv.Node.LogFault(); fault != "" {
		w = append(w, fault)
	}
	s := srv.Node.State()
	for _, r := range srv.Node.Reports() {
		if n, ok := s.Nodes[r.NodeID]; ok && max(r.Level, 1) < state.FeatureLevel {
			w = append(w, fmt.Sprintf("%s runs an older raftvip: the cluster works at feature level %d until it is upgraded", n.Name, s.FeatureLevel()))
		}
	}
	return w
}

// ownershipWarnings are about who owns and who is missing.
func ownershipWarnings(st api.Status, founded bool) (w []string) {
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	for _, g := range st.Groups {
		what := "the addresses"
		if len(st.Groups) > 1 {
			what += " of group " + g.Name
		}
		switch {
		case st.Phase != "" || !founded || len(g.Addresses) == 0 && st.Cluster.Leader != "":
			// There is nothing to own, or the line "waiting" says why.
		case st.Cluster.Leader == "":
			add("%s", g.Why)
		case g.Unknown:
			add("who owns %s is not known here: %s", what, g.Why)
		case g.Owner == "":
			add("nobody owns %s: %s", what, g.Why)
		}
		if founded && g.Voters > 0 && g.Voters < st.Cluster.Voters {
			add("%d of %d voters vote in group %s yet: until then it survives less", g.Voters, st.Cluster.Voters, g.Name)
		}
	}
	c := st.Cluster
	if text := SurvivalWarning(c.Voters); text != "" && st.Phase == "" && founded {
		w = append(w, text)
	}
	if c.Reachable > 0 && c.Reachable < c.Voters {
		add("%d of %d voters answer: %d more may fail", c.Reachable, c.Voters, c.Tolerates)
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

// StandaloneStatus is Status of a daemon without a cluster.
func (srv *Server) StandaloneStatus() api.Status {
	c := srv.File()
	st := api.Status{
		API: api.Version, Program: srv.Program, Standalone: true,
		Node:   api.Self{Name: c.Raft.NodeID, Started: srv.Started.Format(time.RFC3339)},
		Config: srv.FileStatus(), VRRP: srv.virtualRouters(),
		Guard: api.Guard{Kind: string(guard.Off), Lateness: -1,
			Guarantee: fmt.Sprintf("none: the addresses of a dead daemon vanish after %s", vrrp.PlainLifetime)},
	}
	st.Warnings = vrrpWarnings(st.VRRP)
	if c := st.Config; c.Error != "" {
		st.Warnings = append(st.Warnings, "the last reload changed nothing: "+firstLine(c.Error))
	}
	return st
}
