package viptest

import (
	"sync"

	"github.com/raftvip/raftvip/vip"
)

// A Hearer is a network that is silent until Hear. The zero value is ready.
type Hearer struct {
	mu    sync.Mutex
	heard map[int]bool
	tell  []func(int)
}

var _ vip.Hearer = (*Hearer)(nil)

// Heard implements vip.Hearer.
func (h *Hearer) Heard(link int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard[link]
}

// Forget implements vip.Hearer.
func (h *Hearer) Forget(link int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.heard, link)
}

// Tell implements vip.Hearer.
func (h *Hearer) Tell(f func(int)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell = append(h.tell, f)
}

// Hear has another machine heard on a link.
func (h *Hearer) Hear(link int) {
	h.mu.Lock()
	if h.heard == nil {
		h.heard = map[int]bool{}
	}
	h.heard[link] = true
	tell := h.tell
	h.mu.Unlock()
	for _, f := range tell {
		f(link)
	}
}
