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
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// PlainLifetime is the lifetime of the addresses of plain VRRP routers on the
// kernel: those of a dead daemon vanish after it.
const PlainLifetime = 30 * time.Second

// Plain runs the instances with "vrrp only": VRRP routers without Raft, as
// keepalived's are. No guard enforces anything for them.
type Plain struct {
	log    *slog.Logger
	config func() *config.Config
	report func() check.Report
	// claimed says why the cluster, if there is one, has the say about an instance, or
	// "".
	claimed func(*config.Instance) string
	// place resolves the addresses of an instance on this node. vmacs are the interfaces
	// with a virtual MAC, by instance.
	place      func(in state.Instance, vmacs map[string]string) (addrs []vip.Address, faults []string)
	newKeeper  func(*vip.Gate) SlotKeeper
	newSpeaker func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (router, error)
	now        func() time.Duration
	woken      chan struct{}
	tasks      tasks

	mu     sync.Mutex
	began  time.Duration
	turned bool
	parts  map[string]*plainPart // by instance, for ever
}

// A PlainConfig is what the instances with "vrrp only" are run with.
type PlainConfig struct {
	Log *slog.Logger
	// File is the node's file as last read, Report what its checks say.
	File   func() *config.Config
	Report func() check.Report
	// Claimed says why the cluster, if there is one, has the say about an instance, or
	// "".
	Claimed func(*config.Instance) string
	// Place resolves the addresses of an instance on this node. vmacs are the interfaces
	// with a virtual MAC, by instance.
	Place func(in state.Instance, vmacs map[string]string) (addrs []vip.Address, faults []string)
	// NewKeeper makes what puts addresses up beneath a gate, for PlainLifetime at a time.
	NewKeeper func(*vip.Gate) SlotKeeper
	// IsVirtual tells of a virtual address: nobody speaks from one.
	IsVirtual func(netip.Addr) bool
}

// NewPlain makes the routers of the instances with "vrrp only". It runs nothing before
// Run.
func NewPlain(c PlainConfig) *Plain {
	return &Plain{
		log: c.Log, config: c.File, report: c.Report, now: boottime.Now,
		claimed: c.Claimed, place: c.Place, woken: make(chan struct{}, 1), parts: make(map[string]*plainPart),
		newKeeper: c.NewKeeper,
		newSpeaker: func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (router, error) {
			s.net.IsVirtual = c.IsVirtual
			return s.router(addrs, priority, sink, c.Log.With("instance", name))
		},
	}
}

// Claimed says why an instance with "vrrp only" must not run beside a cluster in state
// s, or "": what the cluster has, its owner answers for.
func Claimed(s *state.State, in *config.Instance) string {
	for _, have := range s.Instances {
		if have.Name == in.Name {
			return fmt.Sprintf("the cluster has instance %s too: reload a file without it, or delete its addresses with raftvip vip del", in.Name)
		}
	}
	for _, a := range in.Addresses {
		if other, _, ok := s.AddressOf(a.Prefix.Addr()); ok {
			return fmt.Sprintf("the cluster has address %s too, in instance %s", a.Prefix.Addr(), other.Name)
		}
	}
	return ""
}

// A router is a speaker that can leave the election for a while.
type router interface {
	speaker
	Startup()
	Shutdown()
}

// A plainPart is one instance. It is written with Plain.mu held.
type plainPart struct {
	name     string
	slot     *slot
	speaker  router
	settings speakerSettings
	began    time.Duration
	stop     func()
	addrs    []netip.Addr
	priority uint8
	claims   uint64
	last     plainDecision
	instance *config.Instance // nil: not in the file any more
}

// Wake has the loop look again.
func (p *Plain) Wake() {
	select {
	case p.woken <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// Run is the loop. At the end the routers have left the election and the addresses
// are gone. It returns the errors of keepers and routers.
func (p *Plain) Run(ctx context.Context) error {
	tasks, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.tasks.run(tasks) }()
	p.mu.Lock()
	p.began = p.now()
	p.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(p.turn())
		select {
		case <-ctx.Done():
		case <-p.woken:
		case <-timer.C:
		}
	}
	p.mu.Lock()
	for _, part := range p.parts {
		p.end(part)
	}
	p.mu.Unlock()
	stop() // the keepers delete what is left
	return <-ended
}

// turn looks at every instance once, and returns when to look again.
func (p *Plain) turn() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.config()
	report := p.report()
	for _, part := range p.parts {
		part.instance = nil
	}
	for _, in := range c.Instances {
		if in.VRRP == nil || in.VRRP.Mode != config.VRRPOnly {
			continue
		}
		part := p.parts[in.Name]
		if part == nil {
			part = p.addPart(in.Name)
		}
		part.instance = in
		p.follow(part, instanceReport(report, in))
	}
	for _, part := range p.parts {
		if part.instance == nil {
			p.end(part)
		}
	}
	p.turned = true
	return time.Second
}

func instanceReport(r check.Report, in *config.Instance) check.InstanceReport {
	for _, i := range r.Instances {
		if i.Name == in.Name {
			return i
		}
	}
	return check.InstanceReport{Base: in.Priority, Effective: in.Priority}
}

func (p *Plain) addPart(name string) *plainPart {
	gate := vip.NewGate(nil, 0, nil)
	part := &plainPart{name: name, slot: &slot{name: name, gate: gate, lease: true, slow: true}}
	part.slot.keeper = p.newKeeper(gate)
	p.parts[name] = part
	p.tasks.start(part.slot.keeper.Run)
	return part
}

// end stops an instance: the peers are told when its addresses are down.
func (p *Plain) end(part *plainPart) {
	if part.speaker != nil {
		part.speaker.Shutdown()
		part.stop()
		part.speaker, part.stop = nil, nil
	}
	part.slot.bar()
	part.slot.keeper.Set(vip.Wanted{})
	part.last = plainDecision{}
}

// follow does for one instance what its file, its checks and VRRP say.
func (p *Plain) follow(part *plainPart, report check.InstanceReport) {
	in := part.instance
	whole := place.InstanceOf(in)
	addrs, faults := p.place(whole, p.vmacs())
	priority := uint8(min(max(report.Effective, 1), 255))
	if in.VRRP.NoPeerIsFault && len(in.VRRP.Peers) == 0 {
		faults = append(faults, "no unicast_peer (unicast_fault_no_peer)")
	}
	if err := p.configure(part, settingsOf(in), place.Advertised(whole), priority); err != nil {
		faults = append(faults, err.Error())
	}
	inputs := plainInputs{
		started: p.now() >= p.began+in.VRRP.StartupDelay, claimed: p.claimed(in), check: report, faults: faults,
	}
	if part.speaker != nil {
		if decidePlain(inputs).runs {
			part.speaker.Startup()
		} else {
			part.speaker.Shutdown()
		}
	}
	m, st := part.slot.moment(), vrrpnet.Status{}
	if part.speaker != nil {
		if st = part.speaker.Status(); st.State == vrrpcompat.Master {
			part.slot.mastered(m)
			inputs.master = part.slot.permitted()
		}
		if st.Announcements > part.claims {
			part.slot.keeper.Announce("another router claimed the addresses")
		}
		part.claims = st.Announcements
	}
	d := decidePlain(inputs)
	if d.state != part.last.state {
		p.log.Info("vrrp only", "instance", part.name, "state", d.state, "priority", priority, "reason", cmpReason(d.why, st.Reason))
	}
	part.last = d
	// A term of ownership ends with a loss, and routers come and go.
	term, own := m.losses+1, false
	if d.up {
		if own, _ = part.slot.open(term); own {
			part.slot.gate.Renew(term, st.Until)
		}
	}
	part.slot.keeper.Set(vip.Wanted{Own: own, Term: term, Addresses: addrs, Schedule: place.ScheduleOf(whole.GARP)})
}

func cmpReason(why, reason string) string {
	if why != "" {
		return why
	}
	return reason
}

// configure gives the instance its virtual router, or says why there is none.
func (p *Plain) configure(part *plainPart, s speakerSettings, addrs []netip.Addr, priority uint8) error {
	if part.speaker != nil && reflect.DeepEqual(part.settings, s) {
		if part.priority != priority {
			part.priority = priority
			part.speaker.SetPriority(priority)
		}
		if !slices.Equal(part.addrs, addrs) {
			if err := part.speaker.SetAddresses(addrs); err != nil {
				return err
			}
			part.addrs = addrs
		}
		if st := part.speaker.Status(); st.Down != nil && p.now()-part.began > downGrace {
			return fmt.Errorf("cannot speak VRRP: %w", st.Down)
		}
		return nil
	}
	if part.speaker != nil {
		part.speaker.Shutdown()
		part.stop()
		part.speaker, part.stop = nil, nil
	}
	r, err := p.newSpeaker(part.name, s, addrs, priority, part.slot.rule(false))
	if err != nil {
		return err
	}
	r.Shutdown() // until the decision is to take part
	part.speaker, part.settings, part.addrs, part.priority, part.began, part.claims = r, s, addrs, priority, p.now(), 0
	part.stop = p.tasks.start(func(ctx context.Context) error {
		var ends sync.WaitGroup
		defer ends.Wait()
		ends.Go(func() { forward(ctx, r.Changed, p.Wake) })
		return r.Run(ctx)
	})
	return nil
}

// vmacs are the interfaces with a virtual MAC, by instance. It is called by the loop.
func (p *Plain) vmacs() map[string]string {
	out := make(map[string]string)
	for name, part := range p.parts {
		if part.speaker != nil && part.settings.net.VMAC != nil {
			if link := part.speaker.Status().VMAC; link != "" {
				out[name] = link
			}
		}
	}
	return out
}

// Ready reports whether every instance was looked at.
func (p *Plain) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turned
}

// Status is that of all instances in the file. names are the nodes by the addresses
// from which they speak.
func (p *Plain) Status(names map[netip.Addr]string) []api.VirtualRouter {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []api.VirtualRouter
	for _, part := range p.parts {
		if part.instance == nil {
			continue
		}
		v := api.VirtualRouter{Instance: part.name, Mode: string(config.VRRPOnly), Guarantee: plainGuarantee}
		if part.speaker != nil {
			describeSpeaker(&v, part.settings, part.speaker.Status(), names)
		}
		v.State, v.Up = part.last.state, part.last.up && part.slot.permitted()
		v.Why = part.last.why
		if v.Why == "" && part.speaker != nil {
			v.Why = part.speaker.Status().Reason
		}
		for _, k := range part.slot.keeper.Status().Addresses {
			v.Addresses = append(v.Addresses, KeptAddress(part.name, k))
		}
		out = append(out, v)
	}
	return out
}
