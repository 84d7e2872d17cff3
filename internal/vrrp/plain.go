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
	"github.com/raftvip/raftvip/internal/tick"
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
	hold       func(*vip.Gate) Holding
	keep       func(context.Context) error // runs what puts addresses up
	newSpeaker func(name string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (router, error)
	now        func() time.Duration
	woken      chan struct{}
	tasks      tasks

	mu      sync.Mutex
	began   time.Duration
	turned  bool
	routers map[string]*plainRouter // by instance, for ever
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
	// Keeper puts the addresses up, without a guard and for PlainLifetime at a time. It
	// is run with the first instance.
	Keeper *vip.Keeper
	// IsVirtual tells of a virtual address: nobody speaks from one.
	IsVirtual func(netip.Addr) bool
}

// NewPlain makes the routers of the instances with "vrrp only". It runs nothing before
// Run.
func NewPlain(c PlainConfig) *Plain {
	return &Plain{
		log: c.Log, config: c.File, report: c.Report, now: boottime.Now,
		claimed: c.Claimed, place: c.Place, woken: make(chan struct{}, 1), routers: make(map[string]*plainRouter),
		hold: func(g *vip.Gate) Holding { return c.Keeper.Hold(g) }, keep: c.Keeper.Run,
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

// A plainRouter is that of one instance. It is written with Plain.mu held.
type plainRouter struct {
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

// Turned is Wake for an owner that has looked at everything. Where no instance has "vrrp
// only" that means nothing here.
func (p *Plain) Turned() {
	p.mu.Lock()
	idle := p.turned && len(p.routers) == 0
	p.mu.Unlock()
	if !idle || slices.ContainsFunc(p.config().Instances, plain) {
		p.Wake()
	}
}

func plain(in *config.Instance) bool { return in.VRRP != nil && in.VRRP.Mode == config.VRRPOnly }

// Run is the loop. At the end the routers have left the election and the addresses
// are gone. It returns the errors of the keeper and the routers.
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
	for _, vr := range p.routers {
		p.end(vr)
	}
	p.mu.Unlock()
	stop() // the keeper deletes what is left
	return <-ended
}

// turn looks at every instance once, and returns when to look again.
func (p *Plain) turn() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.config()
	report := p.report()
	for _, vr := range p.routers {
		vr.instance = nil
	}
	for _, in := range c.Instances {
		if !plain(in) {
			continue
		}
		vr := p.routers[in.Name]
		if vr == nil {
			vr = p.addRouter(in.Name)
		}
		vr.instance = in
		p.follow(vr, instanceReport(report, in))
	}
	for _, vr := range p.routers {
		if vr.instance == nil {
			p.end(vr)
		}
	}
	p.turned = true
	if len(p.routers) == 0 {
		return time.Minute // whoever reads a file with one wakes this loop
	}
	return tick.Until(time.Second)
}

func instanceReport(r check.Report, in *config.Instance) check.InstanceReport {
	for _, i := range r.Instances {
		if i.Name == in.Name {
			return i
		}
	}
	return check.InstanceReport{Base: in.Priority, Effective: in.Priority}
}

func (p *Plain) addRouter(name string) *plainRouter {
	gate := vip.NewGate(nil, 0, nil)
	vr := &plainRouter{name: name, slot: &slot{name: name, gate: gate, holding: p.hold(gate), lease: true, slow: true}}
	if len(p.routers) == 0 {
		p.tasks.start(p.keep)
	}
	p.routers[name] = vr
	return vr
}

// end stops an instance: the peers are told when its addresses are down.
func (p *Plain) end(vr *plainRouter) {
	if vr.speaker != nil {
		vr.speaker.Shutdown()
		vr.stop()
		vr.speaker, vr.stop = nil, nil
	}
	vr.slot.revoke()
	vr.slot.holding.Set(vip.Wanted{})
	vr.last = plainDecision{}
}

// follow does for one instance what its file, its checks and VRRP say.
func (p *Plain) follow(vr *plainRouter, report check.InstanceReport) {
	in := vr.instance
	whole := place.InstanceOf(in)
	addrs, faults := p.place(whole, p.vmacs())
	priority := uint8(min(max(report.Effective, 1), 255))
	if in.VRRP.NoPeerIsFault && len(in.VRRP.Peers) == 0 {
		faults = append(faults, "no unicast_peer (unicast_fault_no_peer)")
	}
	if err := p.configure(vr, settingsOf(in), place.Advertised(whole), priority); err != nil {
		faults = append(faults, err.Error())
	}
	inputs := plainInputs{
		started: p.now() >= p.began+in.VRRP.StartupDelay, claimed: p.claimed(in), check: report, faults: faults,
	}
	if vr.speaker != nil {
		if decidePlain(inputs).runs {
			vr.speaker.Startup()
		} else {
			vr.speaker.Shutdown()
		}
	}
	m, st := vr.slot.moment(), vrrpnet.Status{}
	if vr.speaker != nil {
		if st = vr.speaker.Status(); st.State == vrrpcompat.Master {
			vr.slot.mastered(m)
			inputs.master = vr.slot.permitted()
		}
		if st.Announcements > vr.claims {
			vr.slot.holding.Announce("another router claimed the addresses")
		}
		vr.claims = st.Announcements
	}
	d := decidePlain(inputs)
	if d.state != vr.last.state {
		p.log.Info("vrrp only", "instance", vr.name, "state", d.state, "priority", priority, "reason", cmpReason(d.why, st.Reason))
	}
	vr.last = d
	// A term of ownership ends with a loss, and routers come and go.
	term, own := m.losses+1, false
	if d.up {
		if own, _ = vr.slot.open(term); own {
			vr.slot.gate.Renew(term, st.Until)
		}
	}
	vr.slot.holding.Set(vip.Wanted{Own: own, Term: term, Addresses: addrs, Schedule: place.ScheduleOf(whole.GARP)})
}

func cmpReason(why, reason string) string {
	if why != "" {
		return why
	}
	return reason
}

// configure gives the instance its virtual router, or says why there is none.
func (p *Plain) configure(vr *plainRouter, s speakerSettings, addrs []netip.Addr, priority uint8) error {
	if vr.speaker != nil && reflect.DeepEqual(vr.settings, s) {
		if vr.priority != priority {
			vr.priority = priority
			vr.speaker.SetPriority(priority)
		}
		if !slices.Equal(vr.addrs, addrs) {
			if err := vr.speaker.SetAddresses(addrs); err != nil {
				return err
			}
			vr.addrs = addrs
		}
		if st := vr.speaker.Status(); st.Down != nil && p.now()-vr.began > downGrace {
			return fmt.Errorf("cannot speak VRRP: %w", st.Down)
		}
		return nil
	}
	if vr.speaker != nil {
		vr.speaker.Shutdown()
		vr.stop()
		vr.speaker, vr.stop = nil, nil
	}
	r, err := p.newSpeaker(vr.name, s, addrs, priority, vr.slot.attach(false))
	if err != nil {
		return err
	}
	r.Shutdown() // until the decision is to take part
	vr.speaker, vr.settings, vr.addrs, vr.priority, vr.began, vr.claims = r, s, addrs, priority, p.now(), 0
	vr.stop = p.tasks.start(func(ctx context.Context) error {
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
	for name, vr := range p.routers {
		if vr.speaker != nil && vr.settings.net.VMAC != nil {
			if link := vr.speaker.Status().VMAC; link != "" {
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
	for _, vr := range p.routers {
		if vr.instance == nil {
			continue
		}
		v := api.VirtualRouter{Instance: vr.name, Mode: string(config.VRRPOnly), Guarantee: plainGuarantee}
		if vr.speaker != nil {
			describeSpeaker(&v, vr.settings, vr.speaker.Status(), names)
		}
		v.State, v.Up = vr.last.state, vr.last.up && vr.slot.permitted()
		v.Why = vr.last.why
		if v.Why == "" && vr.speaker != nil {
			v.Why = vr.speaker.Status().Reason
		}
		for _, k := range vr.slot.holding.Status().Addresses {
			v.Addresses = append(v.Addresses, KeptAddress(vr.name, k))
		}
		out = append(out, v)
	}
	return out
}
