package trial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A Result is what one fault did. Times are in nanoseconds in JSON.
type Result struct {
	Product string `json:"product"`
	Fault   string `json:"fault"`
	// Detection is how long the nodes wait before they take the owner for dead.
	Detection time.Duration `json:"detection_ns"`
	// From and To are who owned before and after everything was healed; During is
	// who answered last before healing began.
	From   string `json:"from"`
	During string `json:"during"`
	To     string `json:"to"`
	// Overlap is how long two nodes answered for one address, that with the most.
	Overlap time.Duration `json:"overlap_ns"`
	// FaultOverlap is the part of it before healing began, while the client was
	// measured.
	FaultOverlap time.Duration `json:"fault_overlap_ns"`

	Violations []string `json:"violations,omitempty"`
	// Strays are announcements by a node that did not hold the address any more,
	// after another had announced it.
	Strays []string `json:"stray_announcements,omitempty"`
	// Gap is the client's longest outage that began before healing; HealGap that
	// of those that began later, as when the addresses go back.
	Gap     time.Duration `json:"gap_ns"`
	HealGap time.Duration `json:"heal_gap_ns"`
	// Blind is the longest time in which the client sent nothing during Gap.
	Blind time.Duration `json:"blind_ns"`
	// Stall is the longest time in which the machine stood still meanwhile;
	// FaultStall the same before healing began, while the client was measured.
	Stall      time.Duration `json:"stall_ns"`
	FaultStall time.Duration `json:"fault_stall_ns"`
	// Moves is how often the addresses went to another node before healing began.
	Moves int `json:"moves"`
	// Elections is how many were held until another node had taken over, and Best
	// the node that should have won; 0 and "" where there is no such thing.
	Elections uint64        `json:"elections,omitempty"`
	Best      string        `json:"best,omitempty"`
	Took      time.Duration `json:"took_ns"`
	// Answers is how many answers the judgement is based on.
	Answers int `json:"answers"`
	// Began and Healed are when, since boot, the fault was done and undone.
	Began  time.Duration `json:"-"`
	Healed time.Duration `json:"-"`
	// Problem is what should not have happened, or "".
	Problem string `json:"problem,omitempty"`
	// Note is something worth knowing that is not wrong.
	Note string `json:"note,omitempty"`
	// Logs is the end of the programs' output if there was a problem.
	Logs string `json:"-"`
}

// OK tells whether P1 held and everything else went as it should.
func (r Result) OK() bool {
	return r.Overlap == 0 && len(r.Violations)+len(r.Strays) == 0 && r.Problem == ""
}

// Try does the fault to the settled product, keeps it for at least hold, heals it,
// and waits until the product has settled again. What the product did wrong is in
// the Result; an error means that the trial itself could not be made.
func (r *Rig) Try(ctx context.Context, f Fault, hold time.Duration) (res Result, err error) {
	res = Result{Product: r.Product.Name(), Fault: f.Name, Detection: r.System.Detection()}
	owner, err := r.Settle(ctx)
	if err != nil {
		return res, fmt.Errorf("%s: before %s: %w", res.Product, f.Name, err)
	}
	res.From = owner.Name()
	dropped := r.Prober.Stats().Dropped
	term, err := r.election(ctx, owner, &res)
	if err != nil {
		return res, fmt.Errorf("%s: before %s: %w", res.Product, f.Name, err)
	}
	from := r.Client.Mark(f.Name)
	heal, err := f.inject(ctx, r, owner)
	if errors.Is(err, ErrRefused) {
		if res.Note = err.Error(); !f.MayRefuse {
			res.Problem = res.Note
		}
		err = nil
	}
	if err == nil {
		err = r.endure(ctx, f, owner, from, hold, &res)
	}
	healed := boottime.Now()
	res.Began, res.Healed = from, healed
	if h := r.latest(from); h != nil {
		res.During = h.Name()
		if h != owner {
			res.count(ctx, r, h, term)
		}
	}
	if heal != nil {
		// Also after Ctrl-C: the lab is closed next, but a quota must not outlive it.
		err = errors.Join(err, heal(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return res, fmt.Errorf("%s: %s: %w", res.Product, f.Name, err)
	}
	next, err := r.Settle(ctx)
	switch {
	case ctx.Err() != nil:
		return res, err
	case err != nil:
		res.problem(fmt.Errorf("after %s: %w", f.Name, err))
	default:
		res.To, r.settled = next.Name(), next
	}
	// The client waits for late answers, and a thawed daemon may be slow to speak.
	if err := sleep(ctx, 100*time.Millisecond); err != nil {
		return res, err
	}
	r.judge(&res, from, healed, boottime.Now())
	if gap := max(res.Gap, res.HealGap); f.Steady && r.System.Strict() && gap > steadyGap+res.Stall {
		res.problem(fmt.Errorf("nobody answered for %v, and nothing was broken", gap))
	}
	if n := r.Prober.Stats().Dropped - dropped; n > 0 {
		res.problem(fmt.Errorf("the observer lost %d packets, so it cannot judge", n))
	}
	return res, nil
}

// steadyGap is more than a client may miss where nothing changes: a probe or a few.
const steadyGap = 20 * time.Millisecond

func (r *Result) problem(err error) {
	if r.Problem != "" {
		r.Problem += "; "
	}
	r.Problem += err.Error()
}

// endure waits while the fault lasts: until another node has taken over, if it
// has to, and for the time to hold.
func (r *Rig) endure(ctx context.Context, f Fault, owner *testnet.Host, from, hold time.Duration, res *Result) error {
	var moved error
	if f.Moves && r.System.Strict() && res.Problem == "" {
		within := 30*time.Second + 4*r.System.Detection()
		moved = waitFor(ctx, within, "another node to take over", func() error {
			h, err := r.holder()
			if err == nil && h == owner {
				err = fmt.Errorf("%s still answers", h)
			}
			return err
		})
		if ctx.Err() != nil {
			return moved
		}
		if moved != nil {
			res.problem(moved)
		}
	}
	// Many addresses are still being announced when they are answered for.
	if f.Planned && len(r.Addresses) == len(r.VIPs) {
		hold = 0
	}
	// Where two may answer, that another does is the sign of its takeover.
	if !r.System.Strict() && f.Moves {
		within := 2*r.System.Detection() + 2*checkInterval
		_ = waitFor(ctx, within, "another node to answer", func() error {
			for _, a := range r.Prober.Since(from) {
				if a.Holder != owner.Name() {
					return nil
				}
			}
			return errors.New("not yet")
		})
	}
	return sleep(ctx, max(hold-(boottime.Now()-from), 200*time.Millisecond))
}

// latest returns the node that answered last, nil if none has since the instant.
// Unlike holder it does not ask whether it answers just now: machine and observer
// may pause for a moment.
func (r *Rig) latest(from time.Duration) *testnet.Host {
	answers := r.Prober.Since(from)
	for _, h := range r.Lab.Nodes() {
		if len(answers) > 0 && h.Name() == answers[len(answers)-1].Holder {
			return h
		}
	}
	return nil
}

// election asks the owner for the number of the latest election before a fault,
// and notes who should win the next.
func (r *Rig) election(ctx context.Context, owner *testnet.Host, res *Result) (uint64, error) {
	s, ok := r.System.(Elector)
	if !ok {
		return 0, nil
	}
	if best := s.Best(owner); best != nil {
		res.Best = best.Name()
	}
	return s.Election(ctx, owner)
}

// count asks the new owner how many elections there have been since.
func (r *Result) count(ctx context.Context, rig *Rig, owner *testnet.Host, before uint64) {
	s, ok := rig.System.(Elector)
	if !ok {
		return
	}
	now, err := s.Election(ctx, owner)
	if err != nil {
		r.problem(err)
		return
	}
	r.Elections = now - before
}

// judge fills in what was seen from outside.
func (r *Rig) judge(res *Result, from, healed, to time.Duration) {
	answers := r.Prober.Since(from)
	res.Answers, res.Took = len(answers), to-from
	if len(answers) == 0 {
		res.problem(errors.New("no answer was seen at all"))
	}
	for _, v := range r.VIPs {
		mine := of(answers, v)
		rep := testnet.CheckP1(mine, r.interval())
		res.Overlap = max(res.Overlap, rep.Overlap)
		before := slices.DeleteFunc(slices.Clone(mine), func(a testnet.Answer) bool { return a.At >= healed })
		res.FaultOverlap = max(res.FaultOverlap, testnet.CheckP1(before, r.interval()).Overlap)
		res.Moves = max(res.Moves, moves(before, res.From))
		for _, x := range rep.Violations {
			res.Violations = append(res.Violations, x.String())
		}
		for _, a := range strays(mine, r.Capture.Announcements(v), from) {
			res.Strays = append(res.Strays, fmt.Sprintf("%v of %v by %s, %v after the fault", a.Kind, a.Addr, a.Holder, a.At-from))
		}
	}
	for _, o := range r.Client.Outages(from) {
		switch {
		case o.From >= healed:
			res.HealGap = max(res.HealGap, o.Gap)
		case o.Gap > res.Gap:
			res.Gap, res.Blind = o.Gap, o.Blind
		}
	}
	res.Stall, res.FaultStall = r.Control.Within(from, to), r.Control.Within(from, healed)
}

// moves counts how often answers went to another holder than before, the first of
// which is given.
func moves(answers []testnet.Answer, holder string) int {
	n := 0
	for _, a := range answers {
		if a.Holder != holder {
			n++
			holder = a.Holder
		}
	}
	return n
}

func of(answers []testnet.Answer, v netip.Addr) []testnet.Answer {
	var out []testnet.Answer
	for _, a := range answers {
		if a.VIP == v {
			out = append(out, a)
		}
	}
	return out
}

// claimBefore and claimAfter are how far from an announcement an answer of the
// same node shows that it holds the address: a node that takes over announces
// first and is asked next, and one that gives up has just answered.
const (
	claimBefore = 5 * time.Millisecond
	claimAfter  = 20 * time.Millisecond
)

// strays returns the announcements that a node made when it did not hold the
// address any more, because another had announced it in between. One by a node
// that is the next to answer is a takeover, whenever that is.
func strays(answers []testnet.Answer, anns []testnet.Announcement, from time.Duration) []testnet.Announcement {
	var out []testnet.Announcement
	last := ""
	for _, a := range anns {
		taken := last != "" && last != a.Holder
		if a.At >= from && taken && !holds(answers, a) {
			out = append(out, a)
			continue
		}
		last = a.Holder
	}
	return out
}

func holds(answers []testnet.Answer, a testnet.Announcement) bool {
	next := ""
	for _, x := range answers {
		if x.Holder == a.Holder && x.At >= a.At-claimBefore && x.At <= a.At+claimAfter {
			return true
		}
		if x.At >= a.At && next == "" {
			next = x.Holder
		}
	}
	return next == "" || next == a.Holder
}
