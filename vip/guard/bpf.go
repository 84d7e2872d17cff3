package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// An attacher puts programs in front of a device's packets and keeps them there
// when the daemon dies.
type attacher interface {
	// ensure makes p the first program of the device and direction. It does nothing
	// if that is so already.
	ensure(dev device, dir direction, p *program) (change, error)
	// detach undoes ensure. A device that is gone took its programs with it.
	detach(ifindex int, dir direction, gone bool) error
	// attached asks the kernel whether the program is the first of the device and
	// direction now. It may be called at any time.
	attached(ifindex int, dir direction) error
	// finish is called once after the first round of ensure. It removes what an
	// earlier process left on devices that are not wanted any more.
	finish(m *gateMaps) error
	close() error
	// abandon lets go of descriptors and leaves the kernel as it is.
	abandon()
}

// A bpfBackend is the eBPF gate: maps, programs, and a way to attach them.
type bpfBackend struct {
	name  Kind
	maps  *gateMaps
	progs [2]*program
	att   attacher

	mu   sync.Mutex
	vmac map[uint32]*program // egress programs by group
}

func newBPFBackend(name Kind, now func() time.Duration) (_ *bpfBackend, err error) {
	b := &bpfBackend{name: name, vmac: map[uint32]*program{}}
	defer func() {
		if err != nil {
			b.release()
		}
	}()
	// Matters before Linux 5.11 (by its documentation) and fails without CAP_BPF,
	// which creating the maps then reports better.
	_ = rlimit.RemoveMemlock()
	if b.maps, err = newGateMaps(); err != nil {
		return nil, err
	}
	for _, dir := range []direction{ingress, egress} {
		if b.progs[dir], err = newProgram(programPrefix+dir.String(), func() asm.Instructions { return gateProgram(b.maps, dir) }); err != nil {
			return nil, err
		}
	}
	if err = selfTest(b.maps, b.progs, now); err != nil {
		return nil, err
	}
	if err = b.maps.resetDrops(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *bpfBackend) kind() Kind { return b.name }

func (b *bpfBackend) arm(group uint32, addrs []netip.Addr) error { return b.maps.putAll(addrs, group) }

func (b *bpfBackend) disarm(_ uint32, addrs []netip.Addr) error {
	var errs []error
	for _, a := range addrs {
		errs = append(errs, b.maps.remove(a))
	}
	return errors.Join(errs...)
}

func (b *bpfBackend) setDeadline(group uint32, sinceBoot time.Duration) {
	b.maps.setDeadline(group, sinceBoot)
}

// settle has nothing to wait for: programs read the deadline that was stored.
func (b *bpfBackend) settle(uint32) {}

func (b *bpfBackend) attached(ifindex int) error {
	for _, dir := range []direction{egress, ingress} {
		if err := b.att.attached(ifindex, dir); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

func (b *bpfBackend) ensure(dev device) (change, error) {
	out, err := b.egressProgram(dev)
	if err != nil {
		return unchanged, err
	}
	// Egress first: it alone keeps the address from being answered.
	c, err := b.att.ensure(dev, egress, out)
	if err != nil {
		return c, err
	}
	c2, err := b.att.ensure(dev, ingress, b.progs[ingress])
	return max(c, c2), err
}

// egressProgram returns the program for the device, loading that of a virtual MAC
// when it is first wanted.
func (b *bpfBackend) egressProgram(dev device) (*program, error) {
	if !dev.vmac {
		return b.progs[egress], nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.vmac[dev.group]; p != nil {
		return p, nil
	}
	p, err := newProgram(fmt.Sprintf("%sv%d", programPrefix, dev.group), func() asm.Instructions { return vmacProgram(b.maps, dev.group) })
	if err != nil {
		return nil, err
	}
	b.vmac[dev.group] = p
	return p, nil
}

func (b *bpfBackend) detach(ifindex int, gone bool) error {
	return errors.Join(b.att.detach(ifindex, ingress, gone), b.att.detach(ifindex, egress, gone))
}

func (b *bpfBackend) finish() error { return b.att.finish(b.maps) }

func (b *bpfBackend) vmacSupported() bool { return true }

func (b *bpfBackend) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (b *bpfBackend) drops() (Drops, error) {
	in, err1 := b.maps.dropped(ingress)
	out, err2 := b.maps.dropped(egress)
	return Drops{Ingress: in, Egress: out, Total: in + out}, errors.Join(err1, err2)
}

func (b *bpfBackend) close() error {
	err := b.att.close()
	b.release()
	return err
}

func (b *bpfBackend) abandon() {
	b.att.abandon()
	b.release()
}

// release lets go of programs and maps without detaching.
func (b *bpfBackend) release() {
	for _, p := range b.progs {
		if p != nil {
			p.Close()
		}
	}
	for _, p := range b.vmac {
		p.Close()
	}
	if b.maps != nil {
		b.maps.close()
	}
}
