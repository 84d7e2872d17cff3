package place

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
)

// Sites remembers where addresses were placed on this node, so that they stay there
// when it is not clear any more. The nil sites remember nothing.
type Sites struct {
	mu   sync.Mutex
	last map[site]vip.Site
	now  func() time.Duration // nil means boottime.Now
}

// A site is an address of an instance, with what the cluster and the file say of its
// interface: another one is placed anew.
type site struct {
	instance   string
	prefix     netip.Prefix
	dev, iface string
}

func (s *Sites) resolve(instance string, prefix netip.Prefix, dev, iface string, links []vip.Link) (link, warning string, err error) {
	if s == nil {
		link, err = vip.Resolve(prefix, dev, iface, links)
		return link, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now
	if now == nil {
		now = boottime.Now
	}
	key := site{instance, prefix, dev, iface}
	next, warning, err := s.last[key].Resolve(now(), prefix, dev, iface, links)
	switch {
	case err == nil:
		if s.last == nil {
			s.last = make(map[site]vip.Site)
		}
		s.last[key] = next
	case !errors.Is(err, vip.ErrNoLink): // its keeper waits for the link
		delete(s.last, key)
	}
	return next.Link, warning, err
}

// until returns when to place again though nothing has changed, and 0 for never.
func (s *Sites) until() (at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, last := range s.last {
		if u := last.Until(); u > 0 && (at == 0 || u < at) {
			at = u
		}
	}
	return at
}

// forget forgets the addresses that are not among those placed.
func (s *Sites) forget(places []Placement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) <= 2*len(places)+16 {
		return
	}
	type address struct {
		instance string
		prefix   netip.Prefix
	}
	kept := make(map[address]bool, len(places))
	for _, p := range places {
		kept[address{p.Instance, p.Address.Prefix}] = true
	}
	for key := range s.last {
		if !kept[address{key.instance, key.prefix}] {
			delete(s.last, key)
		}
	}
}
