package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// vipsPin and deadlinesPin are the names of the pinned maps in a pin directory. A
// later process reads there what it must keep shut, and until when a lease lasts.
const (
	vipsPin      = "addresses"
	deadlinesPin = "deadlines"
)

// A tcxAttacher attaches by tcx links (Linux 6.6 by its documentation) pinned in a
// bpffs. Without the pin the link, and with it the guard, would end with the
// process: it would fail open.
type tcxAttacher struct {
	ns     *netNS
	pins   *pinDir
	shared bool // somebody else has maps in the directory of the pins

	mu    sync.Mutex // links, never held while attaching
	links map[hook]*tcxLink
}

func (a *tcxAttacher) held(k hook) *tcxLink {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.links[k]
}

func (a *tcxAttacher) hold(k hook, l *tcxLink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l == nil {
		delete(a.links, k)
	} else {
		a.links[k] = l
	}
}

type tcxLink struct {
	link link.Link
	id   link.ID
	prog ebpf.ProgramID
}

func newTCXAttacher(ns *netNS, pins *pinDir) *tcxAttacher {
	return &tcxAttacher{ns: ns, pins: pins, links: map[hook]*tcxLink{}}
}

func tcxAttachType(dir direction) ebpf.AttachType {
	if dir == ingress {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

func (a *tcxAttacher) path(k hook) string {
	return filepath.Join(a.pins.path, fmt.Sprintf("link_%d_%s", k.ifindex, k.dir))
}

func (a *tcxAttacher) ensure(dev device, dir direction, p *program) (change, error) {
	k := hook{dev.index, dir}
	done := unchanged
	err := a.ns.do(func() error {
		l := a.held(k)
		if l == nil {
			l = a.adopt(k)
			done = adopted
		}
		if l == nil {
			done = attached
			return a.attach(k, p.Program, a.path(k))
		}
		if err := l.use(p.Program); err != nil {
			return fmt.Errorf("bpf: %s %s: %w", dev.name, dir, err)
		}
		a.hold(k, l)
		first, err := a.first(k, l.id)
		if err != nil {
			return err
		}
		if !first {
			done = repaired
			return a.reattach(k, l, p)
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("%s %s: %w", dev.name, dir, err)
	}
	return done, nil
}

// use makes p the program of the link. The exchange is atomic.
func (l *tcxLink) use(p *ebpf.Program) error {
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("program info: %w", err)
	}
	id, _ := info.ID()
	if l.prog == id {
		return nil
	}
	if err := l.link.Update(p); err != nil {
		return err
	}
	l.prog = id
	return nil
}

// adopt returns the link that an earlier process pinned for k, if it is still
// attached there. Interface numbers are used again, also in other namespaces, so
// the pin alone proves nothing.
func (a *tcxAttacher) adopt(k hook) *tcxLink {
	lk, err := link.LoadPinnedLink(a.path(k), nil)
	if err != nil {
		return nil
	}
	if info, err := lk.Info(); err == nil {
		t := info.TCX()
		if t != nil && t.Ifindex == uint32(k.ifindex) && ebpf.AttachType(t.AttachType) == tcxAttachType(k.dir) {
			if ids, err := a.chain(k); err == nil && slices.ContainsFunc(ids, func(p link.AttachedProgram) bool { return isLink(p, info.ID) }) {
				return &tcxLink{link: lk, id: info.ID, prog: info.Program}
			}
		}
	}
	// A dead link, or one of a device that has moved away: of no use to anybody.
	lk.Unpin()
	lk.Close()
	return nil
}

// chain returns what is attached to a hook, in the order in which it runs.
func (a *tcxAttacher) chain(k hook) ([]link.AttachedProgram, error) {
	q, err := link.QueryPrograms(link.QueryOptions{Target: k.ifindex, Attach: tcxAttachType(k.dir)})
	if err != nil {
		return nil, fmt.Errorf("bpf: list tcx programs: %w", err)
	}
	return q.Programs, nil
}

func isLink(p link.AttachedProgram, id link.ID) bool {
	got, ok := p.LinkID()
	return ok && got == id
}

// first says whether the link is the first of its chain, not counting other
// instances of raftvip: they either drop a packet or hand it on.
func (a *tcxAttacher) first(k hook, id link.ID) (bool, error) {
	chain, err := a.chain(k)
	if err != nil {
		return false, err
	}
	for _, p := range chain {
		if isLink(p, id) {
			return true, nil
		}
		if !isRaftvip(p.ID) {
			return false, nil
		}
	}
	return false, nil
}

// isRaftvip says whether a program is one of this package, by its name. The kernel
// tells only those who have CAP_SYS_ADMIN; to others it is somebody else's.
func isRaftvip(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && strings.HasPrefix(info.Name, programPrefix)
}

// attach makes a new link at the head of the chain and pins it.
func (a *tcxAttacher) attach(k hook, p *ebpf.Program, pin string) error {
	lk, err := link.AttachTCX(link.TCXOptions{
		Interface: k.ifindex,
		Program:   p,
		Attach:    tcxAttachType(k.dir),
		Anchor:    link.Head(),
	})
	if err != nil {
		return fmt.Errorf("bpf: %w", err)
	}
	info, err := lk.Info()
	if err == nil {
		os.Remove(pin) // The left-over of an interrupted repair.
		err = lk.Pin(pin)
	}
	if err != nil {
		lk.Close()
		return fmt.Errorf("bpf: pin tcx link at %s: %w", pin, err)
	}
	a.hold(k, &tcxLink{link: lk, id: info.ID, prog: info.Program})
	return nil
}

// reattach puts a new link at the head before it takes the old one away; links
// cannot be moved. The new link starts with a copy of the program, as the old one
// still has the original.
func (a *tcxAttacher) reattach(k hook, old *tcxLink, p *program) error {
	second, err := p.again()
	if err != nil {
		return err
	}
	defer second.Close()
	if err := a.attach(k, second, a.path(k)+"_new"); err != nil {
		return err
	}
	if err := dropLink(old.link); err != nil {
		return fmt.Errorf("bpf: remove overtaken tcx link: %w", err)
	}
	l := a.held(k)
	if err := l.link.Pin(a.path(k)); err != nil {
		return fmt.Errorf("bpf: rename pin of tcx link: %w", err)
	}
	return l.use(p.Program)
}

// dropLink detaches, unpins and closes. Detaching first makes the end certain: the
// kernel may put off releasing an unpinned link.
func dropLink(lk link.Link) error {
	if d, ok := lk.(interface{ Detach() error }); ok {
		// Fails on a link whose device is gone, which has nothing to detach.
		_ = d.Detach()
	}
	err := lk.Unpin()
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, lk.Close())
}

func (a *tcxAttacher) detach(ifindex int, dir direction, _ bool) error {
	k := hook{ifindex, dir}
	l := a.held(k)
	if l == nil {
		return nil
	}
	a.hold(k, nil)
	if err := dropLink(l.link); err != nil {
		return fmt.Errorf("bpf: remove tcx link of interface %d: %w", ifindex, err)
	}
	return nil
}

// finish removes pins that nobody holds and pins the new maps.
func (a *tcxAttacher) finish(m *gateMaps) error {
	held := map[string]bool{}
	for k := range a.links {
		held[filepath.Base(a.path(k))] = true
	}
	err := removePinnedLinks(a.pins.path, func(name string) bool { return !held[name] })
	return errors.Join(err, a.pins.pinMaps(m))
}

// attached looks at the link alone: whether somebody has put a program before it is
// for the check. Only what is in links is open, so its descriptor is not closed meanwhile.
func (a *tcxAttacher) attached(ifindex int, dir direction) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.links[hook{ifindex, dir}]
	if l == nil {
		return errNotAttached
	}
	info, err := l.link.Info()
	if err != nil {
		return fmt.Errorf("bpf: tcx link: %w", err)
	}
	// The interface of a link is 0 when it has gone.
	if t := info.TCX(); t == nil || t.Ifindex != uint32(ifindex) {
		return errNotAttached
	}
	return nil
}

func (a *tcxAttacher) close() error {
	var errs []error
	for k := range a.links {
		errs = append(errs, a.detach(k.ifindex, k.dir, false))
	}
	if !a.shared {
		errs = append(errs, a.pins.remove())
	}
	return errors.Join(errs...)
}

// abandon closes the links; their pins keep them.
func (a *tcxAttacher) abandon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		l.link.Close()
	}
	clear(a.links)
}

// removePinnedLinks detaches and removes the pinned links in dir that match.
func removePinnedLinks(dir string, match func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("bpf: read pin directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "link_") || !match(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		lk, err := link.LoadPinnedLink(path, nil)
		if err == nil {
			err = dropLink(lk)
		}
		if err != nil {
			// Without the pin the kernel lets go of whatever it was.
			if rmErr := os.Remove(path); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("bpf: remove pinned link %s: %w", path, errors.Join(err, rmErr)))
			}
		}
	}
	return errors.Join(errs...)
}
