package guardtest

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestFake(t *testing.T) {
	var f Fake
	a := netip.MustParseAddr("10.0.0.1")
	if !f.Answers(a, 5) {
		t.Error("not armed: silent")
	}
	if err := f.Arm(1, []netip.Addr{a}); err != nil {
		t.Fatal(err)
	}
	if f.Answers(a, 5) {
		t.Error("armed without a deadline: answers")
	}
	f.SetDeadline(1, 2*time.Second)
	if !f.Answers(a, time.Second) || f.Answers(a, 2*time.Second) {
		t.Error("wrong around the deadline")
	}
	if f.Arm(2, []netip.Addr{a}) == nil || f.Disarm(2, []netip.Addr{a}) == nil {
		t.Error("another group: no error")
	}
	boom := errors.New("boom")
	f.Fail("disarm", boom)
	if err := f.Disarm(1, []netip.Addr{a}); !errors.Is(err, boom) || len(f.Armed(1)) != 1 {
		t.Errorf("failing disarm: %v, %v", err, f.Armed(1))
	}
	want := []Call{"arm 1 [10.0.0.1]", "deadline 1 2s", "arm 2 [10.0.0.1]", "disarm 2 [10.0.0.1]", "disarm 1 [10.0.0.1]"}
	if got := f.Calls(); !slices.Equal(got, want) || len(f.Calls()) != 0 {
		t.Errorf("calls %q, want %q", got, want)
	}
}
