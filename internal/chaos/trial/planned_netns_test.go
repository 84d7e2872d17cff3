package trial

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// TestPlanned: each planned move goes to the next best node, once, and the first
// gets the addresses back when it is undone. An operator's transfer goes to a node
// that is not the best one and has to stay there: a few of them, as it took a race
// to find that it did not. On a machine that stalls for long, an owner is taken for
// dead with good reason; such a trial proves nothing but that there is one owner.
func TestPlanned(t *testing.T) {
	path, pins := setup(t)
	t.Parallel()
	r := open(t, Raftvip{Binary: path, PinDir: pins, Ranked: true}, Setup{V4: 1, Check: true})
	faults, err := Find("transfer", "transfer", "transfer", "transfer", "drain", "check", "priority", "term")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		try(t, r, f)
	}
}

// try makes a trial, again if the machine stalled.
func try(t *testing.T, r *Rig, f Fault) {
	t.Helper()
	const tries = 10
	for n := 1; n <= tries; n++ {
		from := boottime.Now()
		res, err := r.Try(t.Context(), f, 0)
		if res.Overlap > 0 {
			t.Fatalf("%s: %+v", f.Name, res)
		}
		if stall := r.Control.Within(from-2*time.Second, boottime.Now()); stall > r.System.Detection()/10 {
			t.Logf("%s: the machine stalled for %v, %v", f.Name, stall, err)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		t.Logf("%s: %s -> %s -> %s, gap %v, took %v", f.Name, res.From, res.During, res.To, res.Gap, res.Took)
		if !res.OK() || res.From != "n1" || res.During != "n2" || res.To != "n1" || res.Best != "n2" || res.Moves != 1 {
			t.Errorf("%s: %+v", f.Name, res)
		}
		return
	}
	t.Logf("%s: not judged, as the machine stalled each time", f.Name)
}

// TestLockedMoves: a planned move gives nothing away before the kernel is silent,
// also while somebody else keeps the lock that the guard needs for that.
func TestLockedMoves(t *testing.T) {
	path, pins := setup(t)
	t.Parallel()
	r := open(t, Raftvip{Binary: path, Guard: "nft", PinDir: pins, Heartbeat: time.Second}, Setup{})
	faults, err := Find("locked-transfer", "locked-transfer", "locked-transfer", "locked-drain", "locked-term")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		res, err := r.Try(t.Context(), f, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s -> %s -> %s, gap %v, machine stalled %v, took %v %s", f.Name, res.From, res.During, res.To, res.Gap, res.Stall, res.Took, res.Note)
		if !res.OK() {
			t.Errorf("%s: %+v", f.Name, res)
		}
	}
}
