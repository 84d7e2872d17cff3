package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/internal/boottime"
)

const (
	// membershipInterval is how often the leader compares the members with
	// Raft's configuration when nothing tells it to.
	membershipInterval = time.Second
	// maxClockOffset is how far a newcomer's wall clock may be off. Ownership
	// does not depend on wall clocks; tokens, certificates and the history do.
	maxClockOffset = 5 * time.Minute
	// maxReason bounds the reason of a hand-over in bytes.
	maxReason = 1024
	// reportFresh is the age up to which a report says that a node is alive.
	reportFresh = 3 * reportInterval
)

func (n *Node) reconcileSoon() {
	select {
	case n.members <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// keepMembership makes Raft's configuration follow the list of nodes while this
// node leads: add, move, promote, remove, one change at a time.
func (n *Node) keepMembership(ctx context.Context) {
	tick := time.NewTicker(membershipInterval)
	defer tick.Stop()
	var settle settling
	for {
		changed := n.Changed()
		if n.group.Standing().Leading {
			if err := n.reconcile(ctx, &settle); err != nil && ctx.Err() == nil {
				n.log.Warn("cannot bring the membership up to date", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-n.members:
		case <-changed:
			// Bursts of changes are one change: several follow one another closely.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// warmEvery is how often a node uses its connections to each member.
const warmEvery = 30 * time.Second

// keepWarm keeps a connection of both kinds to every member open: neither a
// hand-over nor an election is to begin with a handshake.
func (n *Node) keepWarm(ctx context.Context) {
	tick := time.NewTicker(membershipInterval)
	defer tick.Stop()
	last := make(map[string]time.Time)
	for {
		members := n.State().Nodes
		maps.DeleteFunc(last, func(id string, _ time.Time) bool { _, ok := members[id]; return !ok })
		for id, node := range members {
			if id == n.opts.Identity.NodeID || time.Since(last[id]) < warmEvery {
				continue
			}
			// A member that does not answer is asked again at the next round.
			if _, err := n.hello(ctx, node.Address); err != nil {
				continue
			}
			if err := n.group.trans.warm(raft.ServerID(id), raft.ServerAddress(node.Address)); err == nil {
				last[id] = time.Now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// settling remembers from which version on every voter must have the state
// before a changed heartbeat timeout is the only one.
type settling struct {
	heartbeat HeartbeatSetting
	version   uint64
}

func (n *Node) reconcile(ctx context.Context, settle *settling) error {
	s := n.State()
	n.ledFor() // begins to count
	if !s.Founded() {
		return n.found(ctx)
	}
	reports := make(map[string]SeenReport)
	n.reports.keepOnly(s.Nodes)
	for _, r := range n.reports.all() {
		reports[r.NodeID] = r
	}
	// What one node stands in the way of does not keep the others from what they need.
	var failures []error
	for id, node := range s.Nodes {
		if r, ok := reports[id]; ok && r.Age < reportFresh && r.Address != "" && r.Address != node.Address {
			if other, taken := occupant(s, reports, id, r.Address); taken {
				failures = append(failures, fmt.Errorf("%s says that it is at %s, where %s is", node.Name, r.Address, other))
				continue
			}
			n.log.Info("node has a new address", "member", node.Name, "from", node.Address, "to", r.Address)
			node.Address = r.Address
			if err := n.Apply(ctx, Command{PutNode: &node}); err != nil {
				failures = append(failures, fmt.Errorf("update address of %s: %w", node.Name, err))
			}
		}
	}
	for id, node := range n.State().Nodes {
		if claim := n.holders.claim(id); claim > node.Claim && s.FeatureLevel() >= 2 {
			n.log.Warn("node was moved to another machine", "member", node.Name)
			node.Claim = claim
			if err := n.Apply(ctx, Command{PutNode: &node}); err != nil {
				failures = append(failures, fmt.Errorf("note the move of %s: %w", node.Name, err))
			}
		}
	}
	return errors.Join(append(failures,
		n.reconcileRaft(n.State(), reports),
		n.raise(ctx, n.State(), reports),
		n.settle(ctx, n.State(), reports, settle))...)
}

// occupant tells which other member is at an address, by its own report if that is
// fresh: a node that has just left it is not.
func occupant(s *State, reports map[string]SeenReport, id, address string) (name string, taken bool) {
	for _, other := range s.SortedNodes() {
		at := other.Address
		if r, ok := reports[other.ID]; ok && r.Age < reportFresh && r.Address != "" {
			at = r.Address
		}
		if other.ID != id && at == address {
			return other.Name, true
		}
	}
	return "", false
}

// raise brings the cluster to the feature level that all members understand.
func (n *Node) raise(ctx context.Context, s *State, reports map[string]SeenReport) error {
	level, ids := commonLevel(s, n.opts.Identity.NodeID, reports)
	if level <= s.FeatureLevel() {
		return nil
	}
	slices.Sort(ids)
	n.log.Info("raising the feature level: every member understands it", "from", s.FeatureLevel(), "to", level)
	return n.Apply(ctx, Command{Raise: &RaiseCommand{Level: level, Nodes: ids}})
}

// olderRefusal keeps a node out that would not understand the state.
func olderRefusal(name string, level, needed int) *Refusal {
	return refuse(CodeOlderMember, "install the version of raftvip there that the members run",
		"%s runs an older raftvip than the cluster: it knows feature level %d, and %d is needed", name, max(level, 1), needed)
}

// found puts the first state into the log of a cluster that has just elected its
// first leader.
func (n *Node) found(ctx context.Context) error {
	id := n.opts.Identity
	if id.Origin == OriginJoin {
		return errors.New("this node joined a cluster whose log is empty")
	}
	seed, err := n.opts.DataDir.Seed()
	if err != nil {
		return err
	}
	instances := n.opts.Content()
	for _, in := range seed.Instances {
		if !slices.ContainsFunc(instances, func(o Instance) bool { return o.Name == in.Name }) {
			instances = append(instances, in)
		}
	}
	err = n.Apply(ctx, Command{Found: &Founding{
		ClusterID: id.ClusterID,
		Node:      NodeRecord{ID: id.NodeID, Name: id.Name, Address: n.opts.Advertise, Witness: id.Witness},
		Heartbeat: n.opts.Heartbeat, Instances: instances, Tokens: seed.Tokens, Level: FeatureLevel,
	}})
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	n.log.Info("cluster founded", "cluster", id.ClusterID)
	return n.opts.DataDir.DropSeed()
}

// reconcileRaft makes the first change that Raft's configuration needs and takes, if
// any; the next one follows at the next round. What it does not take is told.
func (n *Node) reconcileRaft(s *State, reports map[string]SeenReport) error {
	return firstChange(raftChanges(s, n.opts.Identity.NodeID, n.group.raft.GetConfiguration().Configuration(), reports), n.changeRaft)
}

// A raftChange is one change of Raft's configuration.
type raftChange struct {
	what   string // for the log
	name   string
	server raft.Server
	remove bool
}

// raftChanges returns what Raft's configuration lacks, most urgent first.
func raftChanges(s *State, self string, c raft.Configuration, reports map[string]SeenReport) []raftChange {
	var out []raftChange
	servers := make(map[string]raft.Server)
	for _, server := range c.Servers {
		servers[string(server.ID)] = server
		// First those that are gone: Raft knows no two servers at one address, and the
		// new node of a host that lost its data dir is where the old one was.
		if _, ok := s.Nodes[string(server.ID)]; !ok && string(server.ID) != self {
			out = append(out, raftChange{what: "removing node", name: string(server.ID), server: server, remove: true})
		}
	}
	for _, node := range s.SortedNodes() {
		want := raft.Server{ID: raft.ServerID(node.ID), Address: raft.ServerAddress(node.Address), Suffrage: raft.Nonvoter}
		server, member := servers[node.ID]
		report, reported := reports[node.ID]
		fresh := reported && report.Age < reportFresh
		switch {
		case !member && fresh:
			out = append(out, raftChange{what: "adding node", name: node.Name, server: want})
		case !member:
			// It was admitted but does not run yet.
		case server.Address != want.Address:
			want.Suffrage = server.Suffrage
			out = append(out, raftChange{what: "node is at another address", name: node.Name, server: want})
		case server.Suffrage != raft.Voter && fresh && report.Applied >= s.Version:
			// It has the whole state and with it the length of a promise, which the
			// lease of whoever leads depends on from now on.
			want.Suffrage = raft.Voter
			out = append(out, raftChange{what: "node has caught up and votes from now on", name: node.Name, server: want})
		}
	}
	return out
}

// firstChange makes the first change that can be made.
func firstChange(changes []raftChange, make func(raftChange) error) error {
	var failures []error
	for _, c := range changes {
		err := make(c)
		if err == nil {
			break
		}
		failures = append(failures, fmt.Errorf("%s %s (%s): %w", c.what, c.name, c.server.Address, err))
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
			break
		}
	}
	return errors.Join(failures...)
}

func (n *Node) changeRaft(c raftChange) error {
	const wait = 2 * time.Second
	r := n.group.raft
	var err error
	switch {
	case c.remove:
		err = r.RemoveServer(c.server.ID, 0, wait).Error()
	case c.server.Suffrage == raft.Voter:
		err = r.AddVoter(c.server.ID, c.server.Address, 0, wait).Error()
	default:
		err = r.AddNonvoter(c.server.ID, c.server.Address, 0, wait).Error()
	}
	if err == nil {
		n.log.Info(c.what, "member", c.name, "address", c.server.Address)
	}
	return err
}

// settle keeps the heartbeat timeout at what the operator asked for, or at what the
// slowest guard of a node needs, and ends a change when every voter has it.
func (n *Node) settle(ctx context.Context, s *State, reports map[string]SeenReport, settle *settling) error {
	if s.Heartbeat.Current == s.Heartbeat.Previous {
		want := s.Heartbeat.Configured
		for id := range s.Nodes {
			// A node that has not reported yet keeps what was granted before.
			if r, ok := reports[id]; ok {
				want = max(want, min(r.MinHeartbeat, MaxHeartbeat))
			} else {
				want = max(want, s.Heartbeat.Current)
			}
		}
		if want == s.Heartbeat.Current {
			return nil
		}
		n.log.Info("changing heartbeat_timeout", "from", s.Heartbeat.Current, "to", want, "configured", s.Heartbeat.Configured)
		return n.Apply(ctx, Command{Heartbeat: &want})
	}
	if settle.heartbeat != s.Heartbeat {
		*settle = settling{s.Heartbeat, s.Version}
	}
	// Raft's voters are asked as well as the nodes: one that was removed from the
	// list votes until Raft has removed it too, by the promise it knows.
	ids := n.group.voters()
	for id := range s.Nodes {
		ids = append(ids, id)
	}
	for _, id := range ids {
		if r, ok := reports[id]; !ok || r.Applied < settle.version {
			return nil
		}
	}
	n.group.setTiming(s.Version, s.Heartbeat)
	if !n.group.fence.shortened() {
		return nil // at a later round
	}
	return n.Apply(ctx, Command{Settle: &struct{}{}})
}

// handleHello answers whoever holds the cluster secret.
func (n *Node) handleHello(context.Context, struct{}) (any, error) {
	id := n.opts.Identity
	peers := slices.Clone(n.opts.Peers)
	slices.Sort(peers)
	return Hello{
		NodeID: id.NodeID, Name: id.Name, ClusterID: id.ClusterID,
		Founded: n.existing || n.State().Founded() || n.group.raft.LastIndex() > 0,
		Peers:   peers, LeaderAddress: n.LeaderAddress(), Clock: time.Now(),
	}, nil
}

// handleJoin admits a newcomer. Any member may be asked; it asks the leader, once it
// has seen that the newcomer is no stranger.
func (n *Node) handleJoin(ctx context.Context, req JoinRequest) (any, error) {
	trusted := PeerFromContext(ctx) != "" && req.TokenID == ""
	if err := checkJoin(req); err != nil {
		return nil, refuse(CodeBadRequest, "", "%s", err)
	}
	if !trusted {
		if err := n.checkToken(ctx, req); err != nil {
			return nil, err
		}
		// What is asked for from here on takes time, and whoever asks may.
		if conn := doorConn(ctx); conn != nil {
			conn.at.leave()
		}
	}
	if offset := time.Until(req.Clock); offset.Abs() > maxClockOffset {
		return nil, refuse(CodeClock, "set both clocks by NTP, then join again",
			"the clock of %s is %s %s that of %s", req.Name, offset.Abs().Round(time.Second), aheadOf(offset), n.opts.Identity.Name)
	}
	if !n.group.Standing().Leading {
		return n.forwardJoin(ctx, req)
	}
	s := n.State()
	if !s.Founded() {
		return nil, refuse(CodeNotReady, "try again in a moment", "the cluster is just being founded")
	}
	if ip, ok := addressIP(req.Address); ok {
		if _, a, ok := s.AddressOf(ip); ok {
			return nil, refuse(CodeAddressInUse, "name another one with --advertise",
				"%s cannot be reached at %s: that is a virtual address of this cluster", req.Name, a.Prefix.Addr())
		}
	}
	join := JoinCommand{
		Node:    NodeRecord{ID: req.NodeID, Name: req.Name, Address: req.Address, Witness: req.Witness},
		TokenID: req.TokenID, Trusted: trusted, Level: req.Level,
	}
	if old, ok := s.NodeByName(req.Name); ok && old.ID != req.NodeID && req.Replace {
		join.Replace = old.ID
		// What the log would refuse needs no waiting for.
		if _, err := s.apply(Command{At: time.Now(), Join: &join}, s.Version); err != nil {
			return nil, err
		}
		if err := n.lost(ctx, old); err != nil {
			return nil, err
		}
		n.log.Warn("replacing a lost node", "member", old.Name, "old", old.ID, "new", req.NodeID)
	}
	if err := n.Apply(ctx, Command{Join: &join}); err != nil {
		return nil, err
	}
	n.reconcileSoon()
	s = n.State()
	got := JoinAnswer{ClusterID: s.ClusterID, Heartbeat: s.Heartbeat, Nodes: s.SortedNodes()}
	if !trusted {
		got.Secret = n.opts.Secret.Text()
	}
	n.log.Info("node admitted", "member", req.Name, "address", req.Address, "token", req.TokenID)
	return got, nil
}

// checkJoin holds a newcomer's words to what its own command line is held to.
func checkJoin(req JoinRequest) error {
	if err := CheckName(req.Name); err != nil {
		return err
	}
	if err := checkOwnID(req.Name, req.NodeID); err != nil {
		return err
	}
	if err := CheckAddress(req.Address); err != nil {
		return fmt.Errorf("%w; name another one with --advertise", err)
	}
	if len(req.TokenID) > maxTokenID || len(req.Proof) > maxProof {
		return errors.New("the request has no token")
	}
	return nil
}

const (
	maxTokenID = 64
	maxProof   = 128
)

func aheadOf(offset time.Duration) string {
	if offset > 0 {
		return "ahead of"
	}
	return "behind"
}

// tokenLag is how long a follower waits for a token that it does not know: it may have
// been made at the leader a moment ago. Raft tells how far the log is committed each
// half second.
const tokenLag = 1500 * time.Millisecond

// checkToken proves the newcomer's token. Whether it is still good is decided in the
// log, by the leader's clock.
func (n *Node) checkToken(ctx context.Context, req JoinRequest) error {
	wait := time.NewTimer(tokenLag)
	defer wait.Stop()
	for {
		changed := n.Changed()
		t, ok := n.State().Tokens[req.TokenID]
		switch {
		case ok && proofMatches(req.Proof, t.Hash):
			return nil
		case ok || req.TokenID == "" || n.group.Standing().Leading && n.State().Founded():
			return wrongToken()
		case n.LeaderAddress() == "":
			return noLeaderToJoin()
		}
		select {
		case <-changed:
		case <-wait.C:
			if !n.State().Founded() {
				return refuse(CodeNotReady, "try again in a moment", "%s does not have the cluster's state yet", n.opts.Identity.Name)
			}
			return wrongToken()
		case <-ctx.Done():
			return wrongToken()
		}
	}
}

func wrongToken() *Refusal {
	return refuse(CodeWrongToken, `make a new one on a member with "raftvip token create"`,
		"this cluster does not know the token: it is used up, revoked or wrong")
}

func noLeaderToJoin() *Refusal {
	return refuse(CodeNoLeader, `see "raftvip status" on a member`, "the cluster has no leader now, so nobody can be admitted")
}

// ledFor is how long this node leads in its present term, or less; 0 if it does not.
func (n *Node) ledFor() time.Duration {
	standing := n.group.Standing()
	if !standing.Leading {
		return 0
	}
	n.ledMu.Lock()
	defer n.ledMu.Unlock()
	if n.ledTerm != standing.Term {
		n.ledTerm, n.ledSince = standing.Term, boottime.Now()
	}
	return boottime.Now() - n.ledSince
}

// lost makes sure that a member is gone whose place somebody else asks for. That
// nothing has been heard of it counts only after this leader has listened for a while:
// after a restart of all nothing has been heard of anybody.
func (n *Node) lost(ctx context.Context, old NodeRecord) error {
	alive := refuse(CodeNameTaken, "choose another name with --name",
		"the name %s is taken by a member at %s, which is alive", old.Name, old.Address)
	if old.ID == n.opts.Identity.NodeID {
		return alive
	}
	answers := make(chan bool, 1)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asking.Go(func() {
		h, err := n.hello(ctx, old.Address)
		answers <- err == nil && h.NodeID == old.ID
	})
	asked := false
	for {
		changed := n.Changed()
		for _, r := range n.reports.all() {
			if r.NodeID == old.ID && r.Age < reportFresh {
				return alive
			}
		}
		if ago, ok := n.group.Contact(old.ID); ok && ago < reportFresh {
			return alive
		}
		led := n.ledFor()
		switch {
		case led == 0:
			return refuse(CodeNotLeader, "try again", "the leader has just changed")
		case asked && led >= reportFresh:
			return nil
		}
		select {
		case yes := <-answers:
			if yes {
				return alive
			}
			asked = true
		case <-changed:
		case <-time.After(reportFresh / 10):
		case <-ctx.Done():
			return refuse(CodeNotReady, "try again in a moment", "it is not known yet whether %s is alive", old.Name)
		}
	}
}

// forwardJoin asks the leader on the newcomer's behalf.
func (n *Node) forwardJoin(ctx context.Context, req JoinRequest) (any, error) {
	address := n.LeaderAddress()
	if address == "" || address == n.opts.Advertise {
		return nil, noLeaderToJoin()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var got JoinAnswer
	if err := n.client.call(ctx, address, pathJoin, req, &got); err != nil {
		var r *Refusal
		if !errors.As(err, &r) {
			r = refuse(CodeNoLeader, "try again in a moment", "the leader at %s does not answer: %s", address, reason(err))
		}
		return nil, r
	}
	return got, nil
}

// spokenFor returns the group that a message of a hand-over is about, and refuses one
// whose sender is not the node that it speaks for, or does not lead by what this voter
// has heard itself: it would free a voter from the promise that it gave to the leader.
func (n *Node) spokenFor(ctx context.Context, r Release) (*Group, error) {
	if peer := PeerFromContext(ctx); peer != r.From {
		return nil, refuse(CodeBadRequest, "", "node %s spoke for node %s", peer, r.From)
	}
	g := n.Group(r.Group)
	if g == nil {
		return nil, refuse(CodeNotFound, "", "no group %s", r.Group)
	}
	if len(r.Reason) > maxReason || r.To != "" && !nodeID.MatchString(r.To) {
		return nil, refuse(CodeBadRequest, "", "a hand-over to %q with a reason of %d bytes; allowed are %d", clip(r.To), len(r.Reason), maxReason)
	}
	if err := n.believed(ctx); err != nil {
		return nil, err
	}
	if !g.fence.speaks(r.Term, speakerFrom(ctx).key()) {
		return nil, refuse(CodeNotLeader, "", "this voter does not follow node %s in term %d", r.From, r.Term)
	}
	return g, nil
}

func (n *Node) handlePrepare(ctx context.Context, r Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, g.prepare(r)
}

func (n *Node) handleRelease(ctx context.Context, r Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	g.released(r)
	return nil, nil
}

func (n *Node) handleRebind(ctx context.Context, r Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	if !g.rebound(r, speakerFrom(ctx).key()) {
		return nil, refuse(CodeNotLeader, "", "this voter has taken part in a later term, or cannot write this one down")
	}
	return nil, nil
}

// apiHandler answers members.
func (n *Node) apiHandler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, pathHello, n.handleHello)
	handle(mux, pathJoin, n.handleJoin)
	handle(mux, pathReport, n.handleReport)
	handle(mux, pathPrepare, n.handlePrepare)
	handle(mux, pathRelease, n.handleRelease)
	handle(mux, pathRebind, n.handleRebind)
	handle(mux, pathHolders, n.handleHolders)
	if n.opts.Handler != nil {
		mux.Handle("/", n.membersOnly(n.opts.Handler))
	}
	return n.tellRemoved(mux)
}

// tellRemoved answers nodes that were removed with just that.
func (n *Node) tellRemoved(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone, ok := n.State().Removed[PeerFromContext(r.Context())]; ok {
			answer(w, nil, removedRefusal(gone))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func removedRefusal(r RemovedNode) *Refusal {
	return refuse(CodeRemoved, "stop its daemon, clear its data dir, and join again with a new token",
		"node %s was removed from the cluster on %s", r.Name, r.At.UTC().Format(time.DateTime))
}

// membersOnly keeps nodes that are not members from the operator's API.
func (n *Node) membersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := n.State().Nodes[PeerFromContext(r.Context())]; !ok {
			answer(w, nil, refuse(CodeNotMember, "", "this node is not a member"))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// joinHandler answers newcomers, who have shown nothing yet.
func (n *Node) joinHandler() http.Handler {
	mux := http.NewServeMux()
	handleWithin(mux, pathJoin, maxJoinBody, n.handleNewcomer)
	return mux
}

// handleNewcomer is handleJoin for somebody who has shown nothing yet: those that
// fail are counted, told once in a while, and slowed down.
func (n *Node) handleNewcomer(ctx context.Context, req JoinRequest) (any, error) {
	now, source, from := time.Now(), netip.Prefix{}, ""
	if conn := doorConn(ctx); conn != nil {
		source, from = sourceOf(addrOf(conn.RemoteAddr())), hostOf(conn.RemoteAddr())
	}
	if !n.guesses.allows(source, now) {
		return nil, refuse(CodeTooMany, "wait a minute, then try again with the right token", "too many joins have failed")
	}
	out, err := n.handleJoin(ctx, req)
	var r *Refusal
	if errors.As(err, &r) && (r.Code == CodeWrongToken || r.Code == CodeExpiredToken || r.Code == CodeBadRequest) {
		n.guesses.spend(source, now)
		if n.port.refusals.news("join "+source.String(), now) {
			n.log.Warn("refused a join; more from there are not told for a minute", "peer", from, "name", shorten(req.Name), "token", shorten(req.TokenID), "reason", r.Message)
		}
	}
	return out, err
}

// shorten bounds what is logged of a stranger's words.
func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
