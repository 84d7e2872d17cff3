package vrrpcompat

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"
)

// A network is a link with routers in virtual time. Packets pass through the
// codec and the receive checks.
type network struct {
	t       testing.TB
	r       *rand.Rand // nil: no loss, no delay
	now     time.Duration
	seq     int
	queue   queue
	routers []*router
	loss    float64
	delay   time.Duration // at most
	cut     func(from, to *router) bool
}

// A router is a machine on a network.
type router struct {
	m      *Machine
	expect Expect
	config MachineConfig
	up     bool // its addresses
}

type delivery struct {
	at  time.Duration
	seq int
	to  *router
	d   Datagram
}

type queue []delivery

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(delivery)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

func newNetwork(t testing.TB, r *rand.Rand) *network {
	return &network{t: t, r: r, cut: func(_, _ *router) bool { return false }}
}

var simAddresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 200})}

func (n *network) add(c MachineConfig) *router {
	x := &router{m: NewMachine(c), config: c, expect: Expect{
		Version: c.Version, VRID: 7, Source: c.Source, Interval: c.Interval,
		Addresses: AddressList{Addresses: simAddresses, Strict: true},
	}}
	n.routers = append(n.routers, x)
	return x
}

// call calls a machine, asserts the result and does what it says.
func (n *network) call(x *router, call func(m *Machine, now time.Duration) []Action) {
	before, was := x.m.State(), x.m.Entitled()
	did := call(x.m, n.now)
	checkStep(n.t, x.m, n.now, before, was, false, did)
	for _, a := range did {
		switch a := a.(type) {
		case SendAdvertisement:
			n.send(x, a.Priority)
		case BecomeMaster:
			x.up = true
		case BecomeBackup:
			x.up = false
		}
	}
	if x.up != (x.m.State() == Master) {
		n.t.Fatalf("%v: addresses up %v in state %v", x.config.Source, x.up, x.m.State())
	}
}

func (n *network) start(x *router) { n.call(x, (*Machine).Startup) }

// crash stops a router without a word.
func (n *network) crash(x *router) {
	x.m.Shutdown(n.now)
	x.up = false
}

func (n *network) send(from *router, priority uint8) {
	c := from.config
	ad := Advertisement{Version: c.Version, VRID: 7, Priority: priority, Interval: c.Interval, Addresses: simAddresses}
	b, err := ad.Append(nil, c.Source, Group4, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, to := range n.routers {
		if n.cut(from, to) || n.r != nil && n.r.Float64() < n.loss {
			continue
		}
		at := n.now
		if n.r != nil {
			at += time.Duration(n.r.Int64N(int64(n.delay) + 1))
		}
		n.seq++
		heap.Push(&n.queue, delivery{at, n.seq, to, Datagram{b, c.Source, Group4, 255}})
	}
}

// run lets time pass until end.
func (n *network) run(end time.Duration) {
	for steps := 0; ; steps++ {
		if steps > 1_000_000 {
			n.t.Fatalf("no end of events at %v", n.now)
		}
		next, who := end+1, (*router)(nil)
		for _, x := range n.routers {
			if at, ok := x.m.Deadline(); ok && at < next {
				next, who = max(at, n.now), x
			}
		}
		if len(n.queue) > 0 && n.queue[0].at <= min(next, end) {
			d := heap.Pop(&n.queue).(delivery)
			n.now = max(n.now, d.at)
			n.deliver(d)
			continue
		}
		if who == nil {
			n.now = end
			return
		}
		n.now = next
		n.call(who, (*Machine).Expire)
		if at, ok := who.m.Deadline(); ok && at <= n.now {
			n.t.Fatalf("%v: deadline %v after Expire at %v", who.config.Source, at, n.now)
		}
	}
}

func (n *network) deliver(d delivery) {
	a, drop := d.to.expect.Check(d.d)
	own := d.d.Source == d.to.config.Source
	if own != (drop == DropOwn) || !own && drop != DropNone {
		n.t.Fatalf("%v drops a packet of %v: %v", d.to.config.Source, d.d.Source, drop)
	}
	if drop == DropNone {
		n.call(d.to, func(m *Machine, now time.Duration) []Action { return m.Receive(now, a, d.d.Source) })
	}
}

func (n *network) masters() (all []*router) {
	for _, x := range n.routers {
		if x.m.State() == Master {
			all = append(all, x)
		}
	}
	return all
}

// oneMaster asserts that there is one, and returns it.
func (n *network) oneMaster() *router {
	n.t.Helper()
	all := n.masters()
	if len(all) != 1 {
		for _, x := range n.routers {
			at, ok := x.m.Deadline()
			n.t.Logf("%v: %v, priority %d, entitled %v, deadline %v %v, %+v", x.config.Source, x.m.State(), x.m.Priority(), x.m.Entitled(), at, ok, x.config)
		}
		n.t.Fatalf("%d masters at %v", len(all), n.now)
	}
	return all[0]
}

// seed returns the seed of a random test, from RAFTVIP_SEED if set.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if v := os.Getenv("RAFTVIP_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("RAFTVIP_SEED: %v", err)
		}
	}
	t.Logf("RAFTVIP_SEED=%d", s)
	return s
}

// settle is longer than any down interval and preempt delay in the simulation.
const settle = 20 * sec

// TestSimulation lets routers crash, start, change their priority and lose and
// delay packets, some of them as members of a hybrid cluster of which at most one
// is entitled. Then the link heals, and there has to be one master, and no other
// again. Without nopreempt and preempt_delay nobody may be better than it.
func TestSimulation(t *testing.T) {
	r := rand.New(rand.NewPCG(seed(t), 3))
	moves := 0
	for round := range 300 {
		n := newNetwork(t, r)
		version := V2 + Version(r.IntN(2))
		plain := r.IntN(3)
		members := 0
		if plain == 0 || r.IntN(2) == 0 {
			members = 2 + r.IntN(2)
		}
		polite := r.IntN(3) == 0 // somebody may wait for a lower master to end
		var fellows []netip.Addr
		for i := range plain + members {
			c := MachineConfig{
				Version: version, Priority: uint8(1 + r.IntN(4)*50), Interval: sec, Hybrid: i >= plain,
				Source:            netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(8)*16 + i)}),
				LowerPrioNoAdvert: r.IntN(4) == 0, HigherPrioSendAdvert: r.IntN(4) == 0,
			}
			if version == V3 {
				c.Interval = time.Duration(1+r.IntN(10)) * 100 * ms
			}
			if polite {
				c.NoPreempt = r.IntN(2) == 0
				c.PreemptDelay = time.Duration(r.IntN(3)) * 2 * sec
			}
			x := n.add(c)
			if c.Hybrid {
				fellows = append(fellows, c.Source)
			}
			n.start(x)
		}
		for _, x := range n.routers {
			x.m.SetFellows(fellows)
		}
		own := func(handedOver bool) {
			if members == 0 {
				return
			}
			for _, x := range n.routers[plain:] {
				n.call(x, func(m *Machine, now time.Duration) []Action { return m.Disentitle(now, handedOver) })
			}
			n.call(n.routers[plain+r.IntN(members)], entitle)
		}
		own(false)
		// With two groups, the routers of one do not hear those of the other.
		groups := make(map[*router]int)
		n.cut = func(from, to *router) bool { return groups[from] != groups[to] }
		for range 40 {
			n.run(n.now + time.Duration(r.IntN(1500))*ms)
			x := n.routers[r.IntN(len(n.routers))]
			switch r.IntN(8) {
			case 0:
				n.crash(x)
			case 1, 2:
				n.start(x)
			case 3:
				groups[x] = r.IntN(2)
			case 4:
				n.call(x, func(m *Machine, now time.Duration) []Action { return m.SetPriority(now, uint8(1+r.IntN(254))) })
			case 5:
				own(r.IntN(2) == 0)
			case 6:
				n.loss, n.delay = r.Float64()/2, time.Duration(r.IntN(300))*ms
			case 7:
				n.call(x, (*Machine).Shutdown)
			}
			moves += len(n.masters())
		}
		// Heal.
		n.loss, n.delay = 0, time.Duration(r.IntN(5))*ms
		clear(groups)
		for _, x := range n.routers {
			n.start(x)
		}
		n.run(n.now + settle)
		first := n.oneMaster()
		for range 50 {
			n.run(n.now + 173*ms)
			if now := n.oneMaster(); now != first {
				t.Fatalf("round %d: the master has moved from %v to %v", round, first.config.Source, now.config.Source)
			}
		}
		for _, x := range n.routers {
			if !polite && x.m.Entitled() && x.m.Priority() > first.m.Priority() {
				t.Fatalf("round %d: %v has priority %d, the master %d", round, x.config.Source, x.m.Priority(), first.m.Priority())
			}
			if _, _, _, ok := x.m.Duplicate(n.now); ok {
				t.Fatalf("round %d: a duplicate speaker is reported beside one master", round)
			}
		}
	}
	if moves == 0 {
		t.Error("nobody was ever master")
	}
}

// TestSuccession is what a hybrid cluster is for: the owner changes, also to a
// node of lower priority than a foreign router's, and as long as the cluster's
// priority is the better one the foreign router never becomes master. Where the
// cluster loses its quorum, that router takes over in its skew time.
func TestSuccession(t *testing.T) {
	for _, version := range []Version{V2, V3} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			n := newNetwork(t, nil)
			foreign := n.add(MachineConfig{Version: version, Priority: 90, Interval: sec, Source: addr("10.0.0.99")})
			var members []*router
			for i, p := range []uint8{100, 120, 91} {
				c := MachineConfig{Version: version, Priority: p, Interval: sec, Hybrid: true, Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})}
				members = append(members, n.add(c))
			}
			for _, x := range n.routers {
				x.m.SetFellows([]netip.Addr{members[0].config.Source, members[1].config.Source, members[2].config.Source})
				n.start(x)
			}
			n.run(10 * sec)
			if n.oneMaster() != foreign {
				t.Fatal("alone, and not master")
			}
			n.call(members[0], entitle)
			n.run(n.now)
			if n.oneMaster() != members[0] {
				t.Fatal("the better one is not master at once")
			}
			// Planned moves, and one without a word: the owner was killed.
			for i, next := range []int{1, 2, 0, 2} {
				old := n.oneMaster()
				n.run(n.now + 2700*ms)
				if i == 3 {
					n.crash(old)
				} else {
					n.call(old, handOn)
				}
				n.run(n.now + 400*ms)
				n.call(members[next], entitle)
				if n.run(n.now); n.oneMaster() != members[next] {
					t.Fatalf("move %d: the new owner is not master at once", i)
				}
				if foreign.m.State() != Backup {
					t.Fatalf("move %d: the foreign router has seen a gap", i)
				}
			}
			n.run(n.now + 30*sec)
			lost := n.now
			n.call(members[2], lose)
			n.run(lost + SkewTime(version, 90, sec) - 1)
			if len(n.masters()) != 0 {
				t.Fatal("somebody is master before the skew time")
			}
			n.run(lost + SkewTime(version, 90, sec))
			if n.oneMaster() != foreign {
				t.Fatal("the foreign router has not taken over")
			}
		})
	}
}
