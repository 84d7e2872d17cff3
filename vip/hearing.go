package vip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// A Hearer tells on which links another machine has been heard since the link last
// began to run. A port of a switch that does not forward yet (spanning tree: up to 30 s)
// swallows what is sent, and nothing is heard on it.
type Hearer interface {
	// Heard reports whether that is so. It is true for a link that nobody listens on.
	Heard(link int) bool
	// Forget says that the link has just begun to run. It may not wait for anything.
	Forget(link int)
	// Tell has f called, from any goroutine, each time something is heard on a link for
	// the first time.
	Tell(f func(link int))
}

// Settle is how long a link may be silent after it has begun to run before that is
// taken for how it is: longer than a spanning tree takes by default.
const Settle = 40 * time.Second

// Hearing is the Hearer of this network namespace. It listens on the links that Follow
// names, and only until something is heard there.
type Hearing struct {
	log    *slog.Logger
	now    func() time.Duration
	listen func(ctx context.Context, l Link, ask netip.Addr) error

	mu     sync.Mutex
	ask    map[string]netip.Addr // followed links by name
	links  map[int]*heardLink
	tell   []func(int)
	change chan struct{}
}

var _ Hearer = (*Hearing)(nil)

type heardLink struct {
	Link
	since time.Duration // it began to run
	heard bool
	stop  context.CancelFunc // of the listener; nil if there is none
}

// NewHearing returns a Hearing that follows no link. log may be nil.
func NewHearing(log *slog.Logger) *Hearing {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Hearing{log: log, now: boottime.Now, listen: listenOnce, links: map[int]*heardLink{}, change: make(chan struct{}, 1)}
}

// Follow sets the links to listen on, by name, each with an address to ask for, as
// its owner answers; an invalid one where nothing is to be sent. It never blocks.
func (h *Hearing) Follow(ask map[string]netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ask = ask
	h.wake()
}

// wake is called with mu held.
func (h *Hearing) wake() {
	select {
	case h.change <- struct{}{}:
	default:
	}
}

// Heard implements Hearer.
func (h *Hearing) Heard(link int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[link]
	return l == nil || l.heard || !h.follows(l)
}

// follows is called with mu held.
func (h *Hearing) follows(l *heardLink) bool {
	_, ok := h.ask[l.Name]
	return ok && l.announceable()
}

// Forget implements Hearer.
func (h *Hearing) Forget(link int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.links[link]; l != nil {
		l.heard, l.since = false, h.now()
		h.wake()
	}
}

// Tell implements Hearer.
func (h *Hearing) Tell(f func(int)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell = append(h.tell, f)
}

// Settling says which of the links that are asked on have begun to run less than
// Settle ago and are silent yet, or "". One that does not run counts: whoever asks may
// have heard already that it has come up.
func (h *Hearing) Settling() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	settled := map[string]bool{}
	for _, l := range h.links {
		settled[l.Name] = !h.follows(l) || l.Running && (l.heard || h.now()-l.since >= Settle)
	}
	var names []string
	for name, ask := range h.ask {
		if ask.IsValid() && !settled[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "has heard nobody yet on " + strings.Join(names, ", ") + ", which has just come up"
}

// Run listens until ctx ends.
func (h *Hearing) Run(ctx context.Context, host Host) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		for ctx.Err() == nil {
			if err := host.Watch(ctx, h.observe); err != nil {
				h.log.Error("watching links fails", "reason", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	for {
		h.mu.Lock()
		for _, l := range h.links {
			switch wanted := l.Running && !l.heard && h.follows(l); {
			case wanted && l.stop == nil:
				listening, stop := context.WithCancel(ctx)
				l.stop = stop
				link, ask := l.Link, h.ask[l.Name]
				all.Go(func() { h.hear(listening, link, ask) })
			case !wanted && l.stop != nil:
				l.stop()
				l.stop = nil
			}
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-h.change:
		}
	}
}

// observe takes over one event of the kernel.
func (h *Hearing) observe(ev Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch ev.Kind {
	case Snapshot:
		for i, l := range h.links {
			if !slices.ContainsFunc(ev.Links, func(n Link) bool { return n.Index == i }) {
				h.drop(l)
			}
		}
		for _, n := range ev.Links {
			h.set(n)
		}
	case LinkChanged:
		h.set(ev.Link)
	case LinkRemoved:
		if l := h.links[ev.Link.Index]; l != nil {
			h.drop(l)
		}
	default:
		return
	}
	h.wake()
}

// drop is called with mu held.
func (h *Hearing) drop(l *heardLink) {
	if l.stop != nil {
		l.stop()
	}
	delete(h.links, l.Index)
}

// set is called with mu held.
func (h *Hearing) set(n Link) {
	l := h.links[n.Index]
	if l == nil {
		l = &heardLink{since: h.now()}
		h.links[n.Index] = l
	}
	if !l.Running && n.Running {
		l.since = h.now()
	}
	if !n.Running {
		l.heard = false
	}
	n.Addresses = nil
	l.Link = n
}

// hear listens on one link until something is heard or ctx ends.
func (h *Hearing) hear(ctx context.Context, link Link, ask netip.Addr) {
	for told := false; ; {
		err := h.listen(ctx, link, ask)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		if !told && !errors.Is(err, ErrGone) {
			told = true
			h.log.Warn("cannot listen for other machines", "link", link.Name, "reason", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	h.mu.Lock()
	l := h.links[link.Index]
	if ctx.Err() != nil || l == nil {
		h.mu.Unlock()
		return
	}
	l.heard = true
	l.stop()
	l.stop = nil
	tell := slices.Clone(h.tell)
	h.mu.Unlock()
	h.log.Debug("another machine is heard", "link", link.Name)
	for _, f := range tell {
		f(link.Index)
	}
}
