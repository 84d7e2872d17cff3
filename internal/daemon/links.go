package daemon

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// linkPoll is how often the interfaces are looked at to place addresses; the
// keeper and the guard follow the kernel's events.
const linkPoll = 2 * time.Second

// links are this node's interfaces, without the addresses that raftvip has put there.
type links struct {
	log  *slog.Logger
	host interface{ Links() ([]vip.Link, error) }

	mu   sync.Mutex
	list []vip.Link
}

// newLinks makes the list of the host's interfaces. logger may not be nil.
func newLinks(host interface{ Links() ([]vip.Link, error) }, logger *slog.Logger) *links {
	return &links{host: host, log: logger}
}

// run keeps the list of interfaces fresh, so that a take does not begin with asking the
// kernel for it. It returns when ctx ends.
func (l *links) run(ctx context.Context) {
	tick := time.NewTicker(linkPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.look()
		case <-ctx.Done():
			return
		}
	}
}

// look asks the kernel; nil if it gives no answer.
func (l *links) look() []vip.Link {
	links, err := l.host.Links()
	if err != nil {
		l.log.Error("cannot list the interfaces", "error", err)
		return nil
	}
	for i := range links {
		for k := range links[i].Addresses {
			links[i].Addresses[k].Lifetime = 0 // it runs, and nothing here depends on it
		}
		links[i].Addresses = slices.DeleteFunc(links[i].Addresses, func(a vip.KernelAddress) bool { return a.Protocol == vip.AddrProtocol })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil || !reflect.DeepEqual(l.list, links) {
		l.list = links // else what was calculated from them stays good
	}
	return l.list
}

// known returns the interfaces as they were last seen, nil if they never were.
func (l *links) known() []vip.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

// current returns the interfaces, at most linkPoll old, and asks the kernel if they
// never were seen.
func (l *links) current() []vip.Link {
	if links := l.known(); links != nil {
		return links
	}
	return l.look()
}

// maxMACs bounds the hardware addresses that a node tells.
const maxMACs = 16

// macsOf are this node's hardware addresses: those of the links that have addresses
// of the cluster, then those of links with any others could use.
func macsOf(on []string, links []vip.Link) []string {
	var macs []string
	for _, virtual := range []bool{true, false} {
		for _, l := range links {
			if len(l.MAC) != 6 || len(macs) >= maxMACs {
				continue
			}
			own := slices.ContainsFunc(l.Addresses, func(a vip.KernelAddress) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
			if slices.Contains(on, l.Name) == virtual && (virtual || own) {
				macs = appendNew(macs, l.MAC.String())
			}
		}
	}
	return macs
}

// frontsOf are the hardware addresses of the interfaces that addresses belong on.
func frontsOf(on []string, links []vip.Link) (macs []string) {
	for _, l := range links {
		if slices.Contains(on, l.Name) && len(l.MAC) == 6 && len(macs) < maxMACs {
			macs = appendNew(macs, l.MAC.String())
		}
	}
	return macs
}
