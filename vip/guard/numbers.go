package guard

import (
	"fmt"
	"sync"
)

// Numbers gives out the numbers of groups, each to one gate at a time: those of ownership
// groups and of virtual routers come from the same. The zero value is ready; the first
// number is 0.
type Numbers struct {
	mu    sync.Mutex
	taken [MaxGroups]bool
}

// Take returns the lowest number that nobody has. It fails if there is none.
func (n *Numbers) Take() (uint32, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, taken := range n.taken {
		if !taken {
			n.taken[i] = true
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("the guard has no number left: ownership groups and instances with vrrp hybrid can be %d together", MaxGroups)
}

// Return gives a number back. Nothing may be armed for it any more, and its gate must
// not store another deadline: as when its vip.Holding has been closed.
func (n *Numbers) Return(number uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[number] = false
}
