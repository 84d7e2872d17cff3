// Package viptest has doubles of what package vip needs from the kernel: a Host, a
// Guard and an Announcer that write what happens to them into one Trace, so that a
// test can judge the order. They work inside a testing/synctest bubble.
package viptest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// A Trace is a list of what happened, in order. The zero value is ready for use.
type Trace struct {
	mu     sync.Mutex
	events []string
}

// Addf appends one line.
func (t *Trace) Addf(format string, args ...any) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, fmt.Sprintf(format, args...))
}

// Take returns the lines so far and forgets them.
func (t *Trace) Take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.events
	t.events = nil
	return e
}

// Count returns the number of lines so far that start with prefix.
func (t *Trace) Count(prefix string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, e := range t.events {
		if strings.HasPrefix(e, prefix) {
			n++
		}
	}
	return n
}

// A Guard remembers what is armed and the deadlines. Lines: "arm IP,IP",
// "disarm IP,IP", "move GROUP GROUP IP,IP"; deadlines are not traced. As the real one it
// refuses what belongs to another group.
type Guard struct {
	Trace *Trace

	mu        sync.Mutex
	armed     map[netip.Addr]uint32
	deadlines map[uint32]time.Duration
	armErr    error
	groupErr  map[uint32]error
	moveErr   error
	bad       map[int]error
	settled   func(group uint32)
}

var _ vip.Guard = (*Guard)(nil)

// Arm implements vip.Guard.
func (g *Guard) Arm(group uint32, addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := cmp.Or(g.armErr, g.groupErr[group]); err != nil {
		return err
	}
	if err := g.others(group, addrs); err != nil {
		return err
	}
	g.Trace.Addf("arm %s", join(addrs))
	if g.armed == nil {
		g.armed = map[netip.Addr]uint32{}
	}
	for _, a := range addrs {
		g.armed[a] = group
	}
	return nil
}

// Disarm implements vip.Guard.
func (g *Guard) Disarm(group uint32, addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.others(group, addrs); err != nil {
		return err
	}
	g.Trace.Addf("disarm %s", join(addrs))
	for _, a := range addrs {
		delete(g.armed, a)
	}
	return nil
}

// others returns an error if one of the addresses belongs to another group.
func (g *Guard) others(group uint32, addrs []netip.Addr) error {
	for _, a := range addrs {
		if have, ok := g.armed[a]; ok && have != group {
			return fmt.Errorf("%s belongs to group %d, not %d", a, have, group)
		}
	}
	return nil
}

// Move implements vip.Guard.
func (g *Guard) Move(from, to uint32, addrs []netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.moveErr != nil {
		return g.moveErr
	}
	for _, a := range addrs {
		if have, ok := g.armed[a]; !ok || have != from && have != to {
			return fmt.Errorf("%s does not belong to group %d", a, from)
		}
	}
	g.Trace.Addf("move %d %d %s", from, to, join(addrs))
	for _, a := range addrs {
		g.armed[a] = to
	}
	return nil
}

// Group returns the group that an address is armed for.
func (g *Guard) Group(a netip.Addr) (group uint32, armed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	group, armed = g.armed[a]
	return group, armed
}

// SetDeadline implements vip.Guard.
func (g *Guard) SetDeadline(group uint32, sinceBoot time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deadlines == nil {
		g.deadlines = map[uint32]time.Duration{}
	}
	g.deadlines[group] = sinceBoot
}

// Settle calls what OnSettle has set.
func (g *Guard) Settle(group uint32) {
	g.mu.Lock()
	settled := g.settled
	g.mu.Unlock()
	if settled != nil {
		settled(group)
	}
}

// OnSettle sets what Settle waits for.
func (g *Guard) OnSettle(f func(group uint32)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled = f
}

// Hold implements vip.Guard.
func (g *Guard) Hold(links []int) (map[int]error, func()) { return g.Attached(links), func() {} }

// Attached implements vip.Guard.
func (g *Guard) Attached(links []int) map[int]error {
	g.mu.Lock()
	defer g.mu.Unlock()
	bad := map[int]error{}
	for _, l := range links {
		if err := g.bad[l]; err != nil {
			bad[l] = err
		}
	}
	return bad
}

// Detach makes the guard be missing on a link, with the reason; nil attaches it
// again.
func (g *Guard) Detach(link int, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bad == nil {
		g.bad = map[int]error{}
	}
	g.bad[link] = why
}

// Deadline returns the stored deadline of the group.
func (g *Guard) Deadline(group uint32) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadlines[group]
}

// Armed returns the armed addresses, sorted.
func (g *Guard) Armed() []netip.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	var addrs []netip.Addr
	for a := range g.armed {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// FailArm makes Arm return err, nil for no longer.
func (g *Guard) FailArm(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armErr = err
}

// FailArmGroup makes Arm for one group return err, nil for no longer.
func (g *Guard) FailArmGroup(group uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groupErr == nil {
		g.groupErr = map[uint32]error{}
	}
	g.groupErr[group] = err
}

// FailMove makes Move return err, nil for no longer.
func (g *Guard) FailMove(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moveErr = err
}

func join(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

// An Announcer traces "announce IP LINK".
type Announcer struct {
	Trace *Trace
	// Hook, if not nil, is called with each announcement; its error is returned and
	// then nothing is traced. Set it before use.
	Hook func(link vip.Link, addr netip.Addr) error
}

var _ vip.Announcer = (*Announcer)(nil)

// Announce implements vip.Announcer.
func (a *Announcer) Announce(link vip.Link, addr netip.Addr) error {
	if a.Hook != nil {
		if err := a.Hook(link, addr); err != nil {
			return err
		}
	}
	a.Trace.Addf("announce %s %s", addr, link.Name)
	return nil
}
