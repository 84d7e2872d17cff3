package testnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"golang.org/x/sys/unix"
)

// ClientOptions says what a Client sends to.
type ClientOptions struct {
	VIP      netip.Addr
	Interval time.Duration // default 1 ms

	// AnswerWithin is how soon an answer must come to count; default 20 ms. A
	// kernel that looks for a lost neighbour holds requests and sends them all
	// when it is found: answered, but not when the client needed it.
	AnswerWithin time.Duration
}

// Client sends an echo request to an address every interval and measures how long
// it was not answered.
type Client struct {
	o  ClientOptions
	e  *echo
	rx *batch
	m  *metronome

	mu     sync.Mutex
	reqs   chunked[request]
	late   int
	marks  []mark
	once   sync.Once
	forget func()
}

type request struct {
	sent time.Duration
	rtt  time.Duration // zero: not answered in time
}

type mark struct {
	at    time.Duration
	label string
}

// StartClient starts sending from the host. Stop or the lab's Close ends it.
func (h *Host) StartClient(o ClientOptions) (*Client, error) {
	if !o.VIP.IsValid() {
		return nil, fmt.Errorf("start client: no address")
	}
	if o.Interval <= 0 {
		o.Interval = time.Millisecond
	}
	if o.AnswerWithin <= 0 {
		o.AnswerWithin = 20 * time.Millisecond
	}
	c := &Client{o: o}
	err := h.Do(func() error {
		var err error
		c.e, err = openEcho(o.VIP, rand.Uint64())
		return err
	})
	if err == nil {
		c.rx, err = newBatch(c.e.fd)
	}
	if err != nil {
		return nil, fmt.Errorf("start client: %w", err)
	}
	c.m = startMetronome(o.Interval, -1, c.beat)
	c.forget = h.lab.onClose(c.Stop)
	return c, nil
}

func (c *Client) beat(_, _ time.Duration) {
	c.mu.Lock()
	c.rx.drain(c.record)
	seq := uint64(c.reqs.n)
	c.reqs.add(request{sent: boottime.Now()})
	c.mu.Unlock()
	c.e.send(seq)
}

func (c *Client) record(at time.Duration, data []byte) {
	seq, ok := c.e.parse(data)
	if !ok || seq >= uint64(c.reqs.n) {
		return
	}
	r := c.reqs.at(int(seq))
	rtt := max(at-r.sent, 1)
	switch {
	case r.rtt != 0: // a second answer
	case rtt > c.o.AnswerWithin:
		c.late++
	default:
		r.rtt = rtt
	}
}

// Stop ends the sending; what was measured stays.
func (c *Client) Stop() {
	c.once.Do(func() {
		c.m.stop()
		c.forget()
		time.Sleep(2 * time.Millisecond)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rx.drain(c.record)
		_ = unix.Close(c.e.fd)
	})
}

// Mark names this moment, so that an outage can be told by what caused it. It
// returns the moment.
func (c *Client) Mark(label string) time.Duration {
	now := boottime.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks = append(c.marks, mark{now, label})
	return now
}

// Outage is a time in which requests were not answered.
type Outage struct {
	// From and To are when the last answered request before and the first
	// answered request after were sent.
	From, To time.Duration
	// Gap is how long it lasted: To - From less one interval, since two answered
	// requests are that far apart when nothing is wrong.
	Gap  time.Duration
	Lost int // requests not answered
	// Blind is the longest time within the outage in which the client itself sent
	// nothing, less one interval. Where it is not small, the machine stalled.
	Blind time.Duration
	Open  bool   // no answer since; To is the last request
	Mark  string // the latest mark before the end
}

// String gives the outage on one line.
func (o Outage) String() string {
	s := fmt.Sprintf("gap %v, %d lost", o.Gap.Round(time.Microsecond), o.Lost)
	if o.Mark != "" {
		s = o.Mark + ": " + s
	}
	if o.Open {
		s += ", not over"
	}
	if o.Blind > 2*time.Millisecond {
		s += fmt.Sprintf(", blind for %v", o.Blind.Round(time.Microsecond))
	}
	return s
}

// Outages returns those that ended after the given boot time, by time. Requests
// too young to be overdue are not looked at, nor those before the first answer.
func (c *Client) Outages(since time.Duration) []Outage {
	c.mu.Lock()
	defer c.mu.Unlock()
	overdue := boottime.Now() - c.o.AnswerWithin
	var out []Outage
	var o Outage
	last, end := -1, 0
	for i := range c.reqs.n {
		r := c.reqs.at(i)
		if r.rtt == 0 {
			if last >= 0 && r.sent <= overdue {
				o.Lost++
				end = i
				o.Blind = max(o.Blind, r.sent-c.reqs.at(i-1).sent-c.o.Interval)
			}
			continue
		}
		if o.Lost > 0 {
			o.Blind = max(o.Blind, r.sent-c.reqs.at(i-1).sent-c.o.Interval)
			out = c.outage(out, o, last, i, since)
		}
		last, o = i, Outage{}
	}
	if o.Lost > 0 {
		o.Open = true
		out = c.outage(out, o, last, end, since)
	}
	return out
}

func (c *Client) outage(out []Outage, o Outage, from, to int, since time.Duration) []Outage {
	o.From, o.To = c.reqs.at(from).sent, c.reqs.at(to).sent
	if o.To < since {
		return out
	}
	o.Gap = o.To - o.From
	if !o.Open {
		o.Gap -= c.o.Interval
	}
	for _, m := range c.marks {
		if m.at <= o.To {
			o.Mark = m.label
		}
	}
	return append(out, o)
}

// Gap returns the longest outage so far; zero if every request was answered.
func (c *Client) Gap() time.Duration { return c.GapSince(0) }

// GapSince returns the longest outage that ended after the given boot time, as
// Mark returns it.
func (c *Client) GapSince(since time.Duration) time.Duration {
	var gap time.Duration
	for _, o := range c.Outages(since) {
		gap = max(gap, o.Gap)
	}
	return gap
}

// Answering returns how long ago the latest answered request was sent; ok is
// false if there was none.
func (c *Client) Answering() (ago time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := c.reqs.n - 1; i >= 0; i-- {
		if r := c.reqs.at(i); r.rtt != 0 {
			return boottime.Now() - r.sent, true
		}
	}
	return 0, false
}

// ClientStats are totals since the start.
type ClientStats struct {
	Cadence        Cadence
	Sent, Answered int
	Late           int // answered, but not within ClientOptions.AnswerWithin
	MeanRTT        time.Duration
}

// Stats returns totals so far.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ClientStats{Cadence: c.m.cadence(), Sent: c.reqs.n, Late: c.late}
	var sum time.Duration
	for i := range c.reqs.n {
		if r := c.reqs.at(i); r.rtt != 0 {
			s.Answered++
			sum += r.rtt
		}
	}
	if s.Answered > 0 {
		s.MeanRTT = sum / time.Duration(s.Answered)
	}
	return s
}
