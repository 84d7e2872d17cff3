package cluster

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
)

// handleHello answers whoever holds the cluster secret.
func (n *Node) handleHello(context.Context, struct{}) (any, error) {
	id := n.opts.Identity
	peers := slices.Clone(n.opts.Peers)
	slices.Sort(peers)
	return Hello{
		NodeID: id.NodeID, Name: id.Name, ClusterID: id.ClusterID,
		Founded: n.existing || n.State().Founded() || n.group.Position().Index > 0,
		Peers:   peers, LeaderAddress: n.LeaderAddress(), Clock: time.Now(),
	}, nil
}

// spokenFor returns the group that a message of a hand-over is about, and refuses one
// whose sender is not the node that it speaks for, or does not lead by what this voter
// has heard itself: it would free a voter from the promise that it gave to the leader.
func (n *Node) spokenFor(ctx context.Context, r group.Release) (*group.Group, error) {
	if peer := port.PeerFromContext(ctx); peer != r.From {
		return nil, state.Refuse(state.CodeBadRequest, "", "node %s spoke for node %s", peer, r.From)
	}
	g := n.Group(r.Group)
	if g == nil {
		return nil, state.Refuse(state.CodeNotFound, "", "no group %s", r.Group)
	}
	if len(r.Reason) > maxReason || r.To != "" && !state.NodeID.MatchString(r.To) {
		return nil, state.Refuse(state.CodeBadRequest, "", "a hand-over to %.64q with a reason of %d bytes; allowed are %d", r.To, len(r.Reason), maxReason)
	}
	if err := n.believed(ctx); err != nil {
		return nil, err
	}
	if !g.Speaks(r.Term, speakerFrom(ctx).Key()) {
		return nil, state.Refuse(state.CodeNotLeader, "", "this voter does not follow node %s in term %d", r.From, r.Term)
	}
	return g, nil
}

func (n *Node) handlePrepare(ctx context.Context, r group.Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, g.Prepared(r)
}

func (n *Node) handleRelease(ctx context.Context, r group.Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	g.Released(r)
	return nil, nil
}

func (n *Node) handleRebind(ctx context.Context, r group.Release) (any, error) {
	g, err := n.spokenFor(ctx, r)
	if err != nil {
		return nil, err
	}
	if !g.Rebound(r, speakerFrom(ctx).Key()) {
		return nil, state.Refuse(state.CodeNotLeader, "", "this voter has taken part in a later term, or cannot write this one down")
	}
	return nil, nil
}

// apiHandler answers members.
func (n *Node) apiHandler() http.Handler {
	mux := http.NewServeMux()
	port.Handle(mux, pathHello, n.handleHello)
	port.Handle(mux, pathJoin, n.handleJoin)
	port.Handle(mux, pathReport, n.handleReport)
	port.Handle(mux, pathPrepare, n.handlePrepare)
	port.Handle(mux, pathRelease, n.handleRelease)
	port.Handle(mux, pathRebind, n.handleRebind)
	port.Handle(mux, pathHolders, n.handleHolders)
	port.Handle(mux, pathFree, n.handleFree)
	if n.opts.Handler != nil {
		mux.Handle("/", n.membersOnly(n.opts.Handler))
	}
	return n.tellRemoved(mux)
}

// tellRemoved answers nodes that were removed with just that.
func (n *Node) tellRemoved(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone, ok := n.State().Removed[port.PeerFromContext(r.Context())]; ok {
			port.Answer(w, nil, state.RemovedRefusal(gone))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// membersOnly keeps nodes that are not members from the operator's API.
func (n *Node) membersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := port.PeerFromContext(r.Context())
		switch _, ok := n.State().Nodes[peer]; {
		case ok:
			h.ServeHTTP(w, r)
		case n.group.Standing().Leading:
			port.Answer(w, nil, state.Refuse(state.CodeNotMember, "", "this node is not a member"))
		default:
			// Soon after a start the state is not the newest, or empty: only a leader
			// knows who is no member.
			port.Answer(w, nil, state.Refuse(state.CodeNotLeader, "try again in a moment", "%s does not know node %s, and does not lead", n.opts.Identity.Name, peer))
		}
	})
}

// joinHandler answers newcomers, who have shown nothing yet.
func (n *Node) joinHandler() http.Handler {
	mux := http.NewServeMux()
	port.HandleWithin(mux, pathJoin, port.MaxJoinBody, n.handleNewcomer)
	return mux
}
