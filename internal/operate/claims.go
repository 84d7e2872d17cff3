package operate

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
)

const (
	// handoverClaims is how long after this node has taken over a member's claim is no
	// wonder: what the old owner sent may have waited in a queue.
	handoverClaims = 3 * time.Second
	// claimTold is the least time between two lines about the claims of one address by
	// one machine.
	claimTold = time.Minute
	// claimShown is how long after the last one claims are a warning.
	claimShown = 10 * time.Minute
	// maxClaims bounds the pairs of address and machine that are remembered, and
	// maxClaimHints those that other nodes are told of.
	maxClaims     = 64
	maxClaimHints = 8
	// claimHintPeriod is the least time between two changes of what others are told of
	// claims that they know of: a report follows each.
	claimHintPeriod = 5 * time.Second
)

// A claimant is one machine that claims one address which this node owns.
type claimant struct {
	addr netip.Addr
	mac  string
}

// A claimSeen is what is known of its claims.
type claimSeen struct {
	claimant
	link, port string
	member     string // its name, "" for a machine that is no member
	count      uint64
	first      time.Time // by the wall clock, to be shown
	lastAt     time.Time
	last, told time.Duration
}

// A claimBook remembers who claims addresses of this node. It is pure.
type claimBook struct {
	seen   map[claimant]*claimSeen
	total  uint64
	hinted []hint.Claim // what others were told at hintAt
	hintAt time.Duration
}

// note judges a claim of another machine that was heard at now (at by the wall
// clock), member being its name if it is one. This node owns since took. counts is
// false for one that is no wonder, tell true if it is worth a line in the log.
func (b *claimBook) note(now, took time.Duration, at time.Time, by claimant, link, member string) (seen *claimSeen, counts, tell bool) {
	if member != "" && now-took < handoverClaims {
		return nil, false, false
	}
	b.total++
	s := b.seen[by]
	if s == nil {
		if len(b.seen) >= maxClaims {
			oldest := slices.MinFunc(slices.Collect(maps.Values(b.seen)), func(a, b *claimSeen) int { return cmp.Compare(a.last, b.last) })
			delete(b.seen, oldest.claimant)
		}
		if b.seen == nil {
			b.seen = make(map[claimant]*claimSeen)
		}
		s = &claimSeen{claimant: by, first: at}
		b.seen[by] = s
		tell = true
	}
	tell = tell || now-s.told >= claimTold || s.member != member
	if tell {
		s.told = now
	}
	s.link, s.member, s.last, s.lastAt = link, member, now, at
	s.count++
	return s, true, tell
}

// recent are the claims that are still a warning: those of members first, then the
// newest.
func (b *claimBook) recent(now time.Duration) []hint.Claim {
	var list []*claimSeen
	for _, s := range b.seen {
		if now-s.last < claimShown {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *claimSeen) int {
		if (a.member == "") != (b.member == "") {
			return cmp.Compare(b.member, a.member)
		}
		return cmp.Or(cmp.Compare(b.last, a.last), a.addr.Compare(b.addr), cmp.Compare(a.mac, b.mac))
	})
	var out []hint.Claim
	for _, s := range list[:min(len(list), maxClaimHints)] {
		out = append(out, hint.Claim{Addr: s.addr, MAC: s.mac, Link: s.link, Port: s.port, Member: s.member, Count: s.count, First: s.first, Last: s.lastAt})
	}
	return out
}

// hints are what other nodes are to know. They do not change with each claim.
func (b *claimBook) hints(now time.Duration) []hint.Claim {
	if b.hintAt == 0 || now-b.hintAt >= claimHintPeriod {
		b.hinted, b.hintAt = b.recent(now), now
	}
	return b.hinted
}

// Claims hears who else claims the addresses that this node owns, tells operators,
// and has the keeper defend them. It also hears who claims this node's own address.
type Claims struct {
	log      *slog.Logger
	listener *vip.ClaimListener
	// serves and defend are the keeper's.
	serves func(link int, a netip.Addr) bool
	defend func(link int, a netip.Addr)
	// links are this node's interfaces; fresh, not more than a moment old.
	links func(fresh bool) []vip.Link
	// member names the member that has told to have this hardware address, "" for none.
	member func(mac string) string
	// took is when this node's ownership began.
	took func() time.Duration
	port func(link int, mac []byte) string

	owned sync.Mutex
	addrs map[string][]vip.Address // as last followed, by group

	// reached and isVirtual are as in ClaimsConfig.
	reached   []string
	isVirtual func(netip.Addr) bool

	listening    sync.Mutex
	virtual, own []netip.Addr // what is listened for

	mu    sync.Mutex
	book  claimBook     // of virtual addresses
	twins claimBook     // of this node's own
	asked time.Duration // when fresh links were last asked for
}

// A ClaimsConfig is what claims are heard with.
type ClaimsConfig struct {
	Log *slog.Logger
	// Keeper has the addresses: it serves and defends them.
	Keeper interface {
		Serves(link int, a netip.Addr) bool
		Defend(link int, a netip.Addr)
	}
	Links *place.Links
	// Member names the other member that has told to have this hardware address, "" for
	// none.
	Member func(mac string) string
	// Took is when this node's ownership began, as boottime.Now.
	Took func() time.Duration
	// Reached are HOST:PORT where members reach this node, and where it listens. Others'
	// claims of them are told, if they are addresses of this machine and not virtual ones.
	Reached   []string
	IsVirtual func(netip.Addr) bool
}

// NewClaims makes what listens on this node. It hears nothing before Run.
func NewClaims(c ClaimsConfig) *Claims {
	out := &Claims{
		log: c.Log, serves: c.Keeper.Serves, defend: c.Keeper.Defend, member: c.Member, took: c.Took,
		reached: c.Reached, isVirtual: c.IsVirtual,
		port: func(link int, mac []byte) string { return vip.BridgePort(link, mac) },
		links: func(fresh bool) []vip.Link {
			if fresh {
				return c.Links.Look()
			}
			return c.Links.Current()
		},
	}
	out.listener = vip.NewClaimListener(c.Log, out.heard)
	return out
}

// Run listens until ctx ends; it fails if it cannot.
func (c *Claims) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { c.followOwn(ctx) })
	return c.listener.Run(ctx)
}

// Of is for the owner of one group: it sets the addresses of that group to listen for.
func (c *Claims) Of(group string) ClaimsOf { return ClaimsOf{c, group} }

// ClaimsOf are the claims of the addresses of one group.
type ClaimsOf struct {
	claims *Claims
	group  string
}

// Follow sets the addresses to listen for; none while nothing is owned. It is called
// by the owner's loop at each turn.
func (o ClaimsOf) Follow(addrs []vip.Address) {
	c := o.claims
	if c == nil {
		return
	}
	c.owned.Lock()
	defer c.owned.Unlock()
	if place.Same(c.addrs[o.group], addrs) {
		return
	}
	if c.addrs == nil {
		c.addrs = make(map[string][]vip.Address)
	}
	c.addrs[o.group] = addrs
	var list []netip.Addr
	for _, all := range c.addrs {
		for _, a := range all {
			list = append(list, a.Prefix.Addr())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	c.setVirtual(list)
}

// heard takes in one claim. It is called by the listener's goroutines. Nothing else is
// asked while mu is held: those who are asked have locks of their own, and ask for the
// hints beneath them.
func (c *Claims) heard(claim vip.Claim) {
	served := c.serves(claim.Link, claim.Addr)
	if !served && !c.uses(claim, c.links(false)) {
		return
	}
	now := boottime.Now()
	link, own := ownClaim(claim, c.links(false))
	fresh := false
	if !own && c.mayAsk(now) {
		// A link of ours may have a new hardware address.
		links := c.links(true)
		fresh = links != nil
		link, own = ownClaim(claim, links)
	}
	if own {
		return
	}
	if !served {
		c.twin(claim, link, fresh)
		return
	}
	mac := claim.MAC.String()
	by := claimant{claim.Addr, mac}
	member, took := c.member(mac), c.took()
	c.mu.Lock()
	seen, counts, tell := c.book.note(now, took, time.Now(), by, link, member)
	var count uint64
	if counts {
		count = seen.count
	}
	c.mu.Unlock()
	if !counts {
		return
	}
	c.defend(claim.Link, claim.Addr)
	if !tell {
		return
	}
	port := c.port(claim.Link, claim.MAC)
	c.mu.Lock()
	seen.port = port
	if count == 1 {
		c.book.hintAt = 0 // others are told at once
	}
	c.mu.Unlock()
	if member != "" {
		c.log.Error("A MEMBER CLAIMS AN ADDRESS THAT THIS NODE OWNS", "vip", claim.Addr, "member", member, "mac", mac, "link", link, "port", port, "claims", count)
	} else {
		c.log.Warn("another machine claims an address that this node owns", "vip", claim.Addr, "mac", mac, "link", link, "port", port, "claims", count)
	}
}

// mayAsk reports whether fresh links may be asked for at now, once a second.
func (c *Claims) mayAsk(now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked > 0 && now-c.asked < time.Second {
		return false
	}
	c.asked = now
	return true
}

// ownClaim names the link that a claim came in on, and tells whether it is this
// node's own.
func ownClaim(claim vip.Claim, links []vip.Link) (link string, own bool) {
	link = fmt.Sprint("interface ", claim.Link)
	for _, l := range links {
		if l.Index == claim.Link {
			link = l.Name
		}
		own = own || slices.Equal(l.MAC, claim.MAC)
	}
	return link, own
}

// Hints are what other nodes are to know; a nil Claims has none. They do not change with each claim.
func (c *Claims) Hints() []hint.Claim {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.book.hints(boottime.Now())
}

// now are the claims as they are, and how many there were since the daemon began.
func (c *Claims) now() (recent []hint.Claim, total uint64) {
	if c == nil {
		return nil, 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.book.recent(boottime.Now()), c.book.total
}

// claimWarnings are about the claims that an owner hears. Those of members are the
// most serious thing there is.
func claimWarnings(nodes []api.Node, members bool) (w []string) {
	for _, n := range nodes {
		for _, c := range n.Claims {
			switch {
			case (c.Member != "") != members:
			case members:
				w = append(w, fmt.Sprintf("TWO NODES CLAIM %s: %s owns it, and %s", c.Address, n.Name, c.Seen))
			default:
				w = append(w, fmt.Sprintf("%s, which %s owns and defends: find that machine and take the address from it", c.Seen, n.Name))
			}
		}
	}
	return w
}

// apiClaims are claims for operators; they may be another node's word.
func apiClaims(list []hint.Claim) []api.Claim {
	var out []api.Claim
	for _, c := range list[:min(len(list), maxClaimHints)] {
		out = append(out, api.Claim{
			Address: c.Addr, MAC: doctor.Clean(c.MAC), Link: doctor.Clean(c.Link), Port: doctor.Clean(c.Port), Member: doctor.Clean(c.Member),
			Count: c.Count, First: c.First, Last: c.Last, Seen: doctor.Clean(c.Text()),
		})
	}
	return out
}

// claimTroubles are what a doctor is told.
func claimTroubles(list []hint.Claim) []doctor.Trouble {
	var out []doctor.Trouble
	for _, c := range list {
		do := "find that machine and take the address from it"
		if c.Member != "" {
			do = "run raftvip status on " + c.Member + "; if it does not own, stop it and look at its interfaces"
		}
		out = append(out, doctor.Trouble{Interface: c.Link, Serious: true, Seen: doctor.Clean(c.Text()), Do: do})
	}
	return out
}
