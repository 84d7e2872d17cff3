package cluster

import (
	"context"
	"net/http"
	"slices"
	"time"
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
func (n *Node) spokenFor(ctx context.Context, r Release) (*Group, error) {
	if peer := PeerFromContext(ctx); peer != r.From {
		return nil, Refuse(CodeBadRequest, "", "node %s spoke for node %s", peer, r.From)
	}
	g := n.Group(r.Group)
	if g == nil {
		return nil, Refuse(CodeNotFound, "", "no group %s", r.Group)
	}
	if len(r.Reason) > maxReason || r.To != "" && !nodeID.MatchString(r.To) {
		return nil, Refuse(CodeBadRequest, "", "a hand-over to %.64q with a reason of %d bytes; allowed are %d", r.To, len(r.Reason), maxReason)
	}
	if err := n.believed(ctx); err != nil {
		return nil, err
	}
	if !g.Speaks(r.Term, speakerFrom(ctx).key()) {
		return nil, Refuse(CodeNotLeader, "", "this voter does not follow node %s in term %d", r.From, r.Term)
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
		return nil, Refuse(CodeNotLeader, "", "this voter has taken part in a later term, or cannot write this one down")
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

// membersOnly keeps nodes that are not members from the operator's API.
func (n *Node) membersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := PeerFromContext(r.Context())
		switch _, ok := n.State().Nodes[peer]; {
		case ok:
			h.ServeHTTP(w, r)
		case n.group.Standing().Leading:
			answer(w, nil, Refuse(CodeNotMember, "", "this node is not a member"))
		default:
			// Soon after a start the state is not the newest, or empty: only a leader
			// knows who is no member.
			answer(w, nil, Refuse(CodeNotLeader, "try again in a moment", "%s does not know node %s, and does not lead", n.opts.Identity.Name, peer))
		}
	})
}

// joinHandler answers newcomers, who have shown nothing yet.
func (n *Node) joinHandler() http.Handler {
	mux := http.NewServeMux()
	handleWithin(mux, pathJoin, maxJoinBody, n.handleNewcomer)
	return mux
}
