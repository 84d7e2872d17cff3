package state

import (
	"encoding/json"
	"testing"
)

// FuzzCommand has a member write whatever it likes into the log: nothing panics, the
// state that was there is not changed, and what becomes of it can be written and read.
func FuzzCommand(f *testing.F) {
	for _, c := range []Command{
		{Join: &JoinCommand{Node: NodeRecord{ID: "lb2-00000002", Name: "lb2", Address: "192.0.2.2:7355"}, Trusted: true, Level: 2, Replace: "lb1-00000001"}},
		{PutToken: &TokenRecord{ID: "0123456789", Hash: "x", Uses: 1}},
		{Move: &Move{Group: DefaultGroup, To: "lb1", Reason: "test"}},
		{Raise: &RaiseCommand{Level: 3, Nodes: []string{"lb1-00000001"}}},
		{Configure: &Configuration{Instances: []Instance{{Name: "v"}}}},
		{AddVIP: &VIPCommand{Instance: "v"}},
	} {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"at":"2026-01-01T00:00:00Z","heartbeat":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data, 2)
		if err != nil {
			return
		}
		before := founded(2)
		was, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		next, err := before.Apply(c, 2)
		if now, _ := json.Marshal(before); string(now) != string(was) {
			t.Fatalf("the state before was changed:\n%s\n%s", was, now)
		}
		if err != nil {
			return
		}
		b, err := json.Marshal(next)
		if err != nil {
			t.Fatalf("no snapshot can be made any more: %v", err)
		}
		var again State
		if err := DecodeStrictly(b, &again); err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, b)
		}
		for _, m := range next.Moves {
			if len(m.Reason) > MaxText {
				t.Fatalf("a reason of %d bytes", len(m.Reason))
			}
		}
	})
}
