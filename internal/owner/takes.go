package owner

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
)

// takePatience is how long an address of an owner may fail to be up before that
// counts: the keeper tries again after 10 ms, 20, 40 and so on, and what passes by
// itself is no reason to move.
const takePatience = 500 * time.Millisecond

// announceTries is the number of announcements that have to fail in a row to count.
const announceTries = 3

// takes watches how many of the group's addresses this node has up, or could put up.
// It belongs to the owner's loop.
type takes struct {
	memory policy.Takes
	now    policy.Take // as last told
	// foreign are others' copies of the addresses, as last seen.
	foreign []vip.AddressStatus
	// notRemoved is how many addresses cannot be taken off the kernel.
	notRemoved int
	// unsettled: some address is not up and still has time for it; look again at.
	unsettled time.Duration
	// missed is since when an owner's addresses have been seen not to be up.
	missed map[netip.Addr]time.Duration

	// cause is kept until what it was made of is replaced.
	cause string
	addrs []vip.Address
	links []vip.Link

	// What was looked at last, and until when that is good enough: to ask the keeper
	// about a thousand addresses takes its lock.
	owned bool
	kept  <-chan struct{}
	until time.Duration
}

// same tells whether two slices are one: nobody changes the elements of those that
// are compared here.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// takesPeriod is how often the addresses are looked at though no change was told.
const takesPeriod = time.Second

// look judges the addresses as the keeper and the interfaces show them.
func (t *takes) look(now time.Duration, owns bool, addrs []vip.Address, links []vip.Link, keeper Keeper) {
	changed := keeper.Changed()
	known := same(t.addrs, addrs) && same(t.links, links)
	if known && owns == t.owned && changed == t.kept && now < t.until {
		return
	}
	if !known {
		t.addrs, t.links, t.cause = addrs, links, causeOf(addrs, links)
	}
	t.owned, t.kept = owns, changed
	st := keeper.Status()
	kept := st.Addresses
	t.notRemoved = st.NotRemoved
	var seen policy.Take
	if owns {
		seen = t.taken(now, links, kept, keeper.Waits)
	} else {
		seen, t.unsettled, t.missed = foreseen(addrs, links, kept), 0, nil
	}
	t.memory, t.now = t.memory.Look(now, owns, t.cause, seen)
	t.foreign = foreignCopies(kept)
	t.until = now + takesPeriod
	if t.unsettled > 0 {
		t.until = min(t.until, t.unsettled)
	}
}

// hint is what others are to know, nil if nothing is wrong.
func (t *takes) hint() *policy.Take {
	if t.now.Missing == 0 {
		return nil
	}
	take := t.now
	return &take
}

// causeOf is a text that changes when a take that failed is worth another try: other
// addresses are wanted, or their interfaces are in another state.
func causeOf(addrs []vip.Address, links []vip.Link) string {
	var b strings.Builder
	used := make(map[string]bool)
	for _, a := range addrs {
		fmt.Fprintf(&b, "%s@%s ", a.Prefix.Addr(), a.Link)
		used[a.Link] = true
	}
	for _, l := range links {
		if used[l.Name] {
			fmt.Fprintf(&b, "%d %s %v %v %v;", l.Index, l.Name, l.Up, l.Running, l.NoIPv6)
		}
	}
	return b.String()
}

// obstacles gathers what is in the way of addresses.
type obstacles struct {
	first string
	n     int
}

func (o *obstacles) add(ip netip.Addr, why string) {
	if o.n++; o.n == 1 {
		o.first = ip.String() + ": " + why
	}
}

func (o obstacles) take(wanted int) policy.Take {
	t := policy.Take{Wanted: wanted, Missing: o.n, Reason: o.first}
	if o.n > 1 {
		t.Reason += fmt.Sprintf(", and %d more", o.n-1)
	}
	return t
}

// taken says which of an owner's addresses are not up, and have had the time for it
// since that was seen first.
func (t *takes) taken(now time.Duration, links []vip.Link, kept []vip.AddressStatus, waits func(netip.Addr) bool) policy.Take {
	var in obstacles
	byName := linksByName(links)
	wanted := 0
	before := t.missed
	t.missed, t.unsettled = make(map[netip.Addr]time.Duration), 0
	for _, a := range kept {
		ip := a.Prefix.Addr()
		if !a.Wanted || waits(ip) {
			continue
		}
		wanted++
		why := Hindrance(a)
		if l, ok := byName[a.Link]; why == "" && ok && lacksCarrier(l) {
			why = "interface " + a.Link + " is down"
		}
		if why == "" {
			continue
		}
		since, known := before[ip]
		if !known {
			since = now
		}
		t.missed[ip] = since
		switch until := since + takePatience; {
		case now < until && !a.Contested && !a.Up():
			if t.unsettled == 0 || until < t.unsettled {
				t.unsettled = until
			}
		case a.State == vip.StateWaiting && !a.Unguarded: // which is the lease's business
		default:
			in.add(ip, why)
		}
	}
	return in.take(wanted)
}

// lacksCarrier reports whether nothing would leave a link. One with a virtual MAC
// (RFC 9568 7.3) is made and taken up only when its virtual router is master.
func lacksCarrier(l vip.Link) bool {
	virtual := len(l.MAC) == 6 && [4]byte(l.MAC) == [4]byte{0, 0, 0x5e, 0} && (l.MAC[4] == 1 || l.MAC[4] == 2)
	return !l.Running && !virtual
}

// coming reports whether some address of an owner is not up, and nothing is known to
// be in the way.
func coming(kept []vip.AddressStatus, waits func(netip.Addr) bool) bool {
	return slices.ContainsFunc(kept, func(a vip.AddressStatus) bool {
		return a.Wanted && !a.Up() && a.Err == nil && (a.Why == "" || a.State == vip.StateWaiting) && !waits(a.Prefix.Addr())
	})
}

// Hindrance says why an owner's address does not serve as it should, or "".
func Hindrance(a vip.AddressStatus) string {
	switch {
	case a.Contested:
		return a.Why
	case !a.Up() && a.Err != nil:
		return strings.TrimPrefix(a.Err.Error(), "add "+a.Prefix.String()+": ")
	case !a.Up() && a.Why != "":
		return a.Why
	case !a.Up():
		return "it is not there yet"
	case a.AnnounceErr != nil && a.AnnounceFailures >= announceTries:
		return a.AnnounceErr.Error()
	}
	return ""
}

func linksByName(links []vip.Link) map[string]vip.Link {
	byName := make(map[string]vip.Link, len(links))
	for _, l := range links {
		byName[l.Name] = l
	}
	return byName
}

// foreseen says which addresses would not come up here, by what can be seen without
// a take. What is not known to fail is tried.
func foreseen(addrs []vip.Address, links []vip.Link, kept []vip.AddressStatus) policy.Take {
	var in obstacles
	byName := linksByName(links)
	foreign := make(map[netip.Addr]string)
	for _, a := range kept {
		if a.Wanted && a.Foreign.IsValid() && (!a.Silent || a.Mute != "") {
			foreign[a.Prefix.Addr()] = a.Why
		}
	}
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		l, ok := byName[a.Link]
		switch why := foreign[ip]; {
		case why != "":
			in.add(ip, why)
		case !ok: // a fault, or a link that comes with the mastership
		case ip.Is6() && l.NoIPv6:
			in.add(ip, "IPv6 is disabled on "+a.Link+" (net.ipv6.conf."+a.Link+".disable_ipv6)")
		case lacksCarrier(l):
			in.add(ip, "interface "+a.Link+" is down")
		}
	}
	return in.take(len(addrs))
}

// maxForeign bounds what a node tells of others' copies.
const maxForeign = 16

// foreignCopies are those among the addresses, the ones that answer first.
func foreignCopies(kept []vip.AddressStatus) []vip.AddressStatus {
	var out []vip.AddressStatus
	for _, a := range kept {
		if a.Wanted && a.Foreign.IsValid() {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b vip.AddressStatus) int {
		switch {
		case a.Silent == b.Silent:
			return 0
		case a.Silent:
			return 1
		}
		return -1
	})
	return out[:min(len(out), maxForeign)]
}
