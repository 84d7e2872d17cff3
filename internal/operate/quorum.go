package operate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// quorumLook is how often a node without a leader asks who is there.
	quorumLook = time.Second
	// leaderlessAfter is how long there is no leader before that is more than an
	// election; at least three heartbeat timeouts.
	leaderlessAfter = time.Second
)

// A QuorumWatch says on every node that is left, and once for each change, that there
// is no majority of the voters, and who is missing.
type QuorumWatch struct {
	log *slog.Logger

	mu sync.Mutex
	// since is when there was last a leader, or when the watch began.
	since time.Duration
	// told is what was logged and not yet taken back, noneCan whether nobody can own.
	told    string
	noneCan bool
	now     owner.QuorumLoss // under way; missing is nil if there is none
	last    owner.QuorumLoss // the last one that ended
}

// NewQuorumWatch makes a watch that begins now. logger may not be nil.
func NewQuorumWatch(logger *slog.Logger) *QuorumWatch {
	return &QuorumWatch{log: logger, since: boottime.Now()}
}

// A quorumSight is what a node without a leader has found out.
type quorumSight struct {
	voters  int
	missing []string // voters that do not answer, by name
	led     bool     // some member knows a leader
}

// lost tells whether the voters that answer are no majority.
func (q quorumSight) lost() bool { return 2*(q.voters-len(q.missing)) <= q.voters && !q.led }

// noneCan tells that nobody can own: neither those that answer, which know no leader,
// nor the others, which are no majority.
func (q quorumSight) noneCan() bool { return 2*len(q.missing) <= q.voters && !q.led }

func (q quorumSight) String() string {
	switch {
	case q.led:
		return fmt.Sprintf("no leader is heard here, though other members know one; %d of %d voters answer", q.voters-len(q.missing), q.voters)
	case !q.lost():
		return fmt.Sprintf("no leader, though %d of %d voters answer", q.voters-len(q.missing), q.voters)
	}
	return fmt.Sprintf("no quorum: %d of %d voters answer; missing: %s", q.voters-len(q.missing), q.voters, owner.ListOf(q.missing))
}

// led notes at now that there is a leader.
func (q *QuorumWatch) led(now time.Duration, leader string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.told != "" {
		q.log.Warn("there is a leader again", "leader", leader, "after", owner.RoundTime(now-q.since))
	}
	if q.now.Missing != nil {
		q.now.Until = now
		q.last, q.now = q.now, owner.QuorumLoss{}
	}
	q.since, q.told, q.noneCan = now, "", false
}

// leaderless tells for how long there has been no leader.
func (q *QuorumWatch) leaderless(now time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return now - q.since
}

// saw notes what was found without a leader, and logs what is new.
func (q *QuorumWatch) saw(now time.Duration, wall time.Time, s quorumSight) {
	slices.Sort(s.missing)
	q.mu.Lock()
	defer q.mu.Unlock()
	if text := s.String(); text != q.told {
		q.told, q.noneCan = text, s.noneCan()
		q.log.Warn(text, "without_a_leader_for", owner.RoundTime(now-q.since))
	}
	if !s.lost() {
		return
	}
	if q.now.Missing == nil {
		q.now = owner.QuorumLoss{At: wall.Add(q.since - now), Since: q.since}
	}
	// All that were missing at some time have their part in it.
	for _, name := range s.missing {
		q.now.Missing = appendNew(q.now.Missing, name)
	}
	slices.Sort(q.now.Missing)
}

// Loss is the last loss of the quorum that is over, also one that ends just now: the
// leader of the first term after it asks. now is as boottime.Now.
func (q *QuorumWatch) Loss(now time.Duration) owner.QuorumLoss {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.now.Missing != nil {
		over := q.now
		over.Missing, over.Until = slices.Clone(over.Missing), now
		return over
	}
	return q.last
}

// state is what was last said of a cluster without a leader, or "", and whether nobody
// can own.
func (q *QuorumWatch) state() (text string, noneCan bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.told, q.noneCan
}

// WatchQuorum asks who is there while there is no leader, and has a loss of the quorum
// written down when it is over. It returns when ctx ends.
func (srv *Server) WatchQuorum(ctx context.Context) {
	ticks := tick.New(quorumLook)
	defer ticks.Stop()
	reported := boottime.Now()
	for {
		changed := srv.Node.Changed()
		s, standing := srv.Node.State(), srv.leadership().Standing()
		_, member := s.Nodes[srv.Node.Self().NodeID]
		switch now := boottime.Now(); {
		case !s.Founded() || !member || standing.Leading || standing.LeaderID != "":
			srv.Quorum.led(now, owner.NameOf(s, standing.LeaderID))
			if last := srv.Quorum.Loss(now); last.Missing != nil && last.Until > reported && standing.LeaderID != "" {
				if srv.reportLoss(ctx, s, last) {
					reported = last.Until
				}
			}
		case srv.Quorum.leaderless(now) > max(leaderlessAfter, 3*s.Heartbeat.Promise()):
			srv.askWhoIsThere(ctx, s)
		}
		for waiting := true; waiting; {
			select {
			case <-ticks.C:
				waiting = false
			case <-changed:
				changed = srv.Node.Changed()
				// A leader that comes or goes is not to be missed.
				waiting = srv.leadership().Standing().LeaderID == standing.LeaderID
			case <-ctx.Done():
				return
			}
		}
	}
}

func (srv *Server) askWhoIsThere(ctx context.Context, s *state.State) {
	answers, led := srv.Node.Answering(ctx)
	if srv.leadership().Standing().LeaderID != "" || ctx.Err() != nil {
		return
	}
	sight := quorumSight{led: led}
	for id, suffrage := range srv.Node.Suffrages() {
		if suffrage != cluster.SuffrageVoter {
			continue
		}
		sight.voters++
		if !answers[id] {
			sight.missing = append(sight.missing, owner.NameOf(s, id))
		}
	}
	srv.Quorum.saw(boottime.Now(), time.Now(), sight)
}

// reportLoss has the leader write a loss down; false means to try again.
func (srv *Server) reportLoss(ctx context.Context, s *state.State, l owner.QuorumLoss) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := askLeader(ctx, srv, api.PathLoss, api.LossRequest{At: l.At, For: l.Until - l.Since, Missing: l.Missing}, srv.noteLoss)
	if err != nil {
		srv.Log.Debug("the loss of the quorum is not in the history", "error", err)
	}
	return err == nil || refusedForGood(err)
}

// refusedForGood tells whether an answer to a report of a loss will stay the same.
func refusedForGood(err error) bool {
	refused, ok := errors.AsType[*state.Refusal](err)
	if !ok {
		return false
	}
	switch refused.Code {
	case state.CodeBadRequest, state.CodeNotFound, state.CodeNotMember, state.CodeRemoved:
		return true
	}
	return false
}

// noteLoss writes down, once, that there was no quorum. A node that was cut off from
// the others cannot tell that from a loss; this leader can, if it was there.
func (srv *Server) noteLoss(ctx context.Context, in api.LossRequest) (api.Done, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	s := srv.Node.State()
	own := srv.Quorum.Loss(boottime.Now())
	if srv.Started.After(in.At) {
		own = owner.QuorumLoss{At: in.At, Until: in.For, Missing: in.Missing} // it cannot say
	}
	move, err := lossMove(s, state.DefaultGroup, in, own, time.Now())
	if err != nil || move.Group == "" {
		return api.Done{}, err
	}
	return api.Done{}, srv.Node.Apply(ctx, state.Command{Move: &move})
}

// lossSlack is by how much the clocks of nodes may differ for what they say of a loss
// to be of the same one.
const lossSlack = 10 * time.Second

// lossMove is the entry of the history for a loss of the quorum, or none if there is
// one, or there was a quorum: own is the leader's own last loss.
func lossMove(s *state.State, group string, in api.LossRequest, own owner.QuorumLoss, now time.Time) (state.Move, error) {
	end := in.At.Add(in.For)
	if in.For <= 0 || end.After(now.Add(lossSlack)) || len(in.Missing) == 0 {
		return state.Move{}, state.Refuse(state.CodeBadRequest, "", "a loss of the quorum must have been, and somebody missing")
	}
	for _, name := range in.Missing {
		if _, ok := s.NodeByName(name); !ok {
			return state.Move{}, state.Refuse(state.CodeNotFound, "", "no node %.80s", name)
		}
	}
	if own.Missing == nil || own.At.After(end.Add(lossSlack)) || own.At.Add(own.Until-own.Since).Before(in.At.Add(-lossSlack)) {
		return state.Move{}, nil
	}
	var before state.Move
	for _, m := range s.Moves {
		switch {
		case m.Group != group:
		case m.Loss:
			if m.At.After(in.At.Add(-lossSlack)) && m.At.Before(end) {
				return state.Move{}, nil
			}
		case m.At.Before(in.At):
			before = m
		case m.To != "" && m.At.Before(end.Add(-lossSlack/10)):
			return state.Move{}, nil // somebody has taken the addresses, which takes a quorum
		}
	}
	return state.Move{
		Group: group, Term: before.Term, From: before.To, At: in.At, Loss: true,
		Reason: fmt.Sprintf("quorum lost for %s: %s did not answer", owner.RoundTime(in.For), owner.ListOf(in.Missing)),
	}, nil
}

func appendNew(list []string, text string) []string {
	if text == "" || slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}
