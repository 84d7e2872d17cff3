package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/vipaddr"
	"github.com/raftvip/raftvip/vip"
)

// Limits of join tokens.
const (
	MaxTokenTTL  = 30 * 24 * time.Hour
	MaxTokenUses = 100
)

// routes registers the API. The control socket gets all of it, the node port only
// what members ask of their leader.
func (d *Daemon) routes(node, control *http.ServeMux) {
	api.Handle(control, api.PathStatus, func(ctx context.Context, _ struct{}) (api.Status, error) { return d.Status(ctx), nil })
	api.HandlePeer(node, api.PathOwner, d.ownership)
	api.Handle(control, api.PathHistory, func(context.Context, struct{}) ([]api.Move, error) { return d.history(), nil })
	api.Handle(control, api.PathVIPs, func(ctx context.Context, _ struct{}) ([]api.VIP, error) { return d.vips(ctx), nil })
	api.Handle(control, api.PathTokens, func(context.Context, struct{}) ([]api.Token, error) { return d.tokens(), nil })
	api.Handle(control, api.PathReload, func(ctx context.Context, in api.ReloadRequest) (api.ReloadResult, error) {
		return d.Reload(ctx, in.Force)
	})
	api.Handle(control, api.PathLeave, d.leaveCluster)

	api.Handle(control, api.PathDrill, func(ctx context.Context, _ struct{}) (api.DrillResult, error) { return d.drill(ctx) })
	api.HandlePeer(node, api.PathObserve, d.observe)
	d.doctorRoutes(node, control)

	leaderDoes(d, node, control, api.PathNote, d.noteMove)
	leaderDoes(d, node, control, api.PathLoss, d.noteLoss)
	leaderDoes(d, node, control, api.PathTransfer, d.transfer)
	leaderDoes(d, node, control, api.PathDrain, d.drain)
	leaderDoes(d, node, control, api.PathVIPAdd, d.vipAdd)
	leaderDoes(d, node, control, api.PathVIPDel, d.vipDel)
	leaderDoes(d, node, control, api.PathRemove, d.nodeRemove)
	leaderDoes(d, node, control, api.PathPromote, d.nodePromote)
	leaderDoes(d, node, control, api.PathToken, d.tokenCreate)
	leaderDoes(d, node, control, api.PathRevoke, d.tokenRevoke)
	leaderDoes(d, node, control, api.PathConfig, d.configure)
}

// leaderDoes registers a request that only the leader carries out: on the control
// socket of another node it is sent on to the leader.
func leaderDoes[In, Out any](d *Daemon, node, control *http.ServeMux, path string, f func(context.Context, In) (Out, error)) {
	here := func(ctx context.Context, in In) (Out, error) {
		var none Out
		if !d.node.Group(state.DefaultGroup).Standing().Leading {
			return none, state.Refuse(state.CodeNotLeader, "try again", "node %s does not lead", d.node.Self().Name)
		}
		return f(ctx, in)
	}
	api.HandlePeer(node, path, here)
	api.Handle(control, path, func(ctx context.Context, in In) (Out, error) {
		return askLeader[In, Out](ctx, d, path, in, here)
	})
}

// leaderWait bounds how long a request waits for a leader to appear.
const leaderWait = 3 * time.Second

// askLeader carries a request out here or at the leader, and waits a moment for a
// leader if there is none: elections take less.
func askLeader[In, Out any](ctx context.Context, d *Daemon, path string, in In, here func(context.Context, In) (Out, error)) (Out, error) {
	deadline := time.Now().Add(leaderWait)
	for {
		var out Out
		changed := d.node.Changed()
		err := error(d.noLeader())
		if d.node.Group(state.DefaultGroup).Standing().Leading {
			out, err = here(ctx, in)
		} else if address := d.node.LeaderAddress(); address != "" && address != d.node.Advertise() {
			err = d.node.Call(ctx, address, path, in, &out)
		}
		var r *state.Refusal
		if !errors.As(err, &r) || r.Code != state.CodeNotLeader && r.Code != state.CodeNoLeader || time.Now().After(deadline) {
			return out, err
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return out, err
		}
	}
}

func (d *Daemon) noLeader() *state.Refusal {
	if phase := d.node.Phase(); phase != "" {
		return state.Refuse(state.CodeNoLeader, `see "raftvip status"`, "this node is not in a cluster yet: %s", phase)
	}
	if !d.node.State().Founded() {
		return state.Refuse(state.CodeNoLeader, `see "raftvip status"`, "the cluster has not been founded yet")
	}
	if text, _ := d.quorum.state(); text != "" {
		return state.Refuse(state.CodeNoLeader,
			`see "raftvip status"; this node owns nothing until a majority of the voters is back`, "%s", text)
	}
	return state.Refuse(state.CodeNoLeader, `see "raftvip status", and try again`, "this node knows no leader now")
}

// maxHistoryText is the longest text that a request may add to the history.
const maxHistoryText = 200

// transfer hands the group to a node.
func (d *Daemon) transfer(ctx context.Context, in api.TransferRequest) (api.TransferResult, error) {
	started := time.Now()
	r := &owner.Request{Reason: "requested with raftvip transfer", Manual: !in.Preemptible}
	if in.Reason != "" {
		r.Reason = in.Reason
	}
	if len(in.Reason) > maxHistoryText {
		return api.TransferResult{}, state.Refuse(state.CodeBadRequest, "", "reason: must be at most %d bytes", maxHistoryText)
	}
	s := d.node.State()
	if in.Node != "" {
		n, ok := s.NodeByName(in.Node)
		if !ok {
			return api.TransferResult{}, noNode(s, in.Node)
		}
		r.To = n.ID
	}
	if err := d.owner.Move(ctx, r); err != nil {
		return api.TransferResult{}, err
	}
	return api.TransferResult{From: d.node.Self().Name, To: s.Nodes[r.Moved].Name, Took: time.Since(started).Seconds()}, nil
}

func noNode(s *state.State, name string) error {
	var names []string
	for _, n := range s.SortedNodes() {
		names = append(names, n.Name)
	}
	return state.Refuse(state.CodeNotFound, "the nodes are: "+strings.Join(names, ", "), "no node %s", name)
}

func (d *Daemon) drain(ctx context.Context, in api.DrainRequest) (api.Done, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	s := d.node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if in.Drained && !n.Drained {
		if err := refuseSilence(s, d.electable(s), d.ownerID(), n.ID, "to drain "+n.Name, in.Force); err != nil {
			return api.Done{}, err
		}
	}
	if err := d.node.Apply(ctx, state.Command{Drain: &state.DrainCommand{NodeID: n.ID, Drained: in.Drained}}); err != nil {
		return api.Done{}, err
	}
	return api.Done{}, nil
}

func (d *Daemon) nodeRemove(ctx context.Context, in api.NodeRequest) (api.Done, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	s := d.node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if n.ID == d.node.Self().NodeID {
		if len(s.Nodes) == 1 {
			return api.Done{}, state.Refuse(state.CodeLastVoter, "stop the daemon and delete its data dir to end the cluster",
				"%s is the only node of the cluster", n.Name)
		}
		return api.Done{}, state.Refuse(state.CodeLastVoter, `move the group first: raftvip transfer`, "%s leads the cluster now", n.Name)
	}
	if silent, ok := quorumWithout(d.voters(s), n.Name); !ok {
		return api.Done{}, noMajorityWithout(n.Name, silent)
	}
	if err := refuseSilence(s, d.electable(s), d.ownerID(), n.ID, "to remove "+n.Name, in.Force); err != nil {
		return api.Done{}, err
	}
	left := len(d.voters(s))
	if d.node.Suffrages()[n.ID] == cluster.SuffrageVoter {
		left--
	}
	if err := d.node.Apply(ctx, state.Command{RemoveNode: &n.ID}); err != nil {
		return api.Done{}, err
	}
	done := api.Done{Message: n.Name + " is no member any more"}
	if text := SurvivalWarning(left); text != "" {
		done.Message += "; " + text
	}
	return done, nil
}

func noMajorityWithout(name string, silent []string) error {
	return state.Refuse(state.CodeLastVoter, "bring these back, or remove them first: raftvip node remove "+silent[0],
		"without %s no majority of the voters would answer: %s silent", name, strings.Join(silent, ", "))
}

// voters tells of each voter, by name, whether it answers this leader.
func (d *Daemon) voters(s *state.State) map[string]bool {
	out := make(map[string]bool)
	for id, suffrage := range d.node.Suffrages() {
		if suffrage != cluster.SuffrageVoter {
			continue
		}
		name := s.Nodes[id].Name
		if name == "" {
			name = id // Raft has not removed it yet
		}
		ago, ok := d.node.Group(state.DefaultGroup).Contact(id)
		out[name] = id == d.node.Self().NodeID || ok && ago < max(s.Heartbeat.Current, time.Second)
	}
	return out
}

// quorumWithout tells whether the voters that answer are a majority of those that
// are left when one is removed, and who is silent. Raft acts on a membership from
// the moment it is proposed: without that majority nobody could ever confirm it.
func quorumWithout(voters map[string]bool, removed string) (silent []string, ok bool) {
	left, answering := 0, 0
	for name, answers := range voters {
		switch {
		case name == removed:
			continue
		case answers:
			answering++
		default:
			silent = append(silent, name)
		}
		left++
	}
	slices.Sort(silent)
	return silent, 2*answering > left
}

func (d *Daemon) nodePromote(ctx context.Context, in api.NodeRequest) (api.Done, error) {
	s := d.node.State()
	n, ok := s.NodeByName(in.Node)
	if !ok {
		return api.Done{}, noNode(s, in.Node)
	}
	if d.node.Suffrages()[n.ID] == cluster.SuffrageVoter {
		return api.Done{Message: n.Name + " is a voter already"}, nil
	}
	if !slices.ContainsFunc(d.node.Reports(), func(r cluster.SeenReport) bool {
		return r.NodeID == n.ID && r.Age < aliveAge && r.Applied >= s.Version
	}) {
		return api.Done{}, state.Refuse(state.CodeNotReady, "start its daemon; it votes by itself once it has caught up",
			"%s does not answer or does not have the whole state yet, and as a voter it could cost the cluster its majority", n.Name)
	}
	if err := d.node.Promote(n); err != nil {
		return api.Done{}, err
	}
	return api.Done{Message: n.Name + " is a voter now"}, nil
}

// leaveCluster removes this node and stops the daemon.
func (d *Daemon) leaveCluster(ctx context.Context, in api.LeaveRequest) (api.Done, error) {
	self := d.node.Self()
	if s := d.node.State(); d.node.Group(state.DefaultGroup).Standing().Leading && len(s.Nodes) > 1 {
		if silent, ok := quorumWithout(d.voters(s), self.Name); !ok {
			return api.Done{}, noMajorityWithout(self.Name, silent)
		}
		if err := refuseSilence(s, d.electable(s), d.ownerID(), self.NodeID, "to leave", in.Force); err != nil {
			return api.Done{}, err
		}
		r := &owner.Request{Reason: self.Name + " leaves the cluster", Manual: true, Anyone: in.Force}
		if err := d.owner.Move(ctx, r); err != nil {
			return api.Done{}, err
		}
	}
	done, err := askLeader(ctx, d, api.PathRemove, api.NodeRequest{Node: self.NodeID, Force: in.Force}, d.nodeRemove)
	if err != nil {
		d.owner.Stay()
		return done, err
	}
	d.log.Info("left the cluster")
	time.AfterFunc(50*time.Millisecond, d.leave)
	return done, nil
}

// configure takes over the cluster-wide part of a node's file.
func (d *Daemon) configure(ctx context.Context, in api.ConfigureRequest) (api.Configured, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	s, c := d.node.State(), in.Configuration
	if err := checkAddresses(c.Instances); err != nil {
		return api.Configured{}, err
	}
	if in.Seen != "" && in.Seen != place.ClusterContent(s).Hash() {
		return api.Configured{}, errMoved
	}
	c.Instances = place.Proposal(s.Instances, c.Instances)
	if err := refuseEmpty(s.Instances, c.Instances, "the file", in.Force); err != nil {
		return api.Configured{}, err
	}
	for _, in := range c.Instances {
		for _, a := range in.Addresses {
			if err := notANodes(s, a.Prefix.Addr()); err != nil {
				return api.Configured{}, err
			}
		}
	}
	if err := d.probeNew(ctx, s, c.Instances, in.Force); err != nil {
		return api.Configured{}, err
	}
	if err := d.node.Apply(ctx, state.Command{Configure: &c}); err != nil {
		return api.Configured{}, err
	}
	heartbeat := cmp.Or(c.Heartbeat, s.Heartbeat.Configured)
	return api.Configured{
		Changes: place.Changes(place.ContentOf(s.Instances, s.Heartbeat.Configured), place.ContentOf(c.Instances, heartbeat), nil),
	}, nil
}

// checkAddresses refuses what cannot be a virtual address before the network is asked
// about it.
func checkAddresses(instances []state.Instance) error {
	for _, in := range instances {
		for _, a := range in.Addresses {
			if err := vipaddr.Check(a.Prefix); err != nil {
				return state.Refuse(state.CodeBadRequest, "", "instance %.80q: virtual address %.80q: %s", in.Name, a.Prefix, err)
			}
		}
	}
	return nil
}

// probesAtOnce is how many addresses the network is asked about at a time: each
// takes 0.6 s and a socket.
const probesAtOnce = 100

// probeNew asks the network about the addresses that the cluster does not have
// yet, all at once: a typing error in a file must not take another machine's.
// An address without an interface here is for the other nodes to use.
func (d *Daemon) probeNew(ctx context.Context, s *state.State, instances []state.Instance, force bool) error {
	if d.host == nil || force {
		return nil
	}
	var tasks errgroup.Group
	tasks.SetLimit(probesAtOnce)
	speaks := make(map[string]bool)
	for _, in := range instances {
		speaks[in.Name] = in.VRRP != ""
	}
	for _, p := range place.Resolve(instances, d.configuration(), d.links.Current(), nil) {
		if speaks[p.Instance] {
			continue // its VRRP master may well have the addresses, and VRRP decides
		}
		if _, _, known := s.AddressOf(p.Address.Prefix.Addr()); known || p.Err != nil {
			continue
		}
		a := p.Address
		a.Dev = p.Link
		tasks.Go(func() error { return probe(ctx, d.links.Current(), a, false) })
	}
	return tasks.Wait()
}

// notANodes refuses a virtual address at which a member is reached: its owner would
// cut that member off.
func notANodes(s *state.State, ip netip.Addr) error {
	for _, n := range s.SortedNodes() {
		if at, err := netip.ParseAddrPort(n.Address); err == nil && at.Addr().Unmap() == ip {
			return state.Refuse(state.CodeAddressInUse, "choose an address that no machine has of its own",
				"address %s is that of node %s", ip, n.Name)
		}
	}
	return nil
}

// maxInstanceName is the longest name of an instance that vip add makes.
const maxInstanceName = 64

// vipAdd adds an address, after asking the network whether somebody has it.
func (d *Daemon) vipAdd(ctx context.Context, in api.VIPRequest) (api.Done, error) {
	if in.Instance == "" {
		in.Instance = "default"
	}
	if len(in.Instance) > maxInstanceName || strings.ContainsFunc(in.Instance, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return api.Done{}, state.Refuse(state.CodeBadRequest, "", "instance %.80q: must be at most %d characters and no blanks", in.Instance, maxInstanceName)
	}
	if err := vipaddr.CheckLink(in.Prefix, in.Dev); err != nil {
		return api.Done{}, state.Refuse(state.CodeBadRequest, "", "virtual address %.80q: %s", in.Prefix, err)
	}
	s := d.node.State()
	if err := notANodes(s, in.Prefix.Addr()); err != nil {
		return api.Done{}, err
	}
	if i, a, ok := s.AddressOf(in.Prefix.Addr()); ok {
		return api.Done{}, state.Refuse(state.CodeAddressInUse, `see "raftvip vip list"`, "address %s is already in instance %s", a.Prefix, i.Name)
	}
	address := state.Address{Prefix: in.Prefix, Dev: in.Dev, Added: true}
	if d.host != nil {
		if err := probe(ctx, d.links.Current(), address, in.Force); err != nil {
			return api.Done{}, err
		}
	}
	err := d.node.Apply(ctx, state.Command{AddVIP: &state.VIPCommand{
		Instance: in.Instance, Group: state.DefaultGroup, Address: address, GARP: place.DefaultGARP(),
	}})
	return api.Done{}, err
}

// probe refuses an address that has no interface or that another machine answers
// for (RFC 5227).
func probe(ctx context.Context, links []vip.Link, a state.Address, force bool) error {
	link, err := vip.Resolve(a.Prefix, a.Dev, "", links)
	if err != nil {
		return state.Refuse(state.CodeBadRequest, "give the interface: "+a.Prefix.String()+"@INTERFACE", "%s", err)
	}
	if force {
		return nil
	}
	for _, l := range links {
		for _, k := range l.Addresses {
			if k.Prefix.Addr() == a.Prefix.Addr() && k.Protocol != vip.AddrProtocol {
				return state.Refuse(state.CodeAddressInUse, "choose an address that no machine has of its own; if keepalived has it, stop that first, or repeat with --force",
					"address %s is already on %s of this machine", a.Prefix.Addr(), l.Name)
			}
		}
	}
	mac, found, err := vip.ProbeConflict(ctx, link, a.Prefix.Addr())
	switch {
	case err != nil:
		return state.Refuse(state.CodeBadRequest, "repeat with --force to add it without asking",
			"cannot ask the network whether %s is in use: %s", a.Prefix.Addr(), err)
	case found:
		return state.Refuse(state.CodeAddressInUse, "take it from that machine first, or repeat with --force",
			"address %s is already on another machine: %s answers for it on %s", a.Prefix.Addr(), mac, link)
	}
	return nil
}

// ProbeAddresses is probe for commands that run without a daemon. The first address
// that cannot be had is the error.
func ProbeAddresses(ctx context.Context, addrs []state.Address, force bool) error {
	host, err := vip.OpenHost()
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := host.Links()
	if err != nil {
		return err
	}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.SetLimit(probesAtOnce)
	for _, a := range addrs {
		tasks.Go(func() error { return probe(ctx, links, a, force) })
	}
	return tasks.Wait()
}

func (d *Daemon) vipDel(ctx context.Context, in api.VIPRequest) (api.Done, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	ip, s := in.Prefix.Addr(), d.node.State()
	if _, _, ok := s.AddressOf(ip); ok && countAddresses(s.Instances) == 1 {
		if err := refuseEmpty(s.Instances, nil, "this", in.Force); err != nil {
			return api.Done{}, err
		}
	}
	return api.Done{}, d.node.Apply(ctx, state.Command{DelVIP: &ip})
}

func (d *Daemon) tokenCreate(ctx context.Context, in api.TokenRequest) (api.Token, error) {
	if in.TTL <= 0 || in.TTL > MaxTokenTTL {
		return api.Token{}, state.Refuse(state.CodeBadRequest, "give it with --ttl, such as --ttl 1h", "token lifetime %s: must be over 0 and at most %s", in.TTL, MaxTokenTTL)
	}
	if in.Uses < 1 || in.Uses > MaxTokenUses {
		return api.Token{}, state.Refuse(state.CodeBadRequest, "give them with --uses", "token uses %d: must be 1 to %d", in.Uses, MaxTokenUses)
	}
	token, record, err := d.newToken(in)
	if err != nil {
		return api.Token{}, err
	}
	if err := d.node.Apply(ctx, state.Command{PutToken: &record}); err != nil {
		return api.Token{}, err
	}
	return api.Token{
		ID: token.ID, Text: token.Text(), Expires: record.Expires, Uses: record.Uses,
		Join: JoinCommand(d.node.Advertise(), token.Text()),
	}, nil
}

func (d *Daemon) newToken(in api.TokenRequest) (pki.Token, state.TokenRecord, error) {
	secret, err := d.data.Secret()
	if err != nil {
		return pki.Token{}, state.TokenRecord{}, err
	}
	return NewToken(secret, in.TTL, in.Uses)
}

// JoinCommand is what to run on a new node. echo is the shell's own: the token is in no
// command line that other users of the machine can see.
func JoinCommand(address, token string) string {
	return fmt.Sprintf("echo %s | raftvip join %s --token-file -", token, address)
}

// NewToken makes a token of the cluster with this secret, and its record.
func NewToken(secret pki.Secret, ttl time.Duration, uses int) (pki.Token, state.TokenRecord, error) {
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		return pki.Token{}, state.TokenRecord{}, err
	}
	now := time.Now()
	token := pki.NewToken(authority)
	return token, state.TokenRecord{ID: token.ID, Hash: token.Hash(), Created: now, Expires: now.Add(ttl), Uses: uses}, nil
}

func (d *Daemon) tokenRevoke(ctx context.Context, in api.TokenRevoke) (api.Done, error) {
	return api.Done{}, d.node.Apply(ctx, state.Command{DropToken: &in.ID})
}

func (d *Daemon) tokens() []api.Token {
	var out []api.Token
	for _, t := range d.node.State().Tokens {
		out = append(out, api.Token{ID: t.ID, Expires: t.Expires, Uses: t.Uses})
	}
	slices.SortFunc(out, func(a, b api.Token) int { return a.Expires.Compare(b.Expires) })
	return out
}

func (d *Daemon) history() []api.Move {
	var out []api.Move
	for _, m := range d.node.State().Moves {
		out = append(out, api.Move{
			Seq: m.Seq, At: m.At, Group: m.Group, Term: m.Term, From: m.From, To: m.To, Reason: m.Reason,
			Gap: m.Gap.Seconds(), GapLeast: m.GapLeast.Seconds(), Loss: m.Loss,
		})
	}
	inOrder(out)
	return out
}

// inOrder puts losses of the quorum, which are written down late, where they belong.
func inOrder(moves []api.Move) {
	for i, m := range moves {
		for k := i; m.Loss && k > 0 && moves[k-1].At.After(m.At); k-- {
			moves[k-1], moves[k] = moves[k], moves[k-1]
		}
	}
}

func (d *Daemon) vips(ctx context.Context) []api.VIP {
	s := d.node.State()
	owner := ""
	if countAddresses(s.Instances) > 0 {
		owner = d.sight(ctx).owner
	}
	var out []api.VIP
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			out = append(out, api.VIP{Prefix: a.Prefix, Instance: in.Name, Excluded: a.Excluded, Dev: a.Dev, Owner: owner})
		}
	}
	return out
}

// errMoved: the cluster's configuration is another one than the file was judged by.
var errMoved = state.Refuse(state.CodeMoved, "try again", "the cluster's configuration has just changed")
