package vrrp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// Hybrid is the VRRP half of an owner: the virtual routers of the instances with
// "vrrp hybrid", each with its slot. Follow, Decide and Faults belong to the owner's
// loop; a nil Hybrid, that of a witness, has no instances.
type Hybrid struct {
	log      *slog.Logger
	holdings *Holdings
	// config is the node's file, report what its checks say.
	config func() *config.Config
	report func() check.Report
	// members are what the other members are, by instance.
	members func() map[string][]Member
	// newSlot makes a slot, which fails where the guard has no number left, and freeSlot
	// is the end of one whose Holding is closed. newSpeaker makes the virtual router of an
	// instance.
	newSlot    func(name string) (*slot, error)
	freeSlot   func(*slot)
	newSpeaker func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (speaker, error)
	wake       func()
	now        func() time.Duration
	began      time.Duration
	tasks      tasks

	mu      sync.Mutex
	routers map[string]*virtualRouter // by instance
}

// A Member is a member of the cluster in one instance.
type Member struct {
	// Source is the address from which it speaks VRRP.
	Source netip.Addr
	Master bool // it is VRRP master
	// Age is how long ago it said so.
	Age time.Duration
}

// A HybridConfig is what the VRRP half of an owner is made of.
type HybridConfig struct {
	Log      *slog.Logger
	Holdings *Holdings
	// File is the node's file as last read, Report what its checks say.
	File   func() *config.Config
	Report func() check.Report
	// Members are what the other members of the cluster are, by instance.
	Members func() map[string][]Member
	// Hold makes a gate with a number of its own in the guard, and what puts addresses up
	// beneath it; it fails if there is no number left. Free is called when that Holding
	// has been closed.
	Hold func() (*vip.Gate, Holding, error)
	Free func(*vip.Gate)
	// Slow: no guard silences the addresses when a gate is shut.
	Slow bool
	// IsVirtual tells of a virtual address: nobody speaks from one.
	IsVirtual func(netip.Addr) bool
	// Wake has the owner look again.
	Wake func()
}

// NewHybrid makes the VRRP half of an owner. It runs nothing before Run.
func NewHybrid(c HybridConfig) *Hybrid {
	return &Hybrid{
		log: c.Log, holdings: c.Holdings, config: c.File, report: c.Report, members: c.Members,
		newSlot: func(name string) (*slot, error) {
			gate, holding, err := c.Hold()
			return &slot{name: name, gate: gate, holding: holding, slow: c.Slow}, err
		},
		freeSlot: func(s *slot) { c.Free(s.gate) },
		newSpeaker: func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (speaker, error) {
			s.net.IsVirtual = c.IsVirtual
			return s.router(addrs, priority, sink, c.Log.With("instance", name))
		},
		wake: c.Wake, now: boottime.Now, began: boottime.Now(), routers: make(map[string]*virtualRouter),
	}
}

// A virtualRouter is that of one instance. It is written with Hybrid.mu held.
type virtualRouter struct {
	name string
	slot *slot // nil where there is none to be had

	speaker  speaker // nil: the instance does not speak
	settings speakerSettings
	began    time.Duration // of the speaker
	stop     func()
	addrs    []netip.Addr
	priority uint8
	fellows  []netip.Addr
	claims   uint64 // announcements that it has asked for
	// succeeds: this node had the addresses before this virtual router was there, so
	// that it goes on where something else ended.
	succeeds bool
	// mastered is the latest time at which another member is known to have been
	// master, 0 for never: so a virtual router that has just begun to listen knows.
	mastered time.Duration

	speaks bool // the cluster has it speak VRRP
	fault  string
	// silentUntil is the end of vrrp_startup_delay.
	silentUntil time.Duration
	last        hybridDecision
}

// Follow brings the virtual routers in line with the replicated state and the
// node's file. The cluster says what speaks VRRP and for which addresses; the file
// says how. owning says that this node owns the group now.
func (h *Hybrid) Follow(s *state.State, owning bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.config()
	of := make(map[netip.Addr]*slot)
	seen := make(map[string]bool)
	for _, in := range s.Instances {
		p := h.routers[in.Name]
		if in.VRRP != "" && p == nil {
			p = &virtualRouter{name: in.Name}
			h.routers[in.Name] = p
		}
		if p == nil {
			continue
		}
		seen[in.Name] = true
		noSlot := h.giveSlot(p)
		if p.slot != nil {
			for _, a := range in.Addresses {
				of[a.Prefix.Addr()] = p.slot
			}
		}
		p.fault = ""
		if p.speaks = in.VRRP != ""; p.speaks {
			h.configure(p, in, c, owning, noSlot)
		} else {
			h.release(p)
		}
		if p.fault != "" && p.slot != nil {
			p.slot.revoke()
		}
	}
	for name, p := range h.routers {
		if !seen[name] {
			p.speaks, p.fault = false, ""
			h.release(p)
			h.drop(p)
		}
	}
	h.holdings.assign(of)
	h.tell()
}

// giveSlot gives the instance a slot if it has none, or says why it cannot have one.
func (h *Hybrid) giveSlot(p *virtualRouter) error {
	if p.slot != nil {
		return nil
	}
	s, err := h.newSlot(p.name)
	if err != nil {
		return err
	}
	p.slot = s
	h.holdings.gates.add(s)
	return nil
}

// drop forgets an instance that the cluster does not have any more, and its slot, as
// soon as that has no addresses: until then they may become another's.
func (h *Hybrid) drop(p *virtualRouter) {
	s := p.slot
	if s != nil && len(s.holding.Status().Addresses) > 0 {
		return
	}
	delete(h.routers, p.name)
	if s == nil {
		return
	}
	h.holdings.gates.remove(s)
	h.tasks.start(func(ctx context.Context) error {
		if s.holding.Close(ctx) == nil { // else the daemon ends
			h.freeSlot(s)
		}
		return nil
	})
}

// forward calls wake after each change, until ctx ends.
func forward(ctx context.Context, changed func() <-chan struct{}, wake func()) {
	for {
		next := changed()
		wake()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

// configure gives the instance the virtual router that the file describes. The cluster
// says that the instance speaks: a file that does not say so any more changes
// nothing until the cluster has taken it over, too.
func (h *Hybrid) configure(p *virtualRouter, in state.Instance, c *config.Config, owning bool, noSlot error) {
	addrs := place.Advertised(in)
	file := speaking(c, in.Name)
	switch {
	case p.slot == nil:
		p.fault = fmt.Sprintf("instance %s: %s", in.Name, noSlot)
	case file == nil && p.speaker != nil:
		h.adjust(p, addrs, p.priority)
		return
	case file == nil:
		p.fault = fmt.Sprintf("instance %s speaks VRRP in this cluster, but this node's file does not have it with vrrp hybrid", in.Name)
	case file.VRRP.NoPeerIsFault && len(file.VRRP.Peers) == 0:
		p.fault = fmt.Sprintf("instance %s: no unicast_peer (unicast_fault_no_peer)", in.Name)
	}
	if p.fault != "" {
		h.silence(p, false)
		return
	}
	p.silentUntil = h.began + file.VRRP.StartupDelay
	settings, priority := settingsOf(file), effective(h.report(), file)
	if p.speaker != nil && reflect.DeepEqual(p.settings, settings) {
		h.adjust(p, addrs, priority)
		return
	}
	succeeds := owning && (p.speaker == nil || p.slot.permitted())
	sink := p.slot.attach(succeeds) // from now on the old one has no say
	h.silence(p, succeeds)
	r, err := h.newSpeaker(in.Name, settings, addrs, priority, sink)
	if err != nil {
		p.fault = fmt.Sprintf("instance %s: %s", in.Name, err)
		return
	}
	p.speaker, p.settings, p.addrs, p.priority, p.succeeds = r, settings, addrs, priority, succeeds
	p.fellows, p.claims, p.began = nil, 0, h.now()
	p.stop = h.tasks.start(func(ctx context.Context) error {
		var ends sync.WaitGroup
		defer ends.Wait()
		ends.Go(func() { forward(ctx, r.Changed, h.wake) })
		return r.Run(ctx)
	})
}

// adjust gives a virtual router what it can take without a break.
func (h *Hybrid) adjust(p *virtualRouter, addrs []netip.Addr, priority uint8) {
	if p.priority != priority {
		p.priority = priority
		p.speaker.SetPriority(priority)
	}
	if !slices.Equal(p.addrs, addrs) {
		p.addrs = addrs
		if err := p.speaker.SetAddresses(addrs); err != nil {
			// What does not fit on the wire is no reason to give up what does.
			h.log.Error("the addresses cannot be advertised; the list before is", "instance", p.name, "error", err)
		}
	}
	if st := p.speaker.Status(); st.Down != nil && h.now()-p.began > downGrace {
		p.fault = fmt.Sprintf("instance %s cannot speak VRRP: %s", p.name, st.Down)
	}
}

// downGrace is how long a new virtual router may be without a socket before that
// is a fault.
const downGrace = time.Second

// speaking returns the instance of a file that has it with vrrp hybrid, or nil.
func speaking(c *config.Config, name string) *config.Instance {
	for _, in := range c.Instances {
		if in.Name == name && in.VRRP != nil && in.VRRP.Mode == config.VRRPHybrid {
			return in
		}
	}
	return nil
}

// effective is an instance's effective priority on this node.
func effective(r check.Report, in *config.Instance) uint8 {
	for _, i := range r.Instances {
		if i.Name == in.Name {
			return uint8(min(max(i.Effective, 1), 255))
		}
	}
	return uint8(in.Priority)
}

// release leaves an instance that does not speak VRRP (any more) to Raft alone.
func (h *Hybrid) release(p *virtualRouter) {
	if p.slot != nil {
		p.slot.detach()
	}
	h.silence(p, false)
}

// silence ends a virtual router. Unless another one continues, the peers are told.
func (h *Hybrid) silence(p *virtualRouter, continued bool) {
	if p.speaker == nil {
		return
	}
	p.speaker.Disentitle(continued)
	p.stop()
	p.speaker, p.stop, p.last = nil, nil, hybridDecision{}
}

// tell gives the virtual routers what is known of their fellows.
func (h *Hybrid) tell() {
	members, now := h.members(), h.now()
	for _, p := range h.routers {
		var addrs []netip.Addr
		for _, m := range members[p.name] {
			addrs = append(addrs, m.Source)
			if m.Master {
				p.mastered = max(p.mastered, now-m.Age)
			}
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		if p.speaker != nil && !slices.Equal(p.fellows, addrs) {
			p.fellows = addrs
			p.speaker.SetFellows(addrs)
		}
	}
}

// Decide tells the virtual routers whether they may speak. successor says that a
// member goes on.
func (h *Hybrid) Decide(own, successor bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.routers {
		if p.slot == nil {
			continue
		}
		in := hybridInputs{own: own, successor: successor, speaks: p.speaks, fault: p.fault, started: h.now() >= p.silentUntil}
		if p.speaker != nil {
			h.instruct(p, decideHybrid(in))
			in.master, in.other = h.observe(p)
		}
		d := decideHybrid(in)
		if d != p.last && p.speaks {
			h.log.Info("vrrp", "instance", p.name, "up", d.up, "reason", d.why)
		}
		p.last = d
	}
}

// instruct tells a virtual router whether it may speak. When it may not, its
// addresses are silent before anybody else is told.
func (h *Hybrid) instruct(p *virtualRouter, d hybridDecision) {
	if !d.entitled {
		p.speaker.Disentitle(d.handedOver)
		return
	}
	st := p.speaker.Status()
	p.speaker.Entitle(h.continues(p, st))
	// As soon as it listens it knows.
	if st.State != vrrpcompat.Initialize {
		p.succeeds = false
	}
}

// continues reports whether the cluster, as far as is known beyond what this
// virtual router has heard, is master, so that this node goes on as that: its own
// router before this one was, or another member's was until a moment ago.
func (h *Hybrid) continues(p *virtualRouter, st vrrpnet.Status) bool {
	lately := p.mastered > 0 && h.now()-p.mastered < time.Duration(p.settings.machine.DownTimerAdverts)*p.settings.machine.Interval
	return (p.succeeds || lately) && st.Other == nil
}

// observe takes over what a virtual router has become.
func (h *Hybrid) observe(p *virtualRouter) (master bool, other string) {
	m := p.slot.moment()
	st := p.speaker.Status()
	if st.State == vrrpcompat.Master {
		p.slot.mastered(m)
	}
	if st.Other != nil {
		other = fmt.Sprintf("%s with priority %d", st.Other.Addr, st.Other.Priority)
	}
	if st.Announcements > p.claims {
		p.slot.holding.Announce("another router claimed the addresses")
	}
	p.claims = st.Announcements
	return p.slot.permitted(), other
}

// Faults are why this node cannot own because of VRRP.
func (h *Hybrid) Faults() []string {
	var out []string
	h.each(func(p *virtualRouter) {
		if p.fault != "" {
			out = append(out, p.fault)
		}
	})
	slices.Sort(out)
	return out
}

// Run runs the virtual routers until ctx ends. It returns their errors.
func (h *Hybrid) Run(ctx context.Context) error { return h.tasks.run(ctx) }

// Told is what this node is, by instance, for the other members.
func (h *Hybrid) Told() map[string]Member {
	out := make(map[string]Member)
	h.each(func(p *virtualRouter) {
		if p.speaker == nil {
			return
		}
		if st := p.speaker.Status(); st.Source.IsValid() {
			out[p.name] = Member{Source: st.Source, Master: st.State == vrrpcompat.Master}
		}
	})
	return out
}

// VMACs are the interfaces with a virtual MAC, by instance.
func (h *Hybrid) VMACs() map[string]string {
	out := make(map[string]string)
	h.each(func(p *virtualRouter) {
		if p.speaker == nil || p.settings.net.VMAC == nil {
			return
		}
		if out[p.name] = p.speaker.Status().VMAC; out[p.name] == "" {
			out[p.name] = fmt.Sprintf("vrrp.%d", p.settings.net.VRID) // it is about to come
		}
	})
	return out
}

func (h *Hybrid) each(f func(*virtualRouter)) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.routers {
		f(p)
	}
}
