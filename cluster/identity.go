package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// holdersEvery is how often members tell one another what they know of who holds
	// their identities when nothing is new.
	holdersEvery = 10 * time.Second
	// probeTries is how often, and probeEvery how quickly after one another, the
	// addresses of a node are tried at which another process of it may answer.
	probeTries = 5
	probeEvery = 500 * time.Millisecond
)

// HoldersNote is what members tell one another of who holds their identities.
type HoldersNote struct {
	Identities map[string]identity.IdentityNote `json:"identities,omitempty"` // by node ID
}

// openIdentity begins to watch who holds the members' identities, this node's own among
// them. It is called when the log is open and before the port answers.
func (n *Node) openIdentity(creds *pki.Credentials, claim uint64) {
	run := identity.Run{Boot: identity.NewBoot(), Claim: claim, Start: n.group.Position()}
	run.Start.Term = max(run.Start.Term, n.votes.MayHaveVotedIn())
	n.holders = identity.New(n.opts.Identity.NodeID, run, boottime.Now, func() { group.Signal(n.noticed); group.Signal(n.identities) })
	for id, p := range n.persisted.cache.Past {
		if n.member(id) {
			n.holders.Remember(id, p)
		}
	}
	creds.SetRun(run.Text())
	n.port.Meet = n.meet
	n.group.Watch(n.holders)
	n.diverged = n.group.States()
	n.diverged.Self = n.opts.Identity.NodeID
}

// member tells whether an identity is one that is watched. A node that has just started
// does not know its state yet, and whoever has a certificate may be one.
func (n *Node) member(id string) bool {
	s := n.State()
	_, ok := s.Nodes[id]
	return ok || id == n.opts.Identity.NodeID || !s.Founded()
}

// meet notes with whom a handshake was completed, and refuses Raft to a process that
// may not speak for its node.
func (n *Node) meet(proto, nodeID, run string, begun time.Duration, address string) error {
	r, ok := identity.ParseRun(run)
	if !ok || !n.member(nodeID) {
		return nil
	}
	n.cut(nodeID, n.holders.Met(nodeID, r, begun, address))
	if f := n.holders.Barred(nodeID, r.Boot); f != nil && proto != pki.ProtoAPI {
		return fmt.Errorf("node %s does not take part: %s", nodeID, f.Text)
	}
	return nil
}

// cut closes the connections with some runs of a node: who is alive makes new ones, and
// that proves it.
func (n *Node) cut(nodeID string, boots []string) {
	if len(boots) == 0 {
		return
	}
	n.port.CutOffRuns(nodeID, func(run string) bool {
		r, ok := identity.ParseRun(run)
		return ok && slices.Contains(boots, r.Boot)
	})
}

// keepIdentities acts on what is found out about who holds which identity, and tells
// the other members.
func (n *Node) keepIdentities(ctx context.Context) {
	ticks := tick.New(holdersEvery)
	defer ticks.Stop()
	said := make(map[identity.Finding]bool)
	tries := 0
	for {
		if err := n.opts.DataDir.NoteMachine(n.opts.Machine()); err != nil {
			n.log.Debug("cannot note this machine's interfaces", "error", err)
		}
		n.actOnFindings(said)
		n.meanwhile(said, func() { n.exchange(ctx) })
		var again <-chan time.Time
		if tries > 0 || n.backSince > 0 && !n.voided {
			tries = max(tries-1, 0)
			again = time.After(probeEvery)
		}
		select {
		case <-n.identities:
			tries = probeTries
		case <-again:
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// meanwhile acts on what is found out while something else waits for members, of which
// one may be silent.
func (n *Node) meanwhile(said map[identity.Finding]bool, wait func()) {
	ended := make(chan struct{})
	go func() { defer close(ended); wait() }()
	for {
		select {
		case <-n.noticed:
			n.actOnFindings(said)
		case <-ended:
			return
		}
	}
}

// actOnFindings keeps this node from taking part if it may not, and others away that
// may not.
func (n *Node) actOnFindings(said map[identity.Finding]bool) {
	self := n.opts.Identity.NodeID
	findings, back := n.Findings(), false
	for _, f := range findings {
		if f.Kind != identity.FindingDiverged {
			if f.Node == self {
				for _, g := range n.all() {
					g.Bar(f.Text)
				}
			} else {
				n.port.CutOffRuns(f.Node, func(run string) bool {
					r, ok := identity.ParseRun(run)
					return ok && n.holders.Barred(f.Node, r.Boot) != nil
				})
			}
		}
		if !said[f] {
			said[f] = true
			n.log.Error("identity: "+f.Text, "member", n.nameOf(f.Node), "id", f.Node, "kind", f.Kind, "hint", f.Hint)
		}
		if f.Node == self && f.Kind == identity.FindingBack {
			back = true
			n.voidIfBack(f)
		}
	}
	if !back {
		n.backSince = 0
	}
	if len(findings) > 0 || len(said) > 0 {
		n.changed.Notify()
	}
}

// backFor is how long a node has to be behind what it had acknowledged before its data
// dir is given up. Of two holders one may look like that until the other has spoken.
const backFor = 2 * time.Second

// voidIfBack gives the data dir up for good when it has been found behind for a while.
func (n *Node) voidIfBack(f identity.Finding) {
	now := boottime.Now()
	if n.backSince == 0 {
		n.backSince = now
	}
	if now-n.backSince < backFor || n.voided {
		return
	}
	if err := n.opts.DataDir.MarkVoid(f); err != nil {
		n.log.Error("cannot write the data dir", "error", err)
		return
	}
	n.voided = true
}

func (n *Node) nameOf(id string) string {
	if r, ok := n.State().Nodes[id]; ok {
		return r.Name
	}
	return id
}

// Findings returns what is wrong with which node as only its peers can see it, this
// node's own first.
func (n *Node) Findings() []identity.Finding {
	all := append(n.holders.Findings(), n.diverged.Findings()...)
	slices.SortStableFunc(all, func(a, b identity.Finding) int {
		switch self := n.opts.Identity.NodeID; {
		case a.Node == self && b.Node != self:
			return -1
		case b.Node == self && a.Node != self:
			return 1
		}
		return 0
	})
	return all
}

// Barred says why this node may neither vote nor own, or is nil.
func (n *Node) Barred() *identity.Finding {
	return n.holders.Barred(n.opts.Identity.NodeID, n.holders.Run.Boot)
}

// exchange tells all members what is known and takes over what they know, each over a
// new connection: that proves to both who they are now. A node's older addresses are
// asked as well while another process of it may be there.
func (n *Node) exchange(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ask := make(map[string]bool)
	for _, address := range n.knownAddresses() {
		ask[address] = true
	}
	for _, addresses := range n.holders.Unsettled() {
		for _, a := range addresses {
			ask[a] = true
		}
	}
	var calls sync.WaitGroup
	for address := range ask {
		calls.Go(func() {
			caller := port.NewClient(func(ctx context.Context, proto, address string) (net.Conn, error) {
				// Whoever is there: it may be the wrong one.
				return n.port.DialNode(ctx, proto, address, "")
			})
			defer caller.Close()
			var got HoldersNote
			if err := caller.Call(ctx, address, pathHolders, HoldersNote{n.holders.Notes()}, &got); err != nil {
				n.log.Debug("cannot compare identities", "address", address, "error", err)
				return
			}
			n.learn(got)
		})
	}
	calls.Wait()
}

func (n *Node) learn(got HoldersNote) {
	for id, boots := range n.holders.Learn(got.Identities, n.member) {
		n.cut(id, boots)
	}
}

func (n *Node) handleHolders(ctx context.Context, in HoldersNote) (any, error) {
	if !n.member(port.PeerFromContext(ctx)) {
		return nil, state.Refuse(state.CodeNotMember, "", "this node is not a member")
	}
	n.learn(in)
	return HoldersNote{n.holders.Notes()}, nil
}

// believed refuses what a process says that may not speak for its node.
func (n *Node) believed(ctx context.Context) error {
	id := port.PeerFromContext(ctx)
	if f := n.holders.Barred(id, port.BootFromContext(ctx)); f != nil {
		return state.Refuse(state.CodeIdentity, f.Hint, "node %s does not take part: %s", n.nameOf(id), f.Text)
	}
	return nil
}

// speakerFrom returns whose request of the node API it is.
func speakerFrom(ctx context.Context) group.Speaker {
	return group.Speaker{ID: port.PeerFromContext(ctx), Boot: port.BootFromContext(ctx)}
}

// notBelieved is called with the answer of a member; a refusal for this node's identity
// is a reason to find out.
func (n *Node) notBelieved(err error) {
	var r *state.Refusal
	if errors.As(err, &r) && r.Code == state.CodeIdentity {
		group.Signal(n.identities)
	}
}
