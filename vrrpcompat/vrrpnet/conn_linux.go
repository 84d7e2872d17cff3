package vrrpnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vrrpcompat"
	"golang.org/x/sys/unix"
)

// A Conn sends and receives the advertisements of one virtual router on one
// interface. It is bound to the interface and the source address that were there
// when it was opened; [Conn.Check] tells when they are not any more. Its methods
// may be called from several goroutines.
type Conn struct {
	opts  Options
	at    place
	in    *socket
	out   *socket
	vmac  *vmac // nil without
	peers []netip.Addr

	reading sync.Mutex // guards buf and the order of what is received
	buf     *buffer

	closing sync.Once
	err     error
}

// Open opens the sockets, after making the virtual MAC interface if there is to be
// one. The error wraps [ErrNoInterface] or [ErrNoSource] while the interface cannot
// be used, which may end, and [ErrVMACTaken] where a virtual MAC cannot be ours.
// It needs CAP_NET_RAW, and CAP_NET_ADMIN for a virtual MAC.
func Open(o Options) (*Conn, error) {
	o, err := o.ready()
	if err != nil {
		return nil, err
	}
	c, v, err := open(o, nil)
	if err != nil && v != nil {
		err = errors.Join(err, v.close(o))
	}
	return c, err
}

// open is Open with a virtual MAC that an earlier Conn had: it is kept if it is
// still right, with the addresses on it, and closed if not. After an error it is
// returned, if it is still there.
func open(o Options, kept *vmac) (*Conn, *vmac, error) {
	at, err := o.locate()
	if err != nil {
		err = fmt.Errorf("open virtual router %d: %w", o.VRID, err)
		if kept != nil && errors.Is(err, ErrNoInterface) && !kept.exists() {
			return nil, nil, errors.Join(err, kept.close(o))
		}
		return nil, kept, err
	}
	c := &Conn{opts: o, at: at, buf: new(buffer)}
	for _, p := range o.Peers {
		// keepalived files list all routers on all of them; this one is not its own peer.
		if p != at.source {
			c.peers = append(c.peers, p)
		}
	}
	if o.VMAC != nil {
		if kept != nil && !kept.present(o, at.base) {
			err = kept.close(o)
			kept = nil
		}
		if c.vmac = kept; kept == nil && err == nil {
			c.vmac, err = o.openVMAC(at.base)
		}
	}
	if err == nil {
		err = c.openSockets()
	}
	if err != nil {
		c.closeSockets()
		return nil, c.vmac, fmt.Errorf("open virtual router %d on %s: %w", o.VRID, at.base.Attrs().Name, err)
	}
	return c, c.vmac, nil
}

func (c *Conn) openSockets() error {
	in, out := c.at.base.Attrs(), c.at.base.Attrs()
	var group netip.Addr
	if !c.opts.unicast() {
		group = c.opts.Group
		if c.vmac != nil {
			// A frame from the virtual MAC, which is how another router speaks, is given
			// by the kernel to our interface with the same MAC and not to the base; one
			// from any other MAC is given to both.
			in = c.vmac.link.Attrs()
		}
	}
	if c.opts.transmitsVMAC() {
		out = c.vmac.link.Attrs()
	}
	var err error
	if c.in, err = openReceiver(c.opts.IPv6, in.Index, in.Name, c.opts.VRID, group); err != nil {
		return fmt.Errorf("receive on %s: %w", in.Name, err)
	}
	if c.out, err = openSender(c.opts.IPv6, out.Index, out.Name, c.opts.TTL, c.opts.transmitsVMAC()); err != nil {
		return fmt.Errorf("send on %s: %w", out.Name, err)
	}
	return nil
}

func (c *Conn) closeSockets() {
	for _, s := range []*socket{c.in, c.out} {
		if s != nil {
			_ = s.close()
		}
	}
}

// Close ends a Receive that waits, closes the sockets and removes the virtual MAC
// interface, with any address that is still on it.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		c.closeSockets()
		if c.vmac != nil {
			c.err = c.vmac.close(c.opts)
		}
	})
	return c.err
}

// Source returns the address that advertisements are sent from.
func (c *Conn) Source() netip.Addr { return c.at.source }

// Interface returns the name of the interface that the virtual router is on, below
// a virtual MAC.
func (c *Conn) Interface() string { return c.at.base.Attrs().Name }

// VMAC returns the name of the virtual MAC's interface, where the virtual addresses
// belong, or "" without one.
func (c *Conn) VMAC() string {
	if c.vmac == nil {
		return ""
	}
	return c.vmac.link.Attrs().Name
}

// Destinations returns where advertisements are sent to: the group, or the peers
// other than this router.
func (c *Conn) Destinations() []netip.Addr {
	if c.opts.unicast() {
		return slices.Clone(c.peers)
	}
	return []netip.Addr{c.opts.Group}
}

// Send sends the advertisement to the group or to every peer. It does not wait: the
// error wraps [ErrQueueFull] where there was no room. What could be sent is sent in
// any case; sent is the number of destinations.
func (c *Conn) Send(a vrrpcompat.Advertisement, sum vrrpcompat.Checksum) (sent int, err error) {
	var errs []error
	for _, dst := range c.Destinations() {
		payload, err := a.Append(nil, c.at.source, dst, sum)
		if err != nil {
			return sent, err // it has no encoding, for any destination
		}
		if err := c.sendTo(payload, dst); err != nil {
			errs = append(errs, err)
			continue
		}
		sent++
	}
	return sent, errors.Join(errs...)
}

func (c *Conn) sendTo(payload []byte, dst netip.Addr) error {
	if err := c.out.send(payload, c.at.source, dst); err != nil {
		return fmt.Errorf("send to %v on %s: %w", dst, c.Interface(), err)
	}
	return nil
}

// Receive waits for the next packet of this virtual router on this interface. The
// payload is the caller's. What was sent to another address than Destinations is
// returned as well: it is for the checks to refuse and to name it. The error is
// that of ctx, or wraps net.ErrClosed after Close. Only one Receive waits at a
// time.
func (c *Conn) Receive(ctx context.Context) (vrrpcompat.Datagram, error) {
	for {
		if err := c.wait(ctx); err != nil {
			return vrrpcompat.Datagram{}, err
		}
		if d, ok, err := c.next(); ok || err != nil {
			return d, err
		}
	}
}

// wait waits until there may be something to receive.
func (c *Conn) wait(ctx context.Context) error {
	if err := c.in.file.SetReadDeadline(time.Time{}); err != nil {
		return closed(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.in.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := c.in.wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// next takes a packet that is there already; ok is false if there is none.
func (c *Conn) next() (d vrrpcompat.Datagram, ok bool, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		d, ok, err = c.in.receive(c.buf, c.opts.VRID)
		switch {
		case err == unix.EAGAIN:
			return d, false, nil
		case err != nil:
			return d, false, fmt.Errorf("receive: %w", err)
		case ok:
			return d, true, nil
		}
	}
}

// Check asks the kernel whether the interface and the source address are still
// those that the Conn was opened with. If not, it has to be closed, and another to
// be opened. The error wraps [ErrNoInterface] or [ErrNoSource] if there is nothing
// to open it on now, and [ErrMoved] if there is.
func (c *Conn) Check() error { return c.check(c.opts) }

// check is Check with other virtual addresses than the Conn was opened with.
func (c *Conn) check(o Options) error {
	at, err := o.locate()
	if err != nil {
		return err
	}
	if !at.same(c.at) {
		return fmt.Errorf("%w: was %v on %s, is %v on %s", ErrMoved, c.at.source, c.Interface(), at.source, at.base.Attrs().Name)
	}
	if c.vmac != nil && !c.vmac.present(c.opts, at.base) {
		return fmt.Errorf("%w: %s is gone or down", ErrMoved, c.VMAC())
	}
	return nil
}

// ErrMoved says that a router's interface or source address is another one than
// before.
var ErrMoved = errors.New("interface or source address changed")
