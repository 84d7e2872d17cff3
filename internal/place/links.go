package place

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/tick"
	"github.com/raftvip/raftvip/vip"
)

// LinkPoll is how often the interfaces are looked at to place addresses; the
// keeper and the guard follow the kernel's events.
const LinkPoll = 2 * time.Second

// Links are this node's interfaces, without the addresses that raftvip has put there.
type Links struct {
	log  *slog.Logger
	host interface{ Links() ([]vip.Link, error) }

	mu   sync.Mutex
	list []vip.Link
}

// NewLinks makes the list of the host's interfaces. logger may not be nil.
func NewLinks(host interface{ Links() ([]vip.Link, error) }, logger *slog.Logger) *Links {
	return &Links{host: host, log: logger}
}

// Run keeps the list of interfaces fresh, so that a take does not begin with asking the
// kernel for it. It returns when ctx ends.
func (l *Links) Run(ctx context.Context) {
	ticks := tick.New(LinkPoll)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			l.Look()
		case <-ctx.Done():
			return
		}
	}
}

// Look asks the kernel now, and returns nil if it gives no answer.
func (l *Links) Look() []vip.Link {
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
func (l *Links) known() []vip.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

// Current returns the interfaces, at most LinkPoll old, and asks the kernel if they
// never were seen.
func (l *Links) Current() []vip.Link {
	if links := l.known(); links != nil {
		return links
	}
	return l.Look()
}

// MaxMACs bounds the hardware addresses that a node tells.
const MaxMACs = 16

// macsOf are this node's hardware addresses: those of the links that have addresses
// of the cluster, then those of links with any others could use.
func macsOf(on []string, links []vip.Link) []string {
	var macs []string
	for _, virtual := range []bool{true, false} {
		for _, l := range links {
			if len(l.MAC) != 6 || len(macs) >= MaxMACs {
				continue
			}
			own := slices.ContainsFunc(l.Addresses, func(a vip.KernelAddress) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
			if slices.Contains(on, l.Name) == virtual && (virtual || own) {
				macs = addNew(macs, l.MAC.String())
			}
		}
	}
	return macs
}

// frontsOf are the hardware addresses of the interfaces that addresses belong on.
func frontsOf(on []string, links []vip.Link) (macs []string) {
	for _, l := range links {
		if slices.Contains(on, l.Name) && len(l.MAC) == 6 && len(macs) < MaxMACs {
			macs = addNew(macs, l.MAC.String())
		}
	}
	return macs
}
