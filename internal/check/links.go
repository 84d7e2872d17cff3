package check

import (
	"context"
	"maps"
	"sync"
	"time"
)

// A LinkSource knows which interfaces exist and are up.
type LinkSource interface {
	// Watch calls report with the state of all interfaces by name (true: up) soon
	// after the start, and again after each change, until ctx ends; then it
	// returns nil. It does not call report again after it has returned, and never
	// from two goroutines. It keeps no reference to the map. An error means that
	// it cannot go on; the last state may be out of date from then on.
	Watch(ctx context.Context, report func(up map[string]bool)) error
}

// FakeLinks is a LinkSource for tests, changed by Set and Remove. The zero value
// has no interfaces.
type FakeLinks struct {
	mu      sync.Mutex
	up      map[string]bool
	changed chan struct{} // closed and replaced at each change
}

// NewFakeLinks returns a source in which the given interfaces are up.
func NewFakeLinks(up ...string) *FakeLinks {
	f := &FakeLinks{}
	for _, name := range up {
		f.Set(name, true)
	}
	return f
}

// Set makes the interface exist and be up or down.
func (f *FakeLinks) Set(name string, up bool) {
	f.change(func() {
		if f.up == nil {
			f.up = make(map[string]bool)
		}
		f.up[name] = up
	})
}

// Remove makes the interface not exist.
func (f *FakeLinks) Remove(name string) { f.change(func() { delete(f.up, name) }) }

func (f *FakeLinks) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Watch implements LinkSource.
func (f *FakeLinks) Watch(ctx context.Context, report func(up map[string]bool)) error {
	for {
		f.mu.Lock()
		up := maps.Clone(f.up)
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		report(up)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// update takes over the states in up and returns the new links, the old being
// unchanged, and the names of those that appeared, went, or changed.
func (l links) update(up map[string]bool, now time.Time) (links, []string) {
	next := make(links, len(up))
	var changed []string
	for name, u := range up {
		old, existed := l[name]
		if existed && old.up == u {
			next[name] = old
			continue
		}
		next[name] = linkStatus{up: u, since: now}
		changed = append(changed, name)
	}
	for name := range l {
		if _, exists := up[name]; !exists {
			changed = append(changed, name)
		}
	}
	return next, changed
}
