package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
)

// Network tells the lab's networks apart.
type Network int

const (
	// Front is where clients, the observer and the virtual addresses are; eth0.
	Front Network = iota
	// Peer joins the nodes only, when Options.PeerNetwork asks for it; eth1.
	Peer
)

// String returns the name of the network's interface in every host.
func (n Network) String() string { return fmt.Sprintf("eth%d", int(n)) }

// Options describes a lab. The zero value is one with three nodes and one client.
type Options struct {
	Nodes   int // default 3
	Clients int // default 1

	// PeerNetwork adds a second network between the nodes, so that their links
	// to each other can be cut while clients still reach all of them.
	PeerNetwork bool

	// Subnet4 and Subnet6 are those of the front network, by default 10.99.0.0/24
	// and fd00:99::/64. Nodes are .11, .12, ...; clients .200, .201, ...; the
	// observer .224 to .247; IPv6 uses the same digits (::11, ::200, ::224).
	Subnet4, Subnet6 netip.Prefix
	// PeerSubnet4 and PeerSubnet6: by default 10.98.0.0/24 and fd00:98::/64.
	PeerSubnet4, PeerSubnet6 netip.Prefix

	// MulticastSnooping leaves it on in the switch. It is off by default, as a
	// switch without a querier should have it.
	MulticastSnooping bool

	// Dir receives the output of the lab's programs. By default a temporary
	// directory, which Close removes unless KeepDir is set.
	Dir     string
	KeepDir bool
}

const (
	maxNodes   = 64
	maxClients = 24

	// probeTags is how many addresses a Prober asks from in turn. Each that asks at the
	// same time has its own, or the answers to one would be taken for the other's.
	probeTags   = 8
	maxProbers  = 3
	nodeBase    = 11
	clientBase  = 200
	observerTag = 224
)

// Lab is a set of hosts in network namespaces. Its methods may be called from
// several goroutines.
type Lab struct {
	prefix   string
	dir      string
	ownDir   bool
	nets     []labNet
	sw       *Host // the switch: bridges and ports, no addresses
	nodes    []*Host
	clients  []*Host
	observer *Host

	faults *faults

	mu       sync.Mutex
	procs    []*Proc
	closers  map[int]func() // run by Close
	closeSeq int
	procSeq  int
	closed   bool
	throttle int
	probers  [maxProbers]bool // whose addresses are in use
}

type labNet struct {
	id     Network
	v4, v6 netip.Prefix
	bridge int // ifindex in the switch
}

var labSeq atomic.Int64

// New builds a lab, after sweeping what labs of dead processes left behind. The
// context bounds the building only. New needs root.
func New(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("testnet: network namespaces need root")
	}
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("testnet: sweep leftovers: %w", err)
	}
	l := &Lab{prefix: fmt.Sprintf("%s%d-%d-", namePrefix, os.Getpid(), labSeq.Add(1)), dir: o.Dir}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", l.prefix)
		if err != nil {
			return nil, fmt.Errorf("testnet: make directory for output: %w", err)
		}
		l.dir, l.ownDir = dir, !o.KeepDir
	}
	if err := l.build(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("testnet: build lab: %w", err), l.Close())
	}
	return l, nil
}

func (o *Options) defaults() error {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Clients == 0 {
		o.Clients = 1
	}
	if o.Nodes < 0 || o.Nodes > maxNodes || o.Clients < 0 || o.Clients > maxClients {
		return fmt.Errorf("testnet: %d nodes, %d clients: at most %d and %d", o.Nodes, o.Clients, maxNodes, maxClients)
	}
	for _, d := range []struct {
		p *netip.Prefix
		s string
	}{
		{&o.Subnet4, "10.99.0.0/24"}, {&o.Subnet6, "fd00:99::/64"},
		{&o.PeerSubnet4, "10.98.0.0/24"}, {&o.PeerSubnet6, "fd00:98::/64"},
	} {
		def := netip.MustParsePrefix(d.s)
		if !d.p.IsValid() {
			*d.p = def
		}
		if d.p.Addr().Is4() != def.Addr().Is4() || d.p.Addr().Is4() && d.p.Bits() > 24 || d.p.Bits() > 112 {
			return fmt.Errorf("testnet: subnet %v: must be like %v", *d.p, def)
		}
		*d.p = d.p.Masked()
	}
	return nil
}

// Close kills every program of the lab and removes its namespaces and files. It
// may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers, procs := l.closers, l.procs
	l.closers, l.procs = nil, nil
	l.mu.Unlock()

	for _, f := range closers {
		f()
	}
	var errs []error
	for _, p := range procs {
		_ = p.Kill()
	}
	for _, p := range procs {
		if _, err := p.Wait(5 * time.Second); errors.Is(err, ErrStillRunning) {
			errs = append(errs, err)
		}
	}
	if l.faults != nil {
		l.faults.close()
	}
	// Grandchildren, such as check scripts, outlive their parent.
	for _, h := range l.allHosts() {
		killInside(h.nsName)
	}
	for _, h := range l.allHosts() {
		errs = append(errs, h.close())
	}
	if l.ownDir {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("testnet: close lab: %w", err)
	}
	return nil
}

// onClose has f called by Close, before programs are killed. What it returns
// forgets f.
func (l *Lab) onClose(f func()) (forget func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closers == nil {
		l.closers = map[int]func(){}
	}
	l.closeSeq++
	n := l.closeSeq
	l.closers[n] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.closers, n)
	}
}

// Node returns node i, counted from 0; its name is n1 for 0.
func (l *Lab) Node(i int) *Host { return l.nodes[i] }

// Nodes returns all nodes.
func (l *Lab) Nodes() []*Host { return append([]*Host(nil), l.nodes...) }

// Client returns client i, counted from 0; its name is c1 for 0.
func (l *Lab) Client(i int) *Host { return l.clients[i] }

// Clients returns all clients.
func (l *Lab) Clients() []*Host { return append([]*Host(nil), l.clients...) }

// Observer returns the host the Prober asks from. It stands outside the
// experiment: Isolate and Split leave it connected to everyone.
func (l *Lab) Observer() *Host { return l.observer }

// Dir returns the directory that holds the output of the lab's programs.
func (l *Lab) Dir() string { return l.dir }

// VIP4 returns the front address ending in the given number, 100 for 10.99.0.100.
// Numbers 1 to 10 and 100 to 199 are free for virtual addresses.
func (l *Lab) VIP4(last int) netip.Addr { return nth(l.nets[Front].v4, last) }

// VIP6 returns the IPv6 front address with the same digits, fd00:99::100.
func (l *Lab) VIP6(last int) netip.Addr { return nth(l.nets[Front].v6, last) }

// HostByMAC returns the host one of whose interfaces has the address, or nil.
func (l *Lab) HostByMAC(mac net.HardwareAddr) *Host {
	for _, h := range l.allHosts() {
		for _, m := range h.macs {
			if string(m) == string(mac) {
				return h
			}
		}
	}
	return nil
}

// holderName names the owner of a hardware address: the host, else the address
// itself, as for a virtual MAC that several nodes may use.
func (l *Lab) holderName(mac [6]byte) string {
	if h := l.HostByMAC(mac[:]); h != nil {
		return h.name
	}
	return net.HardwareAddr(mac[:]).String()
}

func (l *Lab) endHosts() []*Host {
	hs := append(l.Nodes(), l.clients...)
	if l.observer != nil {
		hs = append(hs, l.observer)
	}
	return hs
}

func (l *Lab) allHosts() []*Host {
	hs := l.endHosts()
	if l.sw != nil {
		hs = append(hs, l.sw)
	}
	return hs
}

// nth returns the address of the prefix whose last group reads as n: decimal for
// IPv4, the same digits as hexadecimal for IPv6.
func nth(p netip.Prefix, n int) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		b[3] = byte(n)
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	b[14], b[15] = byte(n/100), byte(n/10%10<<4|n%10)
	return netip.AddrFrom16(b)
}

func ipNet(a netip.Addr, bits int) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
}
