package operate

import (
	"slices"

	"github.com/raftvip/raftvip/internal/api"
)

// maxHistoryText is the longest text that a request may add to the history.
const maxHistoryText = 200

func (srv *Server) history() []api.Move {
	var out []api.Move
	for _, t := range srv.Seats() {
		for _, m := range t.State().Moves {
			out = append(out, api.Move{
				Seq: m.Seq, At: m.At, Group: m.Group, Term: m.Term, From: m.From, To: m.To, Reason: m.Reason,
				Gap: m.Gap.Seconds(), GapLeast: m.GapLeast.Seconds(), Loss: m.Loss,
			})
		}
	}
	// Each group's are in its order; those of several go by the clocks of their leaders.
	if len(srv.Seats()) > 1 {
		slices.SortStableFunc(out, func(a, b api.Move) int { return a.At.Compare(b.At) })
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
