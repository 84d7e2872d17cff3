package operate

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/vip"
)

// reachedEvery is how often the names of this node's own addresses are looked up, and
// reachedRetry how soon after a failure.
const (
	reachedEvery = time.Minute
	reachedRetry = 5 * time.Second
)

// A twin is a machine that uses the address at which members reach this node. Both
// may be one machine started twice, and peers hear only that of the two which their
// neighbour tables name: no second process is found then. A claim is a warning and
// nothing else, as anyone on the link can forge one.

// followOwn keeps the listener at this node's own addresses until ctx ends.
func (c *Claims) followOwn(ctx context.Context) {
	for {
		wait := reachedEvery
		if addrs, ok := c.ownAddresses(ctx); ok {
			c.setOwn(addrs)
		} else {
			wait = reachedRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// setOwn sets the addresses that are this node's own if an interface has them.
func (c *Claims) setOwn(addrs []netip.Addr) {
	c.listening.Lock()
	defer c.listening.Unlock()
	if !slices.Equal(c.own, addrs) {
		c.own = addrs
		c.listen()
	}
}

// setVirtual sets the virtual addresses to listen for.
func (c *Claims) setVirtual(addrs []netip.Addr) {
	c.listening.Lock()
	defer c.listening.Unlock()
	c.virtual = addrs
	c.listen()
}

// listen is called with listening held.
func (c *Claims) listen() { c.listener.Listen(slices.Concat(c.virtual, c.own)) }

// uses reports whether a claim is of this node's own address, on the link that has it. A
// virtual router's hardware address is whichever router's is master (RFC 9568 7.3), and
// names no machine.
func (c *Claims) uses(claim vip.Claim, links []vip.Link) bool {
	c.listening.Lock()
	own := slices.Contains(c.own, claim.Addr)
	c.listening.Unlock()
	return own && !virtualMAC(claim.MAC) && slices.ContainsFunc(links, func(l vip.Link) bool {
		return l.Index == claim.Link && slices.ContainsFunc(l.Addresses, func(a vip.KernelAddress) bool { return a.Prefix.Addr() == claim.Addr })
	})
}

// virtualMAC reports whether a hardware address is a VRRP router's virtual one.
func virtualMAC(mac net.HardwareAddr) bool {
	return len(mac) == 6 && [4]byte(mac) == [4]byte{0, 0, 0x5e, 0} && (mac[4] == 1 || mac[4] == 2)
}

// twin takes in another machine's claim of this node's own address. One that is new is
// believed only if the links are fresh: it is shown for long.
func (c *Claims) twin(claim vip.Claim, link string, fresh bool) {
	mac, now := claim.MAC.String(), boottime.Now()
	by, member := claimant{claim.Addr, mac}, c.member(mac)
	c.mu.Lock()
	if !fresh && c.twins.seen[by] == nil {
		c.mu.Unlock()
		return
	}
	seen, counts, tell := c.twins.note(now, now-handoverClaims, time.Now(), by, link, member)
	var count uint64
	if counts {
		count = seen.count
	}
	c.mu.Unlock()
	if !tell {
		return
	}
	port := c.port(claim.Link, claim.MAC)
	c.mu.Lock()
	seen.port = port
	if count == 1 {
		c.twins.hintAt = 0 // others are told at once
	}
	c.mu.Unlock()
	c.log.Error("ANOTHER MACHINE USES THE ADDRESS OF THIS NODE", "address", claim.Addr, "mac", mac, "member", member, "link", link, "port", port, "claims", count)
}

// TwinHints are what other nodes are to know; a nil Claims has none.
func (c *Claims) TwinHints() []hint.Claim {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.twins.hints(boottime.Now())
}

// twinsNow are the machines that have lately used this node's own address.
func (c *Claims) twinsNow() []hint.Claim {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.twins.recent(boottime.Now())
}

// ownAddresses are those at which members reach this node, if this machine has them, and
// not behind NAT. Virtual addresses are none. ok is false if a name is not known yet.
func (c *Claims) ownAddresses(ctx context.Context) (addrs []netip.Addr, ok bool) {
	ok = true
	for _, address := range c.reached {
		if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
			continue // every address of the machine
		}
		at, err := resolve(ctx, address)
		if err != nil {
			ok = false
			continue
		}
		if a := at.Addr().WithZone(""); !a.IsUnspecified() && !a.IsLoopback() && !slices.Contains(addrs, a) && !c.isVirtual(a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, ok
}

const twinDoes = "if one is a copy of the other, stop the copy, and see raftvip node move-here; else give one of them another address"

// apiTwins are twins for operators; they may be another node's word.
func apiTwins(node, itself string, list []hint.Claim) []api.Claim {
	out := apiClaims(list)
	for i := range out {
		out[i].Seen = doctor.Clean(list[i].TwinText(node, itself))
	}
	return out
}

// twinWarnings are about nodes whose own address another machine uses.
func twinWarnings(nodes []api.Node) (w []string) {
	for _, n := range nodes {
		for _, c := range n.AddressClaims {
			w = append(w, c.Seen+"; "+twinDoes)
		}
	}
	return w
}

// twinTroubles are what a doctor is told.
func twinTroubles(node string, list []hint.Claim) []doctor.Trouble {
	var out []doctor.Trouble
	for _, c := range list {
		out = append(out, doctor.Trouble{Interface: c.Link, Serious: true, Seen: doctor.Clean(c.TwinText(node, node+" itself")), Do: twinDoes})
	}
	return out
}
