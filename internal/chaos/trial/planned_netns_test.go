package trial

import "testing"

// TestPlanned: each planned move goes to the next best node, once, and the first
// gets the addresses back when it is undone. An operator's transfer goes to a node
// that is not the best one and has to stay there: a few of them, as it took a race
// to find that it did not.
func TestPlanned(t *testing.T) {
	path, pins := setup(t)
	t.Parallel()
	r := open(t, Raftvip{Binary: path, PinDir: pins, Ranked: true}, Setup{V4: 1, Check: true})
	faults, err := Find("transfer", "transfer", "transfer", "transfer", "drain", "check", "priority", "term")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		res, err := r.Try(t.Context(), f, 0)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		t.Logf("%s: %s -> %s -> %s, gap %v, took %v", f.Name, res.From, res.During, res.To, res.Gap, res.Took)
		if !res.OK() || res.From != "n1" || res.During != "n2" || res.To != "n1" || res.Best != "n2" || res.Moves != 1 {
			t.Errorf("%s: %+v", f.Name, res)
		}
	}
}
