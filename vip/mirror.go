package vip

import (
	"bytes"
	"net/netip"
	"slices"
	"sync/atomic"
)

// A mirror is the last known state of the kernel's links and addresses, indexed so
// that a takeover of a thousand addresses needs no dump and no search. It may lag
// behind: every action that relies on it gets an error it can handle (ErrExists,
// ErrGone) where the kernel has gone on.
type mirror struct {
	links  map[int]*mirrorLink
	byName map[string]int
}

type mirrorLink struct {
	Link  // Addresses is not used
	addrs map[netip.Addr][]KernelAddress
	// others are those that are not marked as ours; version is another number whenever
	// they are other ones.
	others  []KernelAddress
	version uint64
	// order is larger the further back an IPv4 address stands in the kernel's list,
	// whose first fitting one is the source of what the machine sends.
	order map[netip.Prefix]uint64
}

// versions numbers what mirrors hold, so that nothing of an older mirror is taken
// for that of a newer one.
var versions atomic.Uint64

func newMirrorLink() *mirrorLink {
	return &mirrorLink{addrs: map[netip.Addr][]KernelAddress{}, order: map[netip.Prefix]uint64{}, version: versions.Add(1)}
}

func newMirror(links []Link) *mirror {
	m := &mirror{links: map[int]*mirrorLink{}, byName: map[string]int{}}
	for _, l := range links {
		m.setLink(l)
		for _, a := range l.Addresses {
			m.add(l.Index, a)
		}
	}
	return m
}

// link returns the link of that name, or nil.
func (m *mirror) link(name string) *mirrorLink {
	i, ok := m.byName[name]
	if !ok {
		return nil
	}
	return m.links[i]
}

// apply takes over an event other than Snapshot. changed is false if all of it was
// known. doubt is true if the neighbours of the link may have to be told again
// where our addresses are: it is running again, or has another hardware address.
func (m *mirror) apply(e Event) (changed, doubt bool) {
	switch e.Kind {
	case LinkChanged:
		return true, m.setLink(e.Link)
	case LinkRemoved:
		if l := m.links[e.Link.Index]; l != nil {
			delete(m.links, e.Link.Index)
			if m.byName[l.Name] == e.Link.Index {
				delete(m.byName, l.Name)
			}
		}
		return true, false
	case ForwardingChanged:
		if l := m.links[e.Link.Index]; l != nil {
			l.Forwards6 = e.Link.Forwards6
		}
		return false, false // it matters for the next announcement only
	case AddressAdded:
		if l := m.links[e.Link.Index]; l != nil && slices.Contains(l.addrs[e.Address.Prefix.Addr()], e.Address) {
			return false, false
		}
		m.add(e.Link.Index, e.Address)
		return true, false
	case AddressRemoved:
		if !m.has(e.Link.Index, e.Address.Prefix) {
			return false, false
		}
		m.remove(e.Link.Index, e.Address.Prefix)
		return true, false
	}
	return false, false
}

// doubts returns the links of next that neighbours may have to be told about again,
// compared with m.
func (m *mirror) doubts(next *mirror) (links []int) {
	for i, n := range next.links {
		l := m.links[i]
		if n.Running && (l == nil || !l.Running || !bytes.Equal(l.MAC, n.MAC)) {
			links = append(links, i)
		}
	}
	return links
}

func (m *mirror) setLink(n Link) (doubt bool) {
	n.Addresses = nil
	l := m.links[n.Index]
	if l == nil {
		l = newMirrorLink()
		m.links[n.Index] = l
		doubt = n.Running
	} else {
		doubt = n.Running && (!l.Running || !bytes.Equal(l.MAC, n.MAC))
		if l.Name != n.Name && m.byName[l.Name] == n.Index {
			delete(m.byName, l.Name)
		}
	}
	l.Link = n
	m.byName[n.Name] = n.Index
	return doubt
}

func (m *mirror) add(link int, a KernelAddress) {
	l := m.links[link]
	if l == nil {
		return
	}
	order, had := l.order[a.Prefix]
	m.remove(link, a.Prefix)
	// A link often has one address with this IP, so the slice stays short.
	l.addrs[a.Prefix.Addr()] = append(l.addrs[a.Prefix.Addr()], a)
	if a.Protocol != AddrProtocol {
		l.others = append(l.others, a)
		l.version = versions.Add(1)
	}
	if a.Prefix.Addr().Is4() {
		if !had { // else it was written anew where it stands
			order = versions.Add(1)
		}
		l.order[a.Prefix] = order
	}
}

func (m *mirror) remove(link int, p netip.Prefix) {
	l := m.links[link]
	if l == nil {
		return
	}
	is := func(a KernelAddress) bool { return a.Prefix == p }
	have, ok := l.addrs[p.Addr()]
	if !ok {
		return
	}
	if have = slices.DeleteFunc(have, is); len(have) == 0 {
		delete(l.addrs, p.Addr())
	} else {
		l.addrs[p.Addr()] = have
	}
	delete(l.order, p)
	if slices.ContainsFunc(l.others, is) {
		l.others = slices.DeleteFunc(l.others, is)
		l.version = versions.Add(1)
	}
}

// has reports whether exactly this address is on the link.
func (m *mirror) has(link int, p netip.Prefix) bool {
	l := m.links[link]
	return l != nil && slices.ContainsFunc(l.addrs[p.Addr()], func(a KernelAddress) bool { return a.Prefix == p })
}
