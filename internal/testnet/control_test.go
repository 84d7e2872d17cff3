package testnet

import (
	"testing"
	"time"
)

func TestControlTotals(t *testing.T) {
	c := &ControlProbe{stalls: []Stall{
		{From: 30 * ms, To: 40 * ms, CPU: 0},
		{From: 10 * ms, To: 20 * ms, CPU: 0},
		{From: 15 * ms, To: 25 * ms, CPU: 1},
	}}
	for _, tt := range []struct{ from, to, total, longest time.Duration }{
		{0, 100 * ms, 25 * ms, 10 * ms},
		{0, 5 * ms, 0, 0},
		{18 * ms, 32 * ms, 9 * ms, 10 * ms},
		{26 * ms, 29 * ms, 0, 0},
	} {
		if got := c.Total(tt.from, tt.to); got != tt.total {
			t.Errorf("%v to %v: total %v, want %v", tt.from, tt.to, got, tt.total)
		}
		if got := c.Within(tt.from, tt.to); got != tt.longest {
			t.Errorf("%v to %v: longest %v, want %v", tt.from, tt.to, got, tt.longest)
		}
	}
}

// Outages are judged from what was sent and answered, without a network.
func TestOutages(t *testing.T) {
	c := &Client{o: ClientOptions{Interval: ms, AnswerWithin: 20 * ms}}
	for i := range 100 {
		r := request{sent: time.Duration(i) * ms, rtt: 50 * time.Microsecond}
		switch {
		case i < 5: // before the first answer
			r.rtt = 0
		case i >= 20 && i < 30:
			r.rtt = 0
		case i == 50:
			r.rtt = 0
		case i >= 90: // at the end
			r.rtt = 0
		}
		if i >= 25 { // the client itself was stalled
			r.sent += 40 * ms
		}
		c.reqs.add(r)
	}
	c.marks = []mark{{18 * ms, "cut"}, {80 * ms, "heal"}}
	os := c.Outages(0)
	want := []Outage{
		{From: 19 * ms, To: 70 * ms, Gap: 50 * ms, Lost: 10, Blind: 40 * ms, Mark: "cut"},
		{From: 89 * ms, To: 91 * ms, Gap: 1 * ms, Lost: 1, Mark: "heal"},
		{From: 129 * ms, To: 139 * ms, Gap: 10 * ms, Lost: 10, Open: true, Mark: "heal"},
	}
	if len(os) != len(want) {
		t.Fatalf("got %v", os)
	}
	for i := range want {
		if os[i] != want[i] {
			t.Errorf("got %+v, want %+v", os[i], want[i])
		}
	}
	if got := c.GapSince(80 * ms); got != 10*ms {
		t.Errorf("since the heal: %v", got)
	}
}

// A stall without a lost request is no outage: nobody asked.
func TestStallIsNoOutage(t *testing.T) {
	c := &Client{o: ClientOptions{Interval: ms, AnswerWithin: 20 * ms}}
	for i := range 10 {
		at := time.Duration(i) * ms
		if i >= 5 {
			at += 100 * ms
		}
		c.reqs.add(request{sent: at, rtt: 1})
	}
	if os := c.Outages(0); len(os) != 0 {
		t.Errorf("got %v", os)
	}
}
