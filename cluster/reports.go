package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// reportInterval is how often a node reports when nothing changes.
	reportInterval = time.Second
	// callTimeout bounds one call of the node API.
	callTimeout = 2 * time.Second
)

// A reportTable holds everyone's newest report.
type reportTable struct {
	now func() time.Duration

	mu   sync.Mutex
	own  Report
	seen map[string]seenAt
}

type seenAt struct {
	report Report
	at     time.Duration
	offset time.Duration
}

func newReportTable(now func() time.Duration) *reportTable {
	return &reportTable{now: now, seen: make(map[string]seenAt)}
}

// put stores a report that was made age ago; it tells whether anything but the
// time in it is new.
func (t *reportTable) put(r Report, age, offset time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, ok := t.seen[r.NodeID]
	at := t.now() - age
	if ok && old.at > at {
		return false
	}
	t.seen[r.NodeID] = seenAt{r, at, offset}
	return !ok || !bytes.Equal(old.report.Hint, r.Hint) || old.report.Address != r.Address
}

// all returns the reports, by node ID.
func (t *reportTable) all() []SeenReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	out := make([]SeenReport, 0, len(t.seen))
	for _, s := range t.seen {
		out = append(out, SeenReport{Report: s.report, Age: now - s.at, ClockOffset: s.offset})
	}
	slices.SortFunc(out, func(a, b SeenReport) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return out
}

// KeepOnly forgets nodes that are no members any more.
func (t *reportTable) keepOnly(nodes map[string]state.NodeRecord) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.seen, func(id string, _ seenAt) bool { _, ok := nodes[id]; return !ok })
}

// SetHint replaces what this node says of itself and reports it at once.
func (n *Node) SetHint(hint json.RawMessage) {
	n.reports.mu.Lock()
	same := bytes.Equal(n.reports.own.Hint, hint)
	n.reports.own.Hint = hint
	n.reports.mu.Unlock()
	if !same {
		n.wake()
	}
}

// Reports returns everyone's newest report, as the leader gave it.
func (n *Node) Reports() []SeenReport { return n.reports.all() }

func (n *Node) wake() {
	select {
	case n.kick <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// keepReporting sends this node's report to the leader.
func (n *Node) keepReporting(ctx context.Context) {
	ticks := tick.New(reportInterval)
	defer ticks.Stop()
	known := ""
	for {
		changed := n.Changed()
		n.report(ctx)
		if id, _ := n.group.Leader(); id != known {
			known = id
		}
		for waiting := true; waiting; {
			select {
			case <-ticks.C:
				waiting = false
			case <-n.kick:
				waiting = false
			case <-changed:
				// Most changes are not ours to report; a new leader is.
				changed = n.Changed()
				id, _ := n.group.Leader()
				waiting = id == known
			case <-ctx.Done():
				return
			}
		}
	}
}

func (n *Node) report(ctx context.Context) {
	applied, err := n.persist()
	if err != nil {
		n.log.Error("cannot write the data dir", "error", err)
	}
	n.reports.mu.Lock()
	n.reports.own.NodeID = n.opts.Identity.NodeID
	n.reports.own.Address = n.opts.Advertise
	n.reports.own.Applied = applied
	n.reports.own.MinHeartbeat = n.opts.MinHeartbeat
	n.reports.own.Level = state.FeatureLevel
	n.reports.own.Clock = time.Now()
	n.reports.own.Run = n.holders.Run
	n.reports.own.At = n.group.Position()
	n.reports.own.StateIndex, n.reports.own.StateHash = n.diverged.Newest()
	own := n.reports.own
	n.reports.mu.Unlock()
	if n.reports.put(own, 0, 0) {
		n.changed.Notify()
	}
	if n.group.Standing().Leading {
		n.setPhase("")
		n.reconcileSoon()
		return
	}
	address := n.LeaderAddress()
	if address == "" {
		address = n.findLeader(ctx)
	}
	if address == "" || address == n.opts.Advertise {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var got ReportAnswer
	if err := n.client.Call(ctx, address, pathReport, own, &got); err != nil {
		n.log.Debug("cannot report to the leader", "leader", address, "error", err)
		n.notBelieved(err)
		return
	}
	n.setPhase("")
	news := false
	for _, r := range got.Reports {
		if r.NodeID != n.opts.Identity.NodeID {
			news = n.reports.put(r.Report, r.Age, r.ClockOffset) || news
			news = n.reported(r.Report) || news
		}
	}
	if news {
		n.changed.Notify()
	}
}

// findLeader asks the nodes known from earlier who leads. It is how a node that
// is in nobody's Raft configuration, or whose address has changed, is heard.
func (n *Node) findLeader(ctx context.Context) string {
	var silent []string
	for _, address := range n.knownAddresses() {
		h, err := n.hello(ctx, address)
		var refused *state.Refusal
		switch {
		case errors.As(err, &refused) && refused.Code == state.CodeRemoved:
			n.setPhase("%s; %s", refused.Message, refused.Hint)
			return ""
		case err != nil:
			silent = append(silent, fmt.Sprintf("%s (%s)", address, reason(err)))
		case h.ClusterID == n.opts.Identity.ClusterID && h.LeaderAddress != "":
			return h.LeaderAddress
		default:
			silent = append(silent, fmt.Sprintf("%s (knows no leader)", address))
		}
	}
	// A voter without a leader is a matter of quorum; a newcomer has nobody yet.
	if _, member := n.Suffrages()[n.opts.Identity.NodeID]; !member && n.opts.Identity.Origin != store.OriginPeers && len(silent) > 0 {
		n.setPhase("looking for the cluster: %s", strings.Join(silent, ", "))
	}
	return ""
}

// knownAddresses returns where other nodes may be: from the state, from the last
// run, from the file.
func (n *Node) knownAddresses() []string {
	var all []string
	for _, node := range n.State().SortedNodes() {
		all = append(all, node.Address)
	}
	n.persistMu.Lock()
	all = append(all, n.persisted.cache.Addresses...)
	n.persistMu.Unlock()
	all = append(all, n.opts.Peers...)
	var out []string
	for _, a := range all {
		if a != n.opts.Advertise && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// hello asks a node who it is.
func (n *Node) hello(ctx context.Context, address string) (Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var h Hello
	err := n.client.Call(ctx, address, pathHello, struct{}{}, &h)
	return h, err
}

// reported takes over what a report says of its node's log and state.
func (n *Node) reported(r Report) (news bool) {
	if r.Run.Boot != "" {
		n.holders.Acknowledged(r.NodeID, r.Run.Boot, identity.Position{Index: r.Applied})
	}
	news = n.diverged.Compare(r.NodeID, n.nameOf(r.NodeID), r.StateIndex, r.StateHash)
	if news {
		group.Signal(n.identities)
	}
	return news
}

// handleReport is the leader's side of a report.
func (n *Node) handleReport(ctx context.Context, r Report) (any, error) {
	if peer := port.PeerFromContext(ctx); peer != r.NodeID {
		return nil, state.Refuse(state.CodeBadRequest, "", "node %s reported for node %s", peer, r.NodeID)
	}
	if !n.group.Standing().Leading {
		return nil, state.Refuse(state.CodeNotLeader, "", "this node does not lead")
	}
	s := n.State()
	if _, ok := s.Nodes[r.NodeID]; !ok {
		return nil, state.Refuse(state.CodeNotMember, "", "node %s is not a member", r.NodeID)
	}
	if err := n.believed(ctx); err != nil {
		return nil, err
	}
	if err := checkReport(r); err != nil {
		return nil, state.Refuse(state.CodeBadRequest, "", "report of node %s: %s", n.nameOf(r.NodeID), err)
	}
	n.reported(r)
	offset := time.Duration(0)
	if !r.Clock.IsZero() {
		offset = time.Until(r.Clock)
	}
	if n.reports.put(r, 0, offset) {
		n.changed.Notify()
	}
	n.reconcileSoon()
	return ReportAnswer{Reports: boundHints(n.reports.all())}, nil
}

const (
	// maxHint bounds one node's hint in bytes, maxHints those of all together: the
	// leader's answer is to stay far below MaxBody.
	maxHint  = 256 << 10
	maxHints = 1 << 20
)

// checkReport tells whether a report can be what a node says of itself.
func checkReport(r Report) error {
	switch {
	case len(r.Hint) > maxHint:
		return fmt.Errorf("a hint of %d bytes, allowed are %d", len(r.Hint), maxHint)
	case r.MinHeartbeat < 0 || r.MinHeartbeat > state.MaxHeartbeat:
		return fmt.Errorf("min_heartbeat %s: must be 0 to %s", r.MinHeartbeat, state.MaxHeartbeat)
	case r.Applied > identity.MaxTerm || r.StateIndex > identity.MaxTerm || !r.At.Sane() || !r.Run.Start.Sane() || r.Run.Claim > identity.MaxTerm:
		return errors.New("an entry that no log has")
	case len(r.StateHash) > 64 || len(r.Run.Boot) > 64:
		return errors.New("a hash that is too long")
	case r.Address != "":
		return state.CheckAddress(r.Address)
	}
	return nil
}

// boundHints leaves out the largest hints where all together are too long.
func boundHints(reports []SeenReport) []SeenReport {
	for {
		sum, largest := 0, -1
		for i, r := range reports {
			sum += len(r.Hint)
			if largest < 0 || len(r.Hint) > len(reports[largest].Hint) {
				largest = i
			}
		}
		if sum <= maxHints {
			return reports
		}
		reports[largest].Hint = nil
	}
}
