package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/tick"
)

// An ownership group beside the default one, as it runs on this node.
type ownership struct {
	record state.GroupRecord
	group  *group.Group
	// stop ends it, and ended is closed when it has; both are nil before the node runs.
	stop  context.CancelFunc
	ended chan struct{}
}

// Group returns a group that runs here, by its ID, or nil.
func (n *Node) Group(id string) *group.Group {
	if id == state.DefaultGroup {
		return n.group
	}
	n.groupsMu.Lock()
	defer n.groupsMu.Unlock()
	if o := n.groups[id]; o != nil {
		return o.group
	}
	return nil
}

// GroupName is what operators call a group that runs here.
func (n *Node) GroupName(id string) string {
	n.groupsMu.Lock()
	defer n.groupsMu.Unlock()
	if o := n.groups[id]; o != nil {
		return o.record.Name
	}
	return id
}

// Groups returns the IDs of the groups that run here: the default one, then the others in
// the order in which they were made.
func (n *Node) Groups() []string {
	n.groupsMu.Lock()
	defer n.groupsMu.Unlock()
	ids := slices.SortedFunc(maps.Keys(n.groups), func(a, b string) int {
		return compareRecords(n.groups[a].record, n.groups[b].record)
	})
	return append([]string{state.DefaultGroup}, ids...)
}

func compareRecords(a, b state.GroupRecord) int {
	if a.Created != b.Created {
		return int(int64(a.Created) - int64(b.Created))
	}
	if a.ID < b.ID {
		return -1
	}
	return 1
}

// all returns what runs here of every group, the default one first.
func (n *Node) all() []*group.Group {
	out := []*group.Group{n.group}
	n.groupsMu.Lock()
	defer n.groupsMu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(n.groups)) {
		out = append(out, n.groups[id].group)
	}
	return out
}

// setTiming applies the heartbeat setting of a version of the state to all groups. It
// tells whether no lease runs any more that is longer than the setting grants.
func (n *Node) setTiming(version uint64, h state.HeartbeatSetting) (shortened bool) {
	shortened = true
	for i, g := range n.all() {
		g.SetTiming(version, h)
		// The leader of the default group looks at that one itself (settle).
		shortened = shortened && (i == 0 || g.Shortened())
	}
	return shortened
}

// openGroups opens the groups that this node took part in, without running them. With what
// they had promised, they take part before the newest state is known.
func (n *Node) openGroups() (err error) {
	if n.groupStores, err = n.opts.DataDir.OpenGroups(n.opts.RaftLog); err != nil {
		return err
	}
	if err := n.groupStores.Forget(n.State().Version); err != nil {
		return errors.Join(err, n.groupStores.Close())
	}
	for _, r := range n.groupStores.Records() {
		if err := n.openOwnership(r); err != nil {
			for _, o := range n.ownerships() {
				err = errors.Join(err, o.group.Close())
			}
			return errors.Join(err, n.groupStores.Close())
		}
	}
	return nil
}

// openOwnership opens a group, and begins its log if this node is one of its first.
func (n *Node) openOwnership(r state.GroupRecord) error {
	disk, err := n.groupStores.Open(r)
	if err != nil {
		return err
	}
	disk.Votes.Failed = func(err error) { n.disk.Note("vote", err, false) }
	version, heartbeat := n.timing()
	network := group.NewNetwork(n.port.Layer(r.ID), n.opts.Advertise, heartbeat.Promise(), n.log, n.opts.RaftLog)
	logs, err := raft.NewLogCache(64, &store.WatchedStore{LogStore: disk.Log, Disk: n.disk})
	if err != nil {
		network.Close()
		return fmt.Errorf("open log of group %s: %w", r.Name, err)
	}
	parts := group.Options{
		Name: r.ID, Self: n.opts.Identity.NodeID, Log: n.log.With("ownership", r.Name), Now: boottime.Now, Heartbeat: heartbeat, Version: version,
		First: state.NewGroup(r), Members: n.listed,
		Sink: n.opts.Sink(r.ID), Lateness: n.opts.Lateness, Inner: network, Logs: logs, Stable: disk.Votes, Snapshots: disk.Snapshots,
		Peers: memberCalls{n.client}, Changed: group.NewBroadcastTo(n.reconcileSoon), RaftLog: n.opts.RaftLog,
		Order: n.order(r.ID), DiskFault: n.disk.Broken, TermSaved: disk.Votes.Saved, Reserve: disk.Votes.Reserve, Retimed: network.Retime, Beats: n.beats,
	}
	here := slices.ContainsFunc(r.Voters, func(v state.GroupVoter) bool { return v.ID == n.opts.Identity.NodeID })
	if here && !disk.Existing {
		if err := group.Begin(parts, r.Voters); err != nil {
			network.Close()
			return err
		}
	}
	g, err := group.Open(parts)
	if err != nil {
		network.Close()
		return err
	}
	n.groupsMu.Lock()
	n.groups[r.ID] = &ownership{record: r, group: g}
	n.groupsMu.Unlock()
	// What came to be known while it was being opened was told to all others.
	g.SetTiming(n.timing())
	if n.holders != nil {
		if f := n.Barred(); f != nil {
			g.Bar(f.Text)
		}
	}
	return nil
}

// timing is the newest heartbeat setting that this node knows, and the version of the
// state that it is from.
func (n *Node) timing() (uint64, state.HeartbeatSetting) {
	n.persistMu.Lock()
	cache := n.persisted.cache
	n.persistMu.Unlock()
	return newestTiming(n.State(), cache, n.opts.Heartbeat)
}

// newestTiming chooses between the state, which after a start is that of a snapshot for a
// while, and what was written down of it: a voter has promised by the newer one.
func newestTiming(s *state.State, c store.Cache, configured time.Duration) (uint64, state.HeartbeatSetting) {
	known := c.Heartbeat.Current != 0
	switch {
	case s.Founded() && (!known || s.Version >= c.Version):
		return s.Version, s.Heartbeat
	case known:
		return c.Version, c.Heartbeat
	}
	return 0, state.HeartbeatSetting{Configured: configured, Current: configured, Previous: configured}
}

// listed is the state that says whom leases of groups may rest on: nobody, after a start,
// until the log is applied as far as this node has written down that it was. It may have
// removed a member that promises, and counts, by a timing of long ago.
func (n *Node) listed() *state.State { return listedBy(n.State(), n.wasAt) }

func listedBy(s *state.State, wasAt uint64) *state.State {
	if s.Version < wasAt {
		return nobody
	}
	return s
}

var nobody = state.New()

// keepGroups runs the groups that the state names, until ctx ends.
func (n *Node) keepGroups(ctx context.Context) error {
	var running errgroup.Group
	defer func() {
		for _, o := range n.ownerships() {
			if o.stop != nil {
				o.stop()
			}
		}
		running.Wait()
	}()
	ticks := tick.New(membershipInterval)
	defer ticks.Stop()
	for {
		changed := n.Changed()
		s := n.State()
		fault := ""
		for _, id := range slices.Sorted(maps.Keys(s.Groups)) {
			if n.Group(id) != nil {
				continue
			}
			switch err := n.openOwnership(s.Groups[id]); {
			case errors.Is(err, store.ErrGroupEnded): // this state is one of before
				continue
			case err != nil:
				fault = fmt.Sprintf("cannot take part in group %s: %s", s.Groups[id].Name, err)
				continue
			}
			n.log.Info("ownership group begins", "ownership", s.Groups[id].Name, "id", id)
			n.changed.Notify()
		}
		if old := n.groupFault.Swap(&fault); fault != "" && (old == nil || *old != fault) {
			n.log.Error(fault)
			n.changed.Notify()
		}
		for id, o := range n.ownerships() {
			_, wanted := s.Groups[id]
			switch {
			case !wanted && s.Version >= o.record.Created: // an older state knows nothing of it
				if o.stop != nil {
					o.stop()
					<-o.ended
				} else if err := o.group.Close(); err != nil {
					n.log.Debug("group that never ran", "ownership", o.record.Name, "error", err)
				}
				n.groupsMu.Lock()
				delete(n.groups, id)
				n.groupsMu.Unlock()
				if err := n.groupStores.Drop(id, s.Version); err != nil {
					n.log.Error("cannot remove what is left of a group", "ownership", o.record.Name, "error", err)
				}
				n.log.Info("ownership group has ended", "ownership", o.record.Name, "id", id)
				n.changed.Notify()
			case o.stop == nil:
				var bounded context.Context
				bounded, o.stop = context.WithCancel(ctx)
				o.ended = make(chan struct{})
				running.Go(func() error {
					defer close(o.ended)
					if err := o.group.Run(bounded); err != nil {
						n.log.Debug("group ended", "ownership", o.record.Name, "error", err)
					}
					return nil
				})
			}
		}
		select {
		case <-changed:
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) ownerships() map[string]*ownership {
	n.groupsMu.Lock()
	defer n.groupsMu.Unlock()
	return maps.Clone(n.groups)
}

// reconcileGroups brings the groups that this node leads in line with the state of the
// default group: their configuration, what they may own, and what they have let go.
func (n *Node) reconcileGroups(ctx context.Context) error {
	s := n.State()
	if !s.Founded() {
		return nil
	}
	reports := make(map[string]SeenReport)
	for _, r := range n.reports.all() {
		reports[r.NodeID] = r
	}
	var failures []error
	note := func(name string, err error) {
		if err != nil && !errors.Is(err, raft.ErrNotLeader) && !errors.Is(err, raft.ErrLeadershipLost) {
			failures = append(failures, fmt.Errorf("group %s: %w", name, err))
		}
	}
	for id, o := range n.ownerships() {
		if !o.group.Standing().Leading {
			continue
		}
		name := o.record.Name
		if _, wanted := s.Groups[id]; !wanted {
			continue
		}
		note(name, n.reconcileList(ctx, o.group, s))
		note(name, n.changeServers(o.group, s, reports))
		note(name, n.letGo(ctx, o.group, s, o.group.State().ListVersion))
	}
	if n.group.Standing().Leading {
		note(state.DefaultGroup, n.letGo(ctx, n.group, s, s.Version))
	}
	return errors.Join(failures...)
}

// reconcileList puts a newer list into a group's log, if it needs one.
func (n *Node) reconcileList(ctx context.Context, g *group.Group, s *state.State) error {
	has := g.State()
	if s.FeatureLevel() > has.FeatureLevel() {
		if err := g.Apply(ctx, state.Command{Raise: &state.RaiseCommand{Level: s.FeatureLevel()}}); err != nil {
			return fmt.Errorf("raise the feature level: %w", err)
		}
	}
	list := s.ListOf(g.Name())
	if !listDue(has, list, s.Version, s.Leaves(g.Name())) {
		return nil
	}
	if err := g.Apply(ctx, state.Command{At: time.Now(), List: &state.ListCommand{Version: s.Version, Instances: list}}); err != nil {
		return fmt.Errorf("update the list of addresses: %w", err)
	}
	return nil
}

// listDue tells whether a group whose log has a list needs another one, of a version.
// leaves is the version from which on it is to have let go of something, or 0.
func listDue(has *state.State, list []state.Instance, version, leaves uint64) bool {
	switch {
	case version <= has.ListVersion: // this node lags in the default group's log
		return false
	case has.ListVersion == 0, has.ListVersion < leaves:
		return true
	}
	return len(list) != len(has.Instances) || len(list) > 0 && !reflect.DeepEqual(list, has.Instances)
}

// doneUpTo is the version of the state up to which a group is done with what it gives
// away, once that is off this node, or 0. list is the version of the list in its log. What
// a list takes away that is newer than this node's state is not looked for here.
func doneUpTo(s *state.State, id string, list uint64) uint64 {
	version, leaves := min(list, s.Version), s.Leaves(id)
	if leaves == 0 || version < leaves {
		return 0
	}
	return version
}

// letGo tells the leader of the default group that a group which this node leads is done
// with what it is to give away: its log has a list without that, of a version, and nothing
// of it is on this node any more. Other nodes may still have it, but none with a lease: a
// leader of an older term had its lease before this one was elected, and a later leader
// has this list in its log (Raft thesis, 3.6.3).
func (n *Node) letGo(ctx context.Context, g *group.Group, s *state.State, list uint64) error {
	version := doneUpTo(s, g.Name(), list)
	if version == 0 {
		return nil
	}
	if n.opts.Released != nil && !n.opts.Released(g.Name(), version, s.LeavingAddresses(g.Name())) {
		return nil // at a later round
	}
	free := state.FreeCommand{Group: g.Name(), Version: version}
	if n.group.Standing().Leading {
		return notStale(n.Apply(ctx, state.Command{Free: &free}))
	}
	address := n.LeaderAddress()
	if address == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return notStale(n.client.Call(ctx, address, pathFree, Freed{FreeCommand: free, Term: g.Standing().Term}, nil))
}

// notStale leaves out refusals that say that it is done already.
func notStale(err error) error {
	var refused *state.Refusal
	if errors.As(err, &refused) && (refused.Code == state.CodeBadRequest || refused.Code == state.CodeNotFound || refused.Code == state.CodeNotLeader) {
		return nil
	}
	return err
}

// A Freed is a group's leader's word that the group is done with addresses.
type Freed struct {
	state.FreeCommand
	// Term is the term in which the sender leads the group.
	Term uint64 `json:"term"`
}

// handleFree is the default group's leader's side. What frees addresses for another group
// has to come from the leader that this node follows in that group.
func (n *Node) handleFree(ctx context.Context, f Freed) (any, error) {
	peer := port.PeerFromContext(ctx)
	if _, ok := n.State().Nodes[peer]; !ok {
		return nil, state.Refuse(state.CodeNotMember, "", "node %s is not a member", peer)
	}
	if err := n.believed(ctx); err != nil {
		return nil, err
	}
	g := n.Group(f.Group)
	if g == nil || f.Group == state.DefaultGroup {
		return nil, state.Refuse(state.CodeNotFound, "", "no group %.64q runs here", f.Group)
	}
	if !g.Speaks(f.Term, speakerFrom(ctx).Key()) {
		return nil, state.Refuse(state.CodeNotLeader, "", "this node does not follow node %s in term %d of group %s", peer, f.Term, f.Group)
	}
	return nil, n.Apply(ctx, state.Command{Free: &f.FreeCommand})
}

// changeServers makes the first change that a group's configuration needs and takes.
func (n *Node) changeServers(g *group.Group, s *state.State, reports map[string]SeenReport) error {
	changes := raftChanges(s, n.opts.Identity.NodeID, g.Configuration(), reports)
	return firstChange(changes, func(c raftChange) error { return n.changeRaft(g, c) })
}
