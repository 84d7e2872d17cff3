package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// An Observation is what one node saw of an address on the network.
type Observation struct {
	// Asked and Answers count questions and answers.
	Asked, Answers int
	// Gaps are the longest times between two answers, longest first, at most ten;
	// the time to the first and after the last answer counts.
	Gaps []time.Duration
	// Holders are the hardware addresses that answered, in order of appearance.
	Holders []net.HardwareAddr
}

// maxGaps bounds Observation.Gaps.
const maxGaps = 10

// Observe asks on the link who has addr, each interval, until ctx ends. It changes
// nobody's caches (RFC 5227 probes, RFC 4862 solicitations), and needs CAP_NET_RAW.
// Its resolution is the interval; a pause of this process looks like a gap.
func Observe(ctx context.Context, link string, addr netip.Addr, interval time.Duration) (Observation, error) {
	var o Observation
	addr = addr.Unmap().WithZone("")
	q, err := openQuestion(link, addr)
	if err != nil {
		return o, fmt.Errorf("observe %s on %s: %w", addr, link, err)
	}
	defer func() { _ = q.conn.Close() }()
	buf := make([]byte, 2048)
	last := time.Now()
	gap := func(now time.Time) {
		o.Gaps = append(o.Gaps, max(now.Sub(last)-interval, 0))
		if len(o.Gaps) > 4*maxGaps {
			o.Gaps = longest(o.Gaps)
		}
		last = now
	}
	for ctx.Err() == nil {
		next := time.Now().Add(interval)
		// A question that cannot be sent (link down, queue full) is one without answer.
		_, err := q.conn.WriteTo(q.frame, q.to)
		o.Asked++
		if err := q.conn.SetReadDeadline(next); err != nil {
			return o, fmt.Errorf("observe %s on %s: %w", addr, link, err)
		}
		for err == nil {
			var n int
			if n, _, err = q.conn.ReadFrom(buf); err != nil {
				break
			}
			mac, ok := claimant(buf[:n], addr)
			if !ok || slices.Contains(q.own, mac.String()) {
				continue
			}
			o.Answers++
			gap(time.Now())
			if !slices.ContainsFunc(o.Holders, func(h net.HardwareAddr) bool { return h.String() == mac.String() }) {
				o.Holders = append(o.Holders, slices.Clone(mac))
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			time.Sleep(time.Until(next))
		}
	}
	gap(time.Now())
	o.Gaps = longest(o.Gaps)
	return o, nil
}

// longest returns the longest gaps, longest first.
func longest(gaps []time.Duration) []time.Duration {
	slices.SortFunc(gaps, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return gaps[:min(len(gaps), maxGaps)]
}
