package operate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
)

const (
	// observeEvery is the time between two questions of an observer.
	observeEvery = time.Millisecond
	// observeLead is how long an observer asks before a move begins, and observeTail
	// after it is done.
	observeLead = 300 * time.Millisecond
	observeTail = 500 * time.Millisecond
	// observeMax bounds one observation.
	observeMax = 30 * time.Second
	// observeAtOnce bounds how many are under way: each asks every millisecond.
	observeAtOnce = 2
	// drillSettle bounds how long a drill waits for a move to be seen by this node.
	drillSettle = 5 * time.Second
)

// drill moves a group to the best other node and back, while a third node asks
// the network who answers.
func (srv *Server) drill(ctx context.Context, t Seat) (api.DrillResult, error) {
	s := t.State()
	home := srv.ownerName(t)
	if home == "" {
		return api.DrillResult{}, state.Refuse(state.CodeNotReady, `see "raftvip status"`, "nobody owns the addresses now")
	}
	address, ok := firstAddress(s)
	if !ok {
		return api.DrillResult{}, state.Refuse(state.CodeNotReady, "add one with: raftvip vip add", "there is no virtual address")
	}
	target, observer, err := srv.drillNodes(t, home)
	if err != nil {
		return api.DrillResult{}, err
	}
	result := api.DrillResult{Address: address.Prefix.Addr(), Observer: observer.Name}
	for _, leg := range []struct{ from, to string }{{home, target.Name}, {target.Name, home}} {
		done, err := srv.drillLeg(ctx, t, observer, address, leg.from, leg.to, leg.to == home)
		if err != nil && len(result.Moves) > 0 {
			err = fmt.Errorf("the addresses moved to %s, and not back: %w", target.Name, err)
		}
		if err != nil {
			return result, err
		}
		result.Moves = append(result.Moves, done)
	}
	return result, nil
}

func firstAddress(s *state.State) (state.Address, bool) {
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			return a, true
		}
	}
	return state.Address{}, false
}

// drillNodes chooses where to go and who watches: the best eligible node, and one
// that takes no part in the move and is on the network of the address.
func (srv *Server) drillNodes(t Seat, home string) (target, observer state.NodeRecord, err error) {
	s := t.State()
	hints := srv.Hints.Seen()
	connected := func(id string) bool { return hints[id].Known && hints[id].Age < aliveAge }
	nodes := srv.candidates(t, hints, connected)
	for _, id := range policy.Rank(nodes, "") {
		if n := s.Nodes[id]; n.Name != home {
			target = n
			break
		}
	}
	if target.ID == "" {
		return target, observer, state.Refuse(state.CodeTransfer, `see "raftvip status"`, "no other node can take over")
	}
	for _, n := range s.SortedNodes() {
		if n.Name != home && n.ID != target.ID && !n.Witness && connected(n.ID) {
			return target, n, nil
		}
	}
	return target, observer, state.Refuse(state.CodeNotReady, "a drill needs a third node that is no witness, to measure from",
		"no third node can watch the address")
}

// drillLeg is one of the two moves. The way home ends the drill: from then on a
// better node may preempt again.
func (srv *Server) drillLeg(ctx context.Context, t Seat, observer state.NodeRecord, address state.Address, from, to string, home bool) (api.DrillLeg, error) {
	leg := api.DrillLeg{From: from, To: to}
	watching, stop := context.WithTimeout(ctx, observeMax)
	type seen struct {
		o   api.Observation
		err error
	}
	answers := make(chan seen, 1)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	watcher.Go(func() {
		var s seen
		in := api.ObserveRequest{Address: address.Prefix.Addr(), For: observeLead + drillSettle/2 + observeTail}
		if observer.ID == srv.Node.Self().NodeID {
			s.o, s.err = srv.observe(watching, in)
		} else {
			s.err = srv.Node.Call(watching, observer.Address, api.PathObserve, in, &s.o)
		}
		answers <- s
	})
	timer := time.NewTimer(observeLead)
	defer timer.Stop()
	select {
	case <-timer.C:
	case s := <-answers:
		return leg, fmt.Errorf("watch %s from %s: %w", address.Prefix.Addr(), observer.Name, errors.Join(s.err, errors.New("it ended too soon")))
	case <-ctx.Done():
		return leg, ctx.Err()
	}
	_, err := inGroup(ctx, srv, t, api.PathTransfer, api.TransferRequest{Group: t.named(), Node: to, Reason: "drill", Preemptible: home}, srv.transfer)
	s := <-answers
	if err != nil {
		return leg, fmt.Errorf("move to %s: %w", to, err)
	}
	if s.err != nil {
		return leg, fmt.Errorf("watch %s from %s: %w", address.Prefix.Addr(), observer.Name, s.err)
	}
	if s.o.Answers == 0 {
		return leg, state.Refuse(state.CodeNotReady, `see "raftvip doctor"`,
			"moved to %s, but %s saw nobody answer for %s", to, observer.Name, address.Prefix.Addr())
	}
	if err := srv.answersInFront(to, observer.Name, address.Prefix.Addr(), s.o.Holders); err != nil {
		return leg, err
	}
	if len(s.o.Gaps) > 0 {
		leg.Gap = s.o.Gaps[0]
	}
	leg.Holders = len(s.o.Holders)
	srv.noteDrill(ctx, t, to, leg, observer.Name)
	return leg, srv.waitOwner(ctx, t, to)
}

// answersInFront refuses a move that only looks good: the new owner answers on any of
// its interfaces (the weak host model), but announces on the one that the address is
// on, and clients elsewhere go on asking the node before.
func (srv *Server) answersInFront(owner, observer string, ip netip.Addr, holders []string) error {
	if len(holders) == 0 {
		return nil
	}
	last := holders[len(holders)-1]
	hints := srv.Hints.Seen()
	for id, n := range srv.Node.State().Nodes {
		if n.Name != owner {
			continue
		}
		h := hints[id].Hint
		if id == srv.Node.Self().NodeID {
			srv.Describe(&h)
		}
		if len(h.Fronts) > 0 && len(h.Fronts) < place.MaxMACs && !slices.Contains(h.Fronts, last) {
			return state.Refuse(state.CodeNotReady, "name the right interface for it on "+owner+", with dev in the file there",
				"%s sees %s answer for %s from %s, but it is on another interface there (%s), where this network hears no announcement",
				observer, owner, ip, last, strings.Join(h.Fronts, ", "))
		}
	}
	return nil
}

// noteDrill adds the measured gap to the history.
func (srv *Server) noteDrill(ctx context.Context, t Seat, to string, leg api.DrillLeg, observer string) {
	_, err := inGroup(ctx, srv, t, api.PathNote, api.NoteRequest{
		Group: t.named(), To: to, Note: fmt.Sprintf("%s saw a gap of %s", observer, time.Duration(leg.Gap*float64(time.Second)).Round(100*time.Microsecond)),
	}, srv.noteMove)
	if err != nil {
		srv.Log.Warn("cannot record the drill", "error", err)
	}
}

func (srv *Server) noteMove(ctx context.Context, in api.NoteRequest) (api.Done, error) {
	if len(in.Note) > maxHistoryText {
		return api.Done{}, state.Refuse(state.CodeBadRequest, "", "note: must be at most %d bytes", maxHistoryText)
	}
	t, err := srv.seat(in.Group)
	if err != nil {
		return api.Done{}, err
	}
	return api.Done{}, t.Apply(ctx, state.Command{At: time.Now(), Note: &state.NoteCommand{Group: t.Name, To: in.To, Note: in.Note}})
}

// waitOwner waits until this node has heard that a node owns.
func (srv *Server) waitOwner(ctx context.Context, t Seat, name string) error {
	ctx, cancel := context.WithTimeout(ctx, drillSettle)
	defer cancel()
	for {
		changed := srv.Node.Changed()
		if srv.ownerName(t) == name {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s was not seen to own within %s", name, drillSettle)
		}
	}
}

// observe asks the network who answers for an address.
func (srv *Server) observe(ctx context.Context, in api.ObserveRequest) (api.Observation, error) {
	if srv.Places == nil {
		return api.Observation{}, state.Refuse(state.CodeBadRequest, "", "this node has no network of the addresses")
	}
	if in.For <= 0 || in.For > observeMax {
		return api.Observation{}, state.Refuse(state.CodeBadRequest, "", "observation of %s: must be over 0 and at most %s", in.For, observeMax)
	}
	select {
	case srv.observing <- struct{}{}:
		defer func() { <-srv.observing }()
	default:
		return api.Observation{}, state.Refuse(state.CodeNotReady, "try again in a moment", "this node observes an address already, %d times at once", observeAtOnce)
	}
	for _, p := range srv.Places.Resolve(srv.Node.State().Instances) {
		if p.Address.Prefix.Addr() != in.Address {
			continue
		}
		if p.Err != nil {
			return api.Observation{}, p.Err
		}
		ctx, cancel := context.WithTimeout(ctx, in.For)
		defer cancel()
		seen, err := vip.Observe(ctx, p.Link, in.Address, observeEvery)
		if err != nil {
			return api.Observation{}, err
		}
		out := api.Observation{Asked: seen.Asked, Answers: seen.Answers}
		for _, g := range seen.Gaps {
			out.Gaps = append(out.Gaps, g.Seconds())
		}
		for _, mac := range seen.Holders {
			out.Holders = append(out.Holders, mac.String())
		}
		return out, nil
	}
	return api.Observation{}, state.Refuse(state.CodeNotFound, "", "no virtual address %s", in.Address)
}
