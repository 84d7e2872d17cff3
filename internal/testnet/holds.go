package testnet

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// HoldChecker judges holds as they begin and end, for a simulation that checks
// promise P1 after every step. Instants must not go backwards. The zero value is
// ready; it is not for several goroutines at once.
type HoldChecker struct {
	current map[netip.Addr]map[string]time.Duration // since when
	past    []Violation
	counts  map[netip.Addr]map[string]int
}

// Begin says that the holder has the address from now on. A holder that has it
// already goes on.
func (c *HoldChecker) Begin(now time.Duration, vip netip.Addr, holder string) {
	if c.current == nil {
		c.current = map[netip.Addr]map[string]time.Duration{}
		c.counts = map[netip.Addr]map[string]int{}
	}
	if c.current[vip] == nil {
		c.current[vip] = map[string]time.Duration{}
	}
	if _, ok := c.current[vip][holder]; !ok {
		c.current[vip][holder] = now
		count(c.counts, vip, holder)
	}
}

// End says that the holder no longer has the address.
func (c *HoldChecker) End(now time.Duration, vip netip.Addr, holder string) {
	if _, ok := c.current[vip][holder]; !ok {
		return
	}
	for other := range c.current[vip] {
		if v, bad := c.overlap(now, vip, holder, other); bad {
			c.past = append(c.past, v)
		}
	}
	delete(c.current[vip], holder)
}

// EndAll says that the holder has nothing any more, as after a crash that takes
// its addresses along.
func (c *HoldChecker) EndAll(now time.Duration, holder string) {
	for vip := range c.current {
		c.End(now, vip, holder)
	}
}

// Check returns the judgement of everything up to now, holds that have not ended
// included.
func (c *HoldChecker) Check(now time.Duration) Report {
	rep := Report{Violations: slices.Clone(c.past), Answers: c.counts}
	for vip, holders := range c.current {
		for a := range holders {
			for b := range holders {
				if v, bad := c.overlap(now, vip, a, b); bad && a < b {
					rep.Violations = append(rep.Violations, v)
				}
			}
		}
	}
	slices.SortStableFunc(rep.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.From, b.From), a.VIP.Compare(b.VIP), slices.Compare(a.Holders[:], b.Holders[:]))
	})
	rep.Overlap = total(rep.Violations)
	return rep
}

func (c *HoldChecker) overlap(now time.Duration, vip netip.Addr, a, b string) (Violation, bool) {
	v := Violation{VIP: vip, Holders: [2]string{a, b}, From: max(c.current[vip][a], c.current[vip][b]), To: now}
	slices.Sort(v.Holders[:])
	return v, a != b && v.From < v.To
}
