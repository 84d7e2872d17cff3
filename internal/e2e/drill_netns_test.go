package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestDrill: the addresses go there and back, a third node measures, the history
// has what it saw; whichever node is asked. Without a third node nothing moves.
func TestDrill(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	home := owner(t, c, nil)
	drilled := func(r api.DrillResult) {
		t.Helper()
		if r.Address != vip4 || len(r.Moves) != 2 {
			t.Fatalf("drill: %+v", r)
		}
		there, back := r.Moves[0], r.Moves[1]
		if there.From != home.Name || there.To == home.Name || back.From != there.To || back.To != home.Name ||
			r.Observer == home.Name || r.Observer == there.To || c.Node(r.Observer) == nil {
			t.Errorf("drill: %+v", r)
		}
		for _, m := range r.Moves {
			if m.Gap <= 0 || m.Gap > 1 || m.Holders != 2 {
				t.Errorf("%s -> %s: gap %v s, %d answered one after the other", m.From, m.To, m.Gap, m.Holders)
			}
		}
		owner(t, c, home)
		moves, err := home.History(t.Context())
		must(t, err)
		for i, m := range moves[len(moves)-2:] {
			if m.From != r.Moves[i].From || m.To != r.Moves[i].To || !strings.Contains(m.Reason, "drill; "+r.Observer+" saw a gap of ") {
				t.Errorf("history: %+v", m)
			}
		}
	}
	var r api.DrillResult
	must(t, home.JSON(t.Context(), &r, "drill"))
	drilled(r)
	asked := c.Node(r.Observer) // has to ask the leader, and watches itself
	must(t, asked.JSON(t.Context(), &r, "drill"))
	drilled(r)
	out := run(t, c.Node(r.Moves[0].To), "drill")
	for _, want := range []string{vip4.String() + ", watched from ", home.Name + " -> ", " -> " + home.Name + ": gap "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in what drill printed:\n%s", want, out)
		}
	}

	must(t, asked.Kill())
	before, err := home.History(t.Context())
	must(t, err)
	testnet.MustWait(t, 10*time.Second, "drill to be refused", func() error {
		res, err := home.Run(t.Context(), "drill")
		if err == nil && strings.Contains(res.Stderr, "no third node can watch") && res.Code == 1 {
			return nil
		}
		return errors.Join(err, errors.New(res.Stdout+res.Stderr))
	})
	owner(t, c, home)
	after, err := home.History(t.Context())
	must(t, err)
	for _, m := range after[len(before):] {
		t.Errorf("moved by a drill that cannot measure: %+v", m)
	}
}
