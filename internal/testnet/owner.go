package testnet

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Owners asks, from outside, who answers for the address now: three questions,
// 1 ms apart. The names are in the order of the first answer.
func (l *Lab) Owners(vip netip.Addr) ([]string, error) {
	p, err := l.StartProber(ProberOptions{VIPs: []netip.Addr{vip}})
	if err != nil {
		return nil, fmt.Errorf("ask who has %v: %w", vip, err)
	}
	for end := time.Now().Add(time.Second); p.Stats().Probes < 4 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	p.Stop()
	var names []string
	seen := map[string]bool{}
	for _, a := range p.Answers() {
		if !seen[a.Holder] {
			seen[a.Holder] = true
			names = append(names, a.Holder)
		}
	}
	return names, nil
}

// Owner returns the one host that answers for the address now, or an error that
// says whether none or several do.
func (l *Lab) Owner(vip netip.Addr) (*Host, error) {
	names, err := l.Owners(vip)
	if err != nil {
		return nil, err
	}
	if len(names) != 1 {
		return nil, fmt.Errorf("%d hosts answer for %v %v: must be one", len(names), vip, names)
	}
	for _, h := range l.allHosts() {
		if h.name == names[0] {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%v is answered for by %s: no host's own address", vip, names[0])
}

// WaitOwner waits until exactly one host answers for the address, and returns it.
// With hosts named, it must be one of them.
func (l *Lab) WaitOwner(ctx context.Context, vip netip.Addr, want ...*Host) (*Host, error) {
	var owner *Host
	err := WaitFor(ctx, fmt.Sprintf("one owner of %v %v", vip, want), func() error {
		h, err := l.Owner(vip)
		if err != nil {
			return err
		}
		for _, w := range want {
			if w == h {
				want = nil
				break
			}
		}
		if len(want) > 0 {
			return fmt.Errorf("it is %s", h)
		}
		owner = h
		return nil
	})
	return owner, err
}
