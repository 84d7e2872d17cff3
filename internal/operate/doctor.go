package operate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/vip/guard"
)

const (
	// doctorFacts bounds how long a member may take to look at itself.
	doctorFacts = 6 * time.Second
	// doctorDial bounds one connection, and doctorPayload the large data on it.
	doctorDial    = 3 * time.Second
	doctorPayload = 3 * time.Second
	// doctorLatency bounds the way of a question and its answer between members.
	doctorLatency = 2 * time.Second
	// clockReadings is how often a member's clock is read; the quickest answer counts.
	clockReadings = 3
)

// doctorRoutes registers what doctor asks of this daemon, and of the members.
func (srv *Server) doctorRoutes(node, control *http.ServeMux) {
	api.Handle(control, api.PathDoctor, func(ctx context.Context, _ struct{}) (doctor.Report, error) { return srv.doctor(ctx) })
	api.HandlePeer(node, api.PathDoctorFacts, func(ctx context.Context, _ struct{}) (doctor.Facts, error) { return srv.doctorFacts(ctx) })
	api.HandlePeer(node, api.PathDoctorTime, func(context.Context, struct{}) (api.DoctorTime, error) {
		return api.DoctorTime{Clock: time.Now()}, nil
	})
	api.HandlePeer(node, api.PathDoctorPayload, func(_ context.Context, in api.DoctorPayload) (api.DoctorPayload, error) {
		if len(in.Padding) > doctor.PayloadSize {
			return api.DoctorPayload{}, state.Refuse(state.CodeBadRequest, "", "padding: must be at most %d bytes", doctor.PayloadSize)
		}
		return in, nil
	})
	api.HandlePeer(node, api.PathDoctorDial, srv.doctorDial)
	api.HandlePeer(node, api.PathDoctorProbe, srv.doctorProbe)
}

// doctor examines the cluster: it asks all members at once, one question after the
// other, and puts together what they say.
func (srv *Server) doctor(ctx context.Context) (doctor.Report, error) {
	s := srv.Node.State()
	if !s.Founded() {
		return srv.doctorUnfounded(ctx)
	}
	nodes := s.SortedNodes()
	if len(nodes) > doctor.MaxNodes {
		return doctor.Report{}, state.Refuse(state.CodeBadRequest, "", "%d nodes: doctor examines at most %d", len(nodes), doctor.MaxNodes)
	}
	members := make([]doctor.Member, len(nodes))
	for i, n := range nodes {
		members[i] = doctor.Member{ID: n.ID, Name: n.Name, Address: n.Address, Witness: n.Witness}
	}
	srv.eachMember(members, func(m *doctor.Member) {
		if err := srv.askFacts(ctx, m); err != nil {
			m.Error = oneLine(err)
		}
	})
	srv.eachMember(members, func(m *doctor.Member) {
		var to []string
		for _, o := range members {
			if o.ID != m.ID {
				to = append(to, o.ID)
			}
		}
		in := api.DoctorDial{To: to}
		err := askMember(ctx, srv, m, doctorDial+doctorPayload+doctorLatency, api.PathDoctorDial, in, &m.Dials, srv.doctorDial)
		if err == nil {
			err = doctor.ValidateDials(m.Dials, to)
		}
		if err != nil {
			m.Dials, m.DialError = nil, oneLine(err)
		}
	})
	var session [8]byte
	rand.Read(session[:])
	in := api.DoctorProbe{Session: hex.EncodeToString(session[:])}
	for _, m := range members {
		in.Nodes = append(in.Nodes, m.ID)
	}
	srv.eachMember(members, func(m *doctor.Member) {
		err := askMember(ctx, srv, m, doctor.ProbeLasts+doctorLatency, api.PathDoctorProbe, in, &m.Probed, srv.doctorProbe)
		if err == nil {
			err = m.Probed.Validate(len(members))
		}
		if err != nil {
			m.Probed, m.ProbeError = doctor.Probed{}, oneLine(err)
		}
	})
	if err := ctx.Err(); err != nil {
		return doctor.Report{}, err
	}
	r := doctor.Examine(srv.Node.Self().NodeID, members)
	shown := srv.shown()
	for i, seen := range eachSeat(shown, func(t Seat) sight { return srv.sight(ctx, t) }) {
		name := ""
		if len(shown) > 1 {
			name = shown[i].Name
		}
		r.Add(ownerFinding(srv.Node.Self().Name, name, countAddresses(shown[i].State().Instances), seen))
	}
	r.API = api.Version
	return r, nil
}

// ownerFinding is about who owns.
func ownerFinding(self, group string, addresses int, seen sight) doctor.Finding {
	what := "the addresses"
	if group != "" {
		what += " of group " + group
	}
	f := doctor.Finding{Check: doctor.CheckOwner, Node: self, Result: doctor.OK, Seen: seen.owner + " owns " + what}
	switch {
	case seen.owner == "" && addresses == 0:
		f.Seen = "there is no virtual address"
	case seen.owner == "" && seen.known:
		f.Result, f.Seen, f.Do = doctor.Fail, "nobody owns "+what+": "+doctor.Clean(seen.why), "see raftvip status"
	case seen.owner == "":
		f.Result, f.Seen, f.Do = doctor.Fail, "who owns "+what+" is not known here: "+doctor.Clean(seen.why), "ask another node: raftvip status there"
	}
	return f
}

// oneLine makes an error fit for a finding: it may hold what another machine said.
func oneLine(err error) string { return doctor.Clean(err.Error()) }

// eachMember calls f at once for all members that can be asked.
func (srv *Server) eachMember(members []doctor.Member, f func(*doctor.Member)) {
	var all sync.WaitGroup
	for i := range members {
		if members[i].Error == "" {
			all.Go(func() { f(&members[i]) })
		}
	}
	all.Wait()
}

// askMember asks a member, or this node itself.
func askMember[In, Out any](ctx context.Context, srv *Server, m *doctor.Member, within time.Duration, path string, in In, out *Out, here func(context.Context, In) (Out, error)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if m.ID == srv.Node.Self().NodeID {
		*out, err = here(ctx, in)
		return err
	}
	err = srv.Node.Call(ctx, m.Address, path, in, out)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", within)
	}
	return err
}

// askFacts asks a member for its clock and for what it knows of itself.
func (srv *Server) askFacts(ctx context.Context, m *doctor.Member) error {
	if m.ID != srv.Node.Self().NodeID {
		for i := range clockReadings {
			sent := time.Now()
			var at api.DoctorTime
			if err := askMember(ctx, srv, m, doctorDial, api.PathDoctorTime, struct{}{}, &at, nil); err != nil {
				return err
			}
			if c := doctor.ReadClock(sent, time.Now(), at.Clock); i == 0 || c.Within < m.Clock.Within {
				m.Clock = c
			}
		}
	}
	here := func(ctx context.Context, _ struct{}) (doctor.Facts, error) { return srv.doctorFacts(ctx) }
	if err := askMember(ctx, srv, m, doctorFacts, api.PathDoctorFacts, struct{}{}, &m.Facts, here); err != nil {
		return err
	}
	if err := m.Facts.Validate(); err != nil {
		return fmt.Errorf("what it says of itself makes no sense: %w", err)
	}
	// Who it is stands in the cluster's state, whatever it says.
	m.Facts.Name, m.Facts.Address, m.Facts.Witness = m.Name, m.Address, m.Witness
	return nil
}

// doctorFacts looks at this node.
func (srv *Server) doctorFacts(ctx context.Context) (doctor.Facts, error) {
	f, err := doctor.Gather(srv.doctorSubject(ctx))
	if err == nil && srv.Places != nil {
		heard, _ := srv.Claims.now()
		f.Troubles = claimTroubles(heard)
		for _, t := range srv.Seats() {
			f.Troubles = append(f.Troubles, addressTroubles(t.Kept.Status(), t.Owner.View().Owning)...)
		}
		f.Troubles = f.Troubles[:min(len(f.Troubles), maxTroubles)]
		f.Troubles = append(f.Troubles, srv.frontTroubles(ctx)...)
		f.Troubles = append(f.Troubles, twinTroubles(srv.Node.Self().Name, srv.Claims.twinsNow())...)
	}
	for _, i := range srv.Node.Findings() {
		name := srv.Node.State().Nodes[i.Node].Name
		f.Identities = append(f.Identities, doctor.Trouble{Serious: true, Seen: name + ": " + i.Text, Do: i.Hint})
	}
	return f, err
}

func (srv *Server) doctorSubject(ctx context.Context) doctor.Subject {
	s := srv.Node.State()
	self := srv.Node.Self()
	out := doctor.Subject{
		Name: self.Name, Address: srv.Node.Advertise(), Witness: self.Witness,
		DataDir: srv.Data.Path(), Heartbeat: s.Heartbeat.Current, Guard: srv.doctorGuard(),
	}
	out.Local, _ = resolve(ctx, srv.Node.Advertise())
	for _, n := range s.SortedNodes() {
		if a, err := resolve(ctx, n.Address); err == nil && n.ID != self.NodeID {
			out.Peers = append(out.Peers, a)
		}
	}
	if srv.Places == nil {
		for _, in := range s.Instances {
			for _, a := range in.Addresses {
				out.VIPs = append(out.VIPs, doctor.VIP{Prefix: a.Prefix})
			}
		}
		return out
	}
	for _, p := range srv.Places.Resolve(s.Instances) {
		out.VIPs = append(out.VIPs, doctor.VIP{Prefix: p.Address.Prefix, Link: p.Link})
	}
	return out
}

func (srv *Server) doctorGuard() *doctor.Guard {
	if srv.Guard == nil {
		return nil
	}
	g := srv.Guard.Status()
	out := &doctor.Guard{Kind: string(g.Kind), Guarantee: g.Guarantee, Weak: g.Kind == guard.Lifetime || g.Kind == guard.Off}
	for _, i := range g.Interfaces {
		if !i.Attached && g.Kind != guard.Off {
			out.Problems = append(out.Problems, doctor.Clean(i.Name+": "+i.Error))
		}
	}
	return out
}

// resolveWithin bounds how long the name of a member is looked up.
const resolveWithin = time.Second

// resolve returns where HOST:PORT of a member is.
func resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(address); err == nil {
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(found[0].Unmap(), uint16(number)), nil
}

// doctorDial connects to members, all at once, by connections of their own.
func (srv *Server) doctorDial(ctx context.Context, in api.DoctorDial) ([]doctor.Dial, error) {
	targets, err := srv.membersOf(in.To)
	if err != nil {
		return nil, err
	}
	out := make([]doctor.Dial, len(targets))
	var all sync.WaitGroup
	for i, n := range targets {
		all.Go(func() { out[i] = srv.dialMember(ctx, n) })
	}
	all.Wait()
	return out, nil
}

// membersOf returns the members with these IDs. Nobody else is ever contacted, so a
// request names nodes rather than addresses.
func (srv *Server) membersOf(ids []string) ([]state.NodeRecord, error) {
	if len(ids) > doctor.MaxNodes {
		return nil, state.Refuse(state.CodeBadRequest, "", "%d nodes: must be at most %d", len(ids), doctor.MaxNodes)
	}
	s := srv.Node.State()
	var out []state.NodeRecord
	for i, id := range ids {
		n, ok := s.Nodes[id]
		if !ok || slices.Contains(ids[:i], id) {
			return nil, state.Refuse(state.CodeNotFound, "", "node %.80q: must be a member, named once", id)
		}
		out = append(out, n)
	}
	return out, nil
}

func (srv *Server) dialMember(ctx context.Context, n state.NodeRecord) doctor.Dial {
	out := doctor.Dial{To: n.ID}
	caller := srv.Node.NewCaller()
	defer caller.Close()
	bounded, cancel := context.WithTimeout(ctx, doctorDial)
	defer cancel()
	var at api.DoctorTime
	start := time.Now()
	if err := caller.Call(bounded, n.Address, api.PathDoctorTime, struct{}{}, &at); err != nil {
		out.Error = dialError(err, n.Address, doctorDial)
		return out
	}
	out.Connected = time.Since(start)
	start = time.Now()
	if err := caller.Call(bounded, n.Address, api.PathDoctorTime, struct{}{}, &at); err != nil {
		out.Error = dialError(err, n.Address, doctorDial)
		return out
	}
	out.RTT = time.Since(start)
	bounded, cancel = context.WithTimeout(ctx, doctorPayload)
	defer cancel()
	payload := api.DoctorPayload{Padding: strings.Repeat("x", doctor.PayloadSize)}
	if err := caller.Call(bounded, n.Address, api.PathDoctorPayload, payload, &payload); err != nil {
		out.PayloadError = dialError(err, n.Address, doctorPayload)
	}
	return out
}

// dialError says why, without the address, which the finding has.
func dialError(err error, address string, within time.Duration) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", within)
	}
	text := oneLine(err)
	for _, before := range []string{"call ", "reach ", "dial tcp "} {
		text = strings.TrimPrefix(text, before+address+": ")
	}
	return text
}

// doctorProbe takes part in a probe.
func (srv *Server) doctorProbe(ctx context.Context, in api.DoctorProbe) (doctor.Probed, error) {
	nodes, err := srv.membersOf(in.Nodes)
	if err != nil {
		return doctor.Probed{}, err
	}
	if !srv.probing.TryLock() {
		return doctor.Probed{}, state.Refuse(state.CodeNotReady, "try again in some seconds", "%s takes part in another probe", srv.Node.Self().Name)
	}
	defer srv.probing.Unlock()
	plan := doctor.Plan{Session: in.Session, Self: -1, Nodes: len(nodes), Peers: make(map[int]netip.AddrPort)}
	for i, n := range nodes {
		if n.ID == srv.Node.Self().NodeID {
			plan.Self = i
			continue
		}
		if a, err := resolve(ctx, n.Address); err == nil {
			plan.Peers[i] = a
		}
	}
	if plan.Self < 0 {
		return doctor.Probed{}, state.Refuse(state.CodeBadRequest, "", "node %s is not in the probe", srv.Node.Self().Name)
	}
	subject := srv.doctorSubject(ctx)
	plan.Local = subject.Local
	if plan.Interfaces, err = doctor.Interfaces(subject); err != nil {
		return doctor.Probed{}, err
	}
	return doctor.Probe(ctx, plan)
}
