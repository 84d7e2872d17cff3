// Package guardtest is a guard for the tests of other packages: it records calls and
// knows at any time whether an address would be answered.
package guardtest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Call is one call of a method, in words: "arm 1 [10.0.0.1]", "disarm 1
// [10.0.0.1]", "deadline 1 2s".
type Call string

// A Fake is a guard without a kernel. The zero value is ready.
type Fake struct {
	mu        sync.Mutex
	calls     []Call
	armed     map[netip.Addr]uint32
	deadlines map[uint32]time.Duration
	fail      map[string]error
}

// Arm records the call.
func (f *Fake) Arm(group uint32, addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call(fmt.Sprintf("arm %d %v", group, addrs)))
	if err := f.fail["arm"]; err != nil {
		return err
	}
	for _, a := range addrs {
		if old, ok := f.armed[a.Unmap()]; ok && old != group {
			return fmt.Errorf("guard: arm: %s belongs to group %d, not %d", a, old, group)
		}
		if f.armed == nil {
			f.armed = map[netip.Addr]uint32{}
		}
		f.armed[a.Unmap()] = group
	}
	return nil
}

// Disarm records the call.
func (f *Fake) Disarm(group uint32, addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call(fmt.Sprintf("disarm %d %v", group, addrs)))
	if err := f.fail["disarm"]; err != nil {
		return err
	}
	for _, a := range addrs {
		if old, ok := f.armed[a.Unmap()]; ok && old != group {
			return fmt.Errorf("guard: disarm: %s belongs to group %d, not %d", a, old, group)
		}
		delete(f.armed, a.Unmap())
	}
	return nil
}

// Move records the call.
func (f *Fake) Move(from, to uint32, addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call(fmt.Sprintf("move %d %d %v", from, to, addrs)))
	if err := f.fail["move"]; err != nil {
		return err
	}
	for _, a := range addrs {
		if old, ok := f.armed[a.Unmap()]; !ok || old != from && old != to {
			return fmt.Errorf("guard: move: %s does not belong to group %d", a, from)
		}
		f.armed[a.Unmap()] = to
	}
	return nil
}

// SetDeadline records the call.
func (f *Fake) SetDeadline(group uint32, sinceBoot time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call(fmt.Sprintf("deadline %d %v", group, sinceBoot)))
	if f.deadlines == nil {
		f.deadlines = map[uint32]time.Duration{}
	}
	f.deadlines[group] = sinceBoot
}

// Settle does nothing: what is stored is in force.
func (f *Fake) Settle(uint32) {}

// Hold finds every interface guarded.
func (f *Fake) Hold([]int) (map[int]error, func()) { return nil, func() {} }

// Attached finds every interface guarded.
func (f *Fake) Attached([]int) map[int]error { return nil }

// Fail makes "arm" or "disarm" return err from now on; nil ends it.
func (f *Fake) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.fail = map[string]error{}
	}
	f.fail[method] = err
}

// Calls returns the calls so far and forgets them.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls
	f.calls = nil
	return c
}

// Armed returns the armed addresses of a group, sorted.
func (f *Fake) Armed(group uint32) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []netip.Addr
	for a, g := range f.armed {
		if g == group {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Deadline returns the deadline of a group.
func (f *Fake) Deadline(group uint32) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deadlines[group]
}

// Answers says whether a kernel with this guard would answer for an address that is
// on an interface, at an instant of CLOCK_BOOTTIME: it is not armed, or the deadline
// of its group is ahead.
func (f *Fake) Answers(a netip.Addr, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	group, ok := f.armed[a.Unmap()]
	return !ok || now < f.deadlines[group]
}
