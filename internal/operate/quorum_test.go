package operate

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/owner"
)

// TestQuorumWatch: one line for each change, with who is missing.
func TestQuorumWatch(t *testing.T) {
	var out bytes.Buffer
	q := QuorumWatch{log: slog.New(slog.NewTextHandler(&out, nil))}
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var at time.Duration
	wall := func() time.Time { return begin.Add(at) }
	logged := func(want ...string) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if out.Len() == 0 {
			lines = nil
		}
		if len(lines) != len(want) {
			t.Errorf("at %v: logged %q, want %q", at, lines, want)
		}
		for i := range min(len(lines), len(want)) {
			if !strings.Contains(lines[i], "level=WARN") || !strings.Contains(lines[i], want[i]) {
				t.Errorf("at %v: logged %q, want %q", at, lines[i], want[i])
			}
		}
		out.Reset()
	}
	at = 10 * time.Second
	q.led(at, "lb1")
	logged()
	at = 12 * time.Second
	q.saw(at, wall(), quorumSight{3, []string{"lb3", "lb2"}, false})
	logged("no quorum: 1 of 3 voters answer; missing: lb2 and lb3")
	at = 13 * time.Second
	q.saw(at, wall(), quorumSight{3, []string{"lb2", "lb3"}, false})
	logged()
	at = 20 * time.Second
	q.saw(at, wall(), quorumSight{3, []string{"lb2"}, false})
	logged("no leader, though 2 of 3 voters answer")
	if text, none := q.state(); !none || text == "" {
		t.Errorf("state: %q %v", text, none)
	}
	if l := q.Loss(at); !slices.Equal(l.Missing, []string{"lb2", "lb3"}) || l.Until != at {
		t.Errorf("under way: %+v", l)
	}
	at = 21 * time.Second
	q.led(at, "lb3")
	logged("there is a leader again")
	l := q.Loss(30 * time.Second)
	if !l.At.Equal(begin.Add(10*time.Second)) || l.Since != 10*time.Second || l.Until != 21*time.Second || !slices.Equal(l.Missing, []string{"lb2", "lb3"}) {
		t.Errorf("afterwards: %+v", l)
	}
	q.led(22*time.Second, "lb3")
	logged()
	if text, lost := q.state(); lost || text != "" {
		t.Errorf("state: %q %v", text, lost)
	}
	// All that were missing at some time are, also who is back before the loss is over.
	q.saw(30*time.Second, wall(), quorumSight{5, []string{"lb2", "lb3", "lb4"}, false})
	q.saw(31*time.Second, wall(), quorumSight{5, []string{"lb3", "lb4", "lb5"}, false})
	if l := q.Loss(31 * time.Second); !slices.Equal(l.Missing, []string{"lb2", "lb3", "lb4", "lb5"}) {
		t.Errorf("one after the other: %+v", l)
	}
}

// TestQuorumSight: who is left is no majority at half of the voters either; that nobody
// can own takes more than that.
func TestQuorumSight(t *testing.T) {
	for _, tt := range []struct {
		voters, missing int
		led             bool
		lost, noneCan   bool
		says            string
	}{
		{3, 0, false, false, true, "no leader, though 3 of 3 voters answer"},
		{3, 1, false, false, true, "no leader, though 2 of 3 voters answer"},
		{3, 2, false, true, false, "no quorum: 1 of 3 voters answer"},
		{4, 1, false, false, true, "no leader, though 3 of 4 voters answer"},
		{4, 2, false, true, true, "no quorum: 2 of 4 voters answer"},
		{4, 3, false, true, false, "no quorum: 1 of 4 voters answer"},
		{1, 1, false, true, false, "no quorum: 0 of 1 voters answer"},
		{3, 2, true, false, false, "no leader is heard here, though other members know one; 1 of 3 voters answer"},
		{3, 1, true, false, false, "no leader is heard here, though other members know one; 2 of 3 voters answer"},
	} {
		q := quorumSight{voters: tt.voters, led: tt.led}
		for i := range tt.missing {
			q.missing = append(q.missing, fmt.Sprint("lb", i))
		}
		if q.lost() != tt.lost || q.noneCan() != tt.noneCan || !strings.HasPrefix(q.String(), tt.says) {
			t.Errorf("%d of %d missing, led %v: lost %v, nobody can own %v, %q", tt.missing, tt.voters, tt.led, q.lost(), q.noneCan(), q)
		}
	}
}

func TestLossMove(t *testing.T) {
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	after := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	take := func(s int, term uint64, to string) state.Move {
		m := state.Move{Group: "default", Term: term, To: to}
		m.At = after(s)
		return m
	}
	other := take(61, 8, "lb2")
	other.Group = "other"
	loss := take(60, 7, "")
	loss.Loss = true
	in := api.LossRequest{At: after(60), For: 35 * time.Second, Missing: []string{"lb2", "lb3"}}
	own := owner.QuorumLoss{At: after(61), Since: time.Second, Until: 35 * time.Second, Missing: []string{"lb2"}}
	for _, tt := range []struct {
		name  string
		moves []state.Move
		in    api.LossRequest
		own   owner.QuorumLoss
		want  string // from, term; "" for none
		err   string
	}{
		{"written down with the owner of that time", []state.Move{take(0, 7, "lb1"), take(96, 9, "lb2")}, in, own, "lb1 7", ""},
		{"nobody had owned", nil, in, own, " 0", ""},
		{"written down already", []state.Move{take(0, 7, "lb1"), loss}, in, own, "", ""},
		{"the leader was there and knows of no loss", []state.Move{take(0, 7, "lb1")}, in, owner.QuorumLoss{}, "", ""},
		{"the leader knows of another one only", []state.Move{take(0, 7, "lb1")}, in, owner.QuorumLoss{At: after(5), Until: 10 * time.Second, Missing: []string{"lb2"}}, "", ""},
		{"the leader knows of a later one only", []state.Move{take(0, 7, "lb1")}, api.LossRequest{At: after(10), For: 15 * time.Second, Missing: []string{"lb2", "lb3"}}, own, "", ""},
		{"somebody took the addresses meanwhile: the node was cut off", []state.Move{take(0, 7, "lb1"), take(61, 8, "lb2")}, in, own, "", ""},
		{"what moved meanwhile was another group", []state.Move{take(0, 7, "lb1"), other}, in, own, "lb1 7", ""},
		{"it has not been", nil, api.LossRequest{At: in.At, Missing: in.Missing}, own, "", "must have been"},
		{"nobody is missing", nil, api.LossRequest{At: in.At, For: in.For}, own, "", "somebody missing"},
		{"it lasts", nil, api.LossRequest{At: after(100), For: time.Hour, Missing: in.Missing}, own, "", "must have been"},
		{"no such node", nil, api.LossRequest{At: in.At, For: in.For, Missing: []string{"lb7"}}, own, "", "no node lb7"},
	} {
		m, err := lossMove(withHistory(tt.moves...), "default", tt.in, tt.own, after(97))
		got := ""
		if m.Group != "" {
			got = fmt.Sprint(m.From, " ", m.Term)
			if !m.Loss || m.To != "" || !m.At.Equal(in.At) || m.Reason != "quorum lost for 35s: lb2 and lb3 did not answer" {
				t.Errorf("%s: %+v", tt.name, m)
			}
		}
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %q %v, want %q %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// withHistory are the members lb1 to lb3 and the history given.
func withHistory(moves ...state.Move) *state.State {
	s := &state.State{ClusterID: "c", Nodes: map[string]state.NodeRecord{}, Moves: moves}
	for _, name := range []string{"1", "2", "3"} {
		s.Nodes["id"+name] = state.NodeRecord{ID: "id" + name, Name: "lb" + name}
	}
	return s
}
