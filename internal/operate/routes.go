package operate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
)

// Routes registers the API. The control socket gets all of it, the node port only
// what members ask of each other.
func (srv *Server) Routes(node, control *http.ServeMux) {
	api.Handle(control, api.PathStatus, func(ctx context.Context, _ struct{}) (api.Status, error) { return srv.Status(ctx), nil })
	api.HandlePeer(node, api.PathOwner, srv.ownership)
	api.Handle(control, api.PathHistory, func(context.Context, struct{}) ([]api.Move, error) { return srv.history(), nil })
	api.Handle(control, api.PathVIPs, func(ctx context.Context, _ struct{}) ([]api.VIP, error) { return srv.vips(ctx), nil })
	api.Handle(control, api.PathTokens, func(context.Context, struct{}) ([]api.Token, error) { return srv.tokens(), nil })
	api.Handle(control, api.PathReload, func(ctx context.Context, in api.ReloadRequest) (api.ReloadResult, error) {
		return srv.Reload(ctx, in.Force)
	})
	api.Handle(control, api.PathLeave, srv.leaveCluster)

	api.Handle(control, api.PathDrill, func(ctx context.Context, in api.DrillRequest) (api.DrillResult, error) {
		t, err := srv.choose(in.Group)
		if err != nil {
			return api.DrillResult{}, err
		}
		return srv.drill(ctx, t)
	})
	api.HandlePeer(node, api.PathObserve, srv.observe)
	srv.doctorRoutes(node, control)

	leaderDoes(srv, node, control, api.PathLoss, srv.noteLoss)
	// These are for the leader of the group that they name.
	api.HandlePeer(node, api.PathNote, srv.noteMove)
	api.HandlePeer(node, api.PathTransfer, srv.transfer)
	api.Handle(control, api.PathTransfer, func(ctx context.Context, in api.TransferRequest) (api.TransferResult, error) {
		t, err := srv.choose(in.Group)
		if err != nil {
			return api.TransferResult{}, err
		}
		in.Group = t.named()
		return inGroup(ctx, srv, t, api.PathTransfer, in, srv.transfer)
	})
	leaderDoes(srv, node, control, api.PathDrain, srv.drain)
	leaderDoes(srv, node, control, api.PathVIPAdd, srv.vipAdd)
	leaderDoes(srv, node, control, api.PathVIPDel, srv.vipDel)
	leaderDoes(srv, node, control, api.PathRemove, srv.nodeRemove)
	leaderDoes(srv, node, control, api.PathPromote, srv.nodePromote)
	leaderDoes(srv, node, control, api.PathToken, srv.tokenCreate)
	leaderDoes(srv, node, control, api.PathRevoke, srv.tokenRevoke)
	leaderDoes(srv, node, control, api.PathConfig, srv.configure)
}

// leaderDoes registers a request that only the leader carries out: on the control
// socket of another node it is sent on to the leader.
func leaderDoes[In, Out any](srv *Server, node, control *http.ServeMux, path string, f func(context.Context, In) (Out, error)) {
	here := func(ctx context.Context, in In) (Out, error) {
		var none Out
		if !srv.leadership().Standing().Leading {
			return none, state.Refuse(state.CodeNotLeader, "try again", "node %s does not lead", srv.Node.Self().Name)
		}
		return f(ctx, in)
	}
	api.HandlePeer(node, path, here)
	api.Handle(control, path, func(ctx context.Context, in In) (Out, error) {
		return askLeader[In, Out](ctx, srv, path, in, here)
	})
}

// leaderWait bounds how long a request waits for a leader to appear.
const leaderWait = 3 * time.Second

// askLeader carries a request out here or at the leader of the default group.
func askLeader[In, Out any](ctx context.Context, srv *Server, path string, in In, here func(context.Context, In) (Out, error)) (Out, error) {
	return inGroup(ctx, srv, srv.base(), path, in, here)
}

// askWho carries a request out here or at the leader that who names, and waits a moment
// for one if there is none: elections take less. The error of who is for that.
func askWho[In, Out any](ctx context.Context, srv *Server, who func() (leading bool, address string, none error), path string, in In, here func(context.Context, In) (Out, error)) (Out, error) {
	deadline := time.Now().Add(leaderWait)
	for {
		var out Out
		changed := srv.Node.Changed()
		leading, address, err := who()
		if leading {
			out, err = here(ctx, in)
		} else if address != "" && address != srv.Node.Advertise() {
			asking, done := whileLeads(ctx, func() bool { _, now, _ := who(); return now == address }, srv.Node.Changed)
			err = srv.Node.Call(asking, address, path, in, &out)
			if err != nil && ctx.Err() == nil && errors.Is(context.Cause(asking), errLeaderGone) {
				err = api.WithHint(fmt.Errorf("%w: it may have done this, or not", errLeaderGone), `see "raftvip status", and try again`)
			}
			done()
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

func (srv *Server) noLeader() *state.Refusal {
	if phase := srv.Node.Phase(); phase != "" {
		return state.Refuse(state.CodeNoLeader, `see "raftvip status"`, "this node is not in a cluster yet: %s", phase)
	}
	if !srv.Node.State().Founded() {
		return state.Refuse(state.CodeNoLeader, `see "raftvip status"`, "the cluster has not been founded yet")
	}
	if text, _ := srv.Quorum.state(); text != "" {
		return state.Refuse(state.CodeNoLeader,
			`see "raftvip status"; this node owns nothing until a majority of the voters is back`, "%s", text)
	}
	return state.Refuse(state.CodeNoLeader, `see "raftvip status", and try again`, "this node knows no leader now")
}
