package operate

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
)

const (
	// maxAsked bounds the interfaces on which a doctor asks, askWithin the time.
	maxAsked  = 4
	askWithin = 2 * time.Second
)

// frontTroubles are what is wrong with where the addresses are placed here, and with
// who answers for them on the networks of those interfaces: those of the clients.
func (srv *Server) frontTroubles(ctx context.Context) (out []doctor.Trouble) {
	s := srv.Node.State()
	places := srv.Places.Place(s.Instances)
	ask := make(map[string]netip.Addr)
	for _, p := range places {
		t := doctor.Trouble{Interface: p.Link, Do: "name its interface with dev in the node's file"}
		if t.Interface != "" && doctor.CheckInterfaceName(t.Interface) != nil {
			t.Interface = ""
		}
		switch i, _, _ := s.AddressOf(p.Address.Prefix.Addr()); {
		case p.Err != nil:
			t.Serious, t.Seen = true, doctor.Clean(p.Err.Error())
		case p.Warning != "":
			t.Seen = doctor.Clean(fmt.Sprintf("%s: %s", p.Address.Prefix.Addr(), p.Warning))
		default:
			if _, asked := ask[p.Link]; !asked && len(ask) < maxAsked && i.VRRP == "" {
				ask[p.Link] = p.Address.Prefix.Addr() // a VRRP master may have the others
			}
			continue
		}
		if len(out) < maxTroubles/2 {
			out = append(out, t)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	for link, ip := range ask {
		in, _, _ := s.AddressOf(ip)
		owner, macs := "", []string(nil)
		for _, t := range srv.Seats() {
			if in.Group == t.Name {
				owner, macs = srv.ownerInFront(t, s)
			}
		}
		if owner == "" {
			continue
		}
		all.Go(func() {
			mac, found, err := vip.ProbeConflict(ctx, link, ip)
			if err != nil {
				return // the interface's own checks say more
			}
			if t, bad := judgeAnswer(owner, macs, link, ip, mac, found); bad {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, t)
			}
		})
	}
	all.Wait()
	return out
}

// ownerInFront is another member that owns in a group, and the hardware addresses at which it
// announces; "" if there is none or it does not say.
func (srv *Server) ownerInFront(t Seat, s *state.State) (name string, macs []string) {
	leader := t.Group.Standing().LeaderID
	h := srv.Hints.Seen()[leader].In(t.ID)
	if leader == srv.Node.Self().NodeID || !h.Owning || h.Age > aliveAge || len(h.Fronts) == 0 || len(h.Fronts) >= place.MaxMACs {
		return "", nil
	}
	return s.Nodes[leader].Name, h.Fronts
}

// judgeAnswer says what is wrong with who answers for an address on a link.
func judgeAnswer(owner string, macs []string, link string, ip netip.Addr, mac net.HardwareAddr, found bool) (t doctor.Trouble, bad bool) {
	t.Interface = link
	switch {
	case !found:
		t.Seen = doctor.Clean(fmt.Sprintf("nobody answers for %s here, though %s owns it", ip, owner))
		t.Do = "see that the interface is on the network of " + doctor.Clean(owner) + "'s, and what stands between them"
	case !slices.Contains(macs, mac.String()):
		t.Serious = true
		t.Seen = doctor.Clean(fmt.Sprintf("%s answers for %s here, but %s has it on another interface (%s), whose announcements are not heard here", mac, ip, owner, strings.Join(macs, ", ")))
		t.Do = "name the right interface for it on " + doctor.Clean(owner) + ", with dev in the file there"
	default:
		return t, false
	}
	return t, true
}
