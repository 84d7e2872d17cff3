package viptest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// A Host is a kernel with links and addresses in memory. Lines in its Trace: "add
// PREFIX LINK", "refresh PREFIX LINK", "delete PREFIX LINK", each only if it
// succeeded.
type Host struct {
	Trace *Trace
	// NoMarks makes it a kernel that does not keep the address protocol number. Set
	// it before use.
	NoMarks bool
	// Delay is how long each change takes. Set it before use.
	Delay time.Duration
	// BeforeBatch, if not nil, is called with what each Change is about to do. Set it
	// before use.
	BeforeBatch func([]vip.Change)

	mu       sync.Mutex
	links    []vip.Link
	next     int
	watchers map[*watcher]struct{}
	watches  int // calls of Watch
	fail     func(op string, link int, p netip.Prefix) error
	sneak    func()
	expiry   map[string]*time.Timer
}

type watcher struct {
	mu     sync.Mutex
	events []vip.Event
	ready  chan struct{} // cap 1
}

func (w *watcher) put(e vip.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

var _ vip.Host = (*Host)(nil)

// NewHost returns a host with a running Ethernet link of each name.
func NewHost(trace *Trace, links ...string) *Host {
	h := &Host{Trace: trace, watchers: map[*watcher]struct{}{}, expiry: map[string]*time.Timer{}}
	for _, name := range links {
		h.AddLink(name)
	}
	return h
}

// AddLink makes a running link and returns its index.
func (h *Host) AddLink(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	l := vip.Link{Index: h.next, Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(h.next)}, Up: true, Running: true}
	h.links = append(h.links, l)
	h.tell(vip.Event{Kind: vip.LinkChanged, Link: l})
	return h.next
}

// RemoveLink removes a link with its addresses.
func (h *Host) RemoveLink(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.links, func(l vip.Link) bool { return l.Name == name })
	l := h.links[i]
	for _, a := range l.Addresses {
		h.tell(vip.Event{Kind: vip.AddressRemoved, Link: vip.Link{Index: l.Index}, Address: seen(a)})
	}
	h.links = slices.Delete(h.links, i, i+1)
	h.tell(vip.Event{Kind: vip.LinkRemoved, Link: vip.Link{Index: l.Index}})
}

// ChangeLink changes a link. As in the kernel, its IPv6 addresses go when it is
// taken down.
func (h *Host) ChangeLink(name string, change func(*vip.Link)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.byName(name)
	up := l.Up
	change(l)
	e := *l
	e.Addresses = nil
	h.tell(vip.Event{Kind: vip.LinkChanged, Link: e})
	if up && !l.Up {
		for _, a := range slices.Clone(l.Addresses) {
			if a.Prefix.Addr().Is6() {
				h.remove(l, a.Prefix)
			}
		}
	}
}

// Configure puts an address on the link by someone else's hand.
func (h *Host) Configure(link, prefix string) {
	h.ConfigureAs(link, prefix, 0)
}

// ConfigureAs is Configure with an address protocol number.
func (h *Host) ConfigureAs(link, prefix string, protocol uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.byName(link)
	p := netip.MustParsePrefix(prefix)
	h.put(l, vip.KernelAddress{Prefix: p, Subnet: p.Masked(), Protocol: protocol})
}

// Unconfigure takes an address off the link by someone else's hand.
func (h *Host) Unconfigure(link, prefix string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(h.byName(link), netip.MustParsePrefix(prefix))
}

// Has returns the addresses of the link, sorted by text.
func (h *Host) Has(link string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var s []string
	if l := h.byName(link); l != nil {
		for _, a := range l.Addresses {
			s = append(s, a.Prefix.String())
		}
	}
	slices.Sort(s)
	return s
}

// Address returns an address of the link as it was added, and false if there is
// none.
func (h *Host) Address(link, prefix string) (vip.KernelAddress, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.byName(link); l != nil {
		for _, a := range l.Addresses {
			if a.Prefix.String() == prefix {
				return a, true
			}
		}
	}
	return vip.KernelAddress{}, false
}

// Fail sets a function that is asked before each change ("add", "refresh",
// "delete") and before "links"; an error it returns is the result. Nil for none.
func (h *Host) Fail(f func(op string, link int, p netip.Prefix) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = f
}

// BeforeAdd puts an address on the link at the moment of the next add, so
// that the caller of that has had no chance to hear of it.
func (h *Host) BeforeAdd(link, prefix string, protocol uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sneak = func() {
		p := netip.MustParsePrefix(prefix)
		h.put(h.byName(link), vip.KernelAddress{Prefix: p, Subnet: p.Masked(), Protocol: protocol})
	}
}

// Links implements vip.Host.
func (h *Host) Links() ([]vip.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.asked("links", 0, netip.Prefix{}); err != nil {
		return nil, err
	}
	return h.snapshot(), nil
}

func (h *Host) snapshot() []vip.Link {
	var links []vip.Link
	for _, l := range h.links {
		addrs := l.Addresses
		l.Addresses = nil
		for _, a := range addrs {
			l.Addresses = append(l.Addresses, seen(a))
		}
		links = append(links, l)
	}
	return links
}

// Change implements vip.Host.
func (h *Host) Change(changes []vip.Change) []error {
	if h.BeforeBatch != nil {
		h.BeforeBatch(changes)
	}
	var errs []error
	for i, c := range changes {
		if err := h.change(c); err != nil {
			if errs == nil {
				errs = make([]error, len(changes))
			}
			errs[i] = err
		}
	}
	return errs
}

var verbs = map[vip.ChangeKind]string{vip.AddAddress: "add", vip.RefreshAddress: "refresh", vip.DeleteAddress: "delete"}

func (h *Host) change(c vip.Change) error {
	if h.Delay > 0 {
		time.Sleep(h.Delay)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	op, a := verbs[c.Kind], c.Address
	if err := h.asked(op, c.Link, a.Prefix); err != nil {
		return err
	}
	i := slices.IndexFunc(h.links, func(l vip.Link) bool { return l.Index == c.Link })
	if i < 0 {
		return fmt.Errorf("%s %s: %w", op, a.Prefix, vip.ErrGone)
	}
	l := &h.links[i]
	switch c.Kind {
	case vip.AddAddress:
		if h.sneak != nil {
			h.sneak()
			h.sneak = nil
		}
		if slices.ContainsFunc(l.Addresses, same(a.Prefix)) {
			return fmt.Errorf("add %s: %w", a.Prefix, vip.ErrExists)
		}
		h.put(l, a)
	case vip.RefreshAddress:
		h.put(l, a)
	case vip.DeleteAddress:
		if !h.remove(l, a.Prefix) {
			return fmt.Errorf("delete %s: %w", a.Prefix, vip.ErrGone)
		}
	default:
		panic(fmt.Sprintf("change of kind %d", c.Kind))
	}
	h.Trace.Addf("%s %s %s", op, a.Prefix, l.Name)
	return nil
}

// Watch implements vip.Host.
func (h *Host) Watch(ctx context.Context, sink func(vip.Event)) error {
	w := &watcher{ready: make(chan struct{}, 1)}
	h.mu.Lock()
	w.put(vip.Event{Kind: vip.Snapshot, Links: h.snapshot()})
	h.watchers[w] = struct{}{}
	h.watches++
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.ready:
		}
		w.mu.Lock()
		events := w.events
		w.events = nil
		w.mu.Unlock()
		for _, e := range events {
			sink(e)
		}
	}
}

// Watches returns how often Watch was called.
func (h *Host) Watches() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watches
}

// Marks implements vip.Host.
func (h *Host) Marks() bool { return !h.NoMarks }

func (h *Host) asked(op string, link int, p netip.Prefix) error {
	if h.fail == nil {
		return nil
	}
	return h.fail(op, link, p)
}

func (h *Host) byName(name string) *vip.Link {
	for i := range h.links {
		if h.links[i].Name == name {
			return &h.links[i]
		}
	}
	return nil
}

func (h *Host) put(l *vip.Link, a vip.KernelAddress) {
	if h.NoMarks {
		a.Protocol = 0
	}
	if i := slices.IndexFunc(l.Addresses, same(a.Prefix)); i >= 0 {
		l.Addresses[i] = a // where it stands, as in the kernel
	} else {
		l.Addresses = append(l.Addresses, a)
	}
	h.tell(vip.Event{Kind: vip.AddressAdded, Link: vip.Link{Index: l.Index}, Address: seen(a)})

	id := fmt.Sprint(l.Index, a.Prefix)
	if t := h.expiry[id]; t != nil {
		t.Stop()
		delete(h.expiry, id)
	}
	if a.Lifetime > 0 {
		name := l.Name
		h.expiry[id] = time.AfterFunc(a.Lifetime, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if l := h.byName(name); l != nil && h.remove(l, a.Prefix) {
				h.Trace.Addf("expire %s %s", a.Prefix, name)
			}
		})
	}
}

func (h *Host) remove(l *vip.Link, p netip.Prefix) bool {
	i := slices.IndexFunc(l.Addresses, same(p))
	if i < 0 {
		return false
	}
	a := l.Addresses[i]
	l.Addresses = slices.Delete(l.Addresses, i, i+1)
	id := fmt.Sprint(l.Index, p)
	if t := h.expiry[id]; t != nil {
		t.Stop()
		delete(h.expiry, id)
	}
	h.tell(vip.Event{Kind: vip.AddressRemoved, Link: vip.Link{Index: l.Index}, Address: seen(a)})
	return true
}

func (h *Host) tell(e vip.Event) {
	for w := range h.watchers {
		w.put(e)
	}
}

func same(p netip.Prefix) func(vip.KernelAddress) bool {
	return func(a vip.KernelAddress) bool { return a.Prefix == p }
}

// seen is an address as the kernel lists it.
func seen(a vip.KernelAddress) vip.KernelAddress {
	return vip.KernelAddress{Prefix: a.Prefix, Subnet: a.Prefix.Masked(), Protocol: a.Protocol}
}
