package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Probe takes part in a probe: it listens for ProbeLasts and sends meanwhile. Kinds
// that it cannot send or hear, for want of a privilege, are in Unable. The error is
// that the plan is wrong, or the context's.
func Probe(ctx context.Context, plan Plan) (Probed, error) {
	session, err := parseSession(plan.Session)
	if err != nil {
		return Probed{}, err
	}
	if plan.Nodes < 1 || plan.Nodes > MaxNodes || plan.Self < 0 || plan.Self >= plan.Nodes {
		return Probed{}, fmt.Errorf("node %d of %d: must be one of at most %d", plan.Self, plan.Nodes, MaxNodes)
	}
	p := &prober{plan: plan, session: session, seen: make(map[Seen]RoundSet)}
	defer p.close()
	p.open()
	return p.run(ctx)
}

// A socket sends and hears probes of one family: to a group and to nodes, as far as
// its kinds are not 0.
type socket struct {
	six                bool
	multicast, unicast Kind
	conn               net.PacketConn
	v4                 *ipv4.PacketConn
	v6                 *ipv6.PacketConn
	joined             map[string]int // interfaces by name -> index
	local              netip.Addr     // where unicast arrives
	port               int            // of the group, for UDP
}

type prober struct {
	plan    Plan
	session [8]byte
	sockets []*socket
	result  Probed

	mu   sync.Mutex
	seen map[Seen]RoundSet // with Rounds 0 in the key
}

func (p *prober) close() {
	for _, s := range p.sockets {
		s.conn.Close()
	}
}

// reusable lets several daemons of one machine hear the group.
var reusable = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); e != nil {
		return e
	}
	return err
}}

// open opens the sockets that the plan needs and notes what cannot be opened.
func (p *prober) open() {
	for _, six := range []bool{false, true} {
		local := p.plan.Local.Addr().IsValid() && p.plan.Local.Addr().Is6() == six
		group := slices.ContainsFunc(p.plan.Interfaces, func(i Interface) bool { return i.Multicast && i.has(six) })
		udp, ip, any := "udp4", fmt.Sprintf("ip4:%d", protocolVRRP), "0.0.0.0"
		if six {
			udp, ip, any = "udp6", fmt.Sprintf("ip6:%d", protocolVRRP), "::"
		}
		if group {
			p.openSocket(&socket{six: six, multicast: MulticastUDP, port: ProbePort}, udp, netip.AddrPortFrom(unspecified(six), ProbePort).String())
		}
		if local {
			if s := p.openSocket(&socket{six: six, unicast: UnicastUDP}, udp, p.plan.Local.String()); s != nil {
				if err := s.dontFragment(); err != nil {
					p.unable(UnicastFull, six, "", err)
				}
			}
		}
		if group || local {
			s := &socket{six: six}
			if group {
				s.multicast = MulticastVRRP
			}
			if local {
				s.unicast = UnicastVRRP
			}
			p.openSocket(s, ip, any)
		}
	}
}

func unspecified(six bool) netip.Addr {
	if six {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func (p *prober) unable(kind Kind, six bool, iface string, err error) {
	why := err.Error()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		why = "not permitted (CAP_NET_RAW)"
	}
	p.result.Unable = append(p.result.Unable, Unable{Kind: kind, Six: six, Interface: iface, Why: Clean(why)})
}

// openSocket opens a socket and joins the group on all interfaces; nil if it cannot.
func (p *prober) openSocket(s *socket, network, address string) *socket {
	conn, err := reusable.ListenPacket(context.Background(), network, address)
	if err == nil {
		s.conn = conn
		err = s.prepare()
		if err != nil {
			conn.Close()
		}
	}
	if err != nil {
		for _, kind := range []Kind{s.multicast, s.unicast} {
			if kind != 0 {
				p.unable(kind, s.six, "", err)
			}
			if kind == UnicastUDP {
				p.unable(UnicastFull, s.six, "", err)
			}
		}
		return nil
	}
	s.local = p.plan.Local.Addr()
	s.joined = make(map[string]int)
	if s.multicast != 0 {
		for _, i := range p.plan.Interfaces {
			if !i.has(s.six) {
				continue
			}
			if err := s.join(i); err != nil {
				p.unable(s.multicast, s.six, i.Name, fmt.Errorf("join group on %s: %w", i.Name, err))
				continue
			}
			s.joined[i.Name] = i.Index
		}
	}
	p.sockets = append(p.sockets, s)
	return s
}

// prepare sets hop limits as VRRP has them (RFC 9568 5.1.1.3) and asks the kernel for
// where packets arrive.
func (s *socket) prepare() error {
	if s.six {
		s.v6 = ipv6.NewPacketConn(s.conn)
		return errors.Join(s.v6.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true),
			s.v6.SetMulticastHopLimit(255), s.v6.SetHopLimit(255), s.v6.SetMulticastLoopback(false))
	}
	s.v4 = ipv4.NewPacketConn(s.conn)
	return errors.Join(s.v4.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true),
		s.v4.SetMulticastTTL(255), s.v4.SetTTL(255), s.v4.SetMulticastLoopback(false))
}

func (s *socket) join(i Interface) error {
	ifi := &net.Interface{Index: i.Index, Name: i.Name}
	if s.six {
		return s.v6.JoinGroup(ifi, &net.IPAddr{IP: group6.AsSlice()})
	}
	return s.v4.JoinGroup(ifi, &net.IPAddr{IP: group4.AsSlice()})
}

// dontFragment makes packets that are too long be lost rather than cut, whatever the
// kernel believes of the path.
func (s *socket) dontFragment() error {
	raw, err := s.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		if s.six {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		}
	}); e != nil {
		return e
	}
	return err
}

// run listens, sends, and returns what was seen.
func (p *prober) run(ctx context.Context) (Probed, error) {
	end := time.Now().Add(ProbeLasts)
	for _, s := range p.sockets {
		if err := s.conn.SetReadDeadline(end); err != nil {
			return Probed{}, fmt.Errorf("listen for probes: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() {
		for _, s := range p.sockets {
			_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	var listeners sync.WaitGroup
	for _, s := range p.sockets {
		listeners.Go(func() { p.listen(s) })
	}
	p.sendRounds(ctx)
	listeners.Wait()
	if err := ctx.Err(); err != nil {
		return Probed{}, fmt.Errorf("probe: %w", err)
	}
	for s, rounds := range p.seen {
		s.Rounds = rounds
		p.result.Seen = append(p.result.Seen, s)
	}
	return p.result, nil
}

func (p *prober) sendRounds(ctx context.Context) {
	for round := range Rounds {
		wait := probeEvery
		if round == 0 {
			wait = probeFirst
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		for _, s := range p.sockets {
			for name, index := range s.joined {
				to, zone := group4, ""
				if s.six {
					to, zone = group6, name
				}
				p.send(s, round, Sent{Kind: s.multicast, Six: s.six, Interface: name}, s.address(to, zone, s.port), index)
			}
			for number, peer := range p.plan.Peers {
				if s.unicast == 0 || peer.Addr().Is6() != s.six || number == p.plan.Self {
					continue
				}
				to := s.address(peer.Addr(), "", int(peer.Port()))
				p.send(s, round, Sent{Kind: s.unicast, Six: s.six, To: number}, to, 0)
				if s.unicast == UnicastUDP {
					p.send(s, round, Sent{Kind: UnicastFull, Six: s.six, To: number}, to, 0)
				}
			}
		}
	}
}

// address makes the address that the socket's kind of connection takes.
func (s *socket) address(ip netip.Addr, zone string, port int) net.Addr {
	if _, udp := s.conn.(*net.UDPConn); udp {
		return &net.UDPAddr{IP: ip.AsSlice(), Zone: zone, Port: port}
	}
	return &net.IPAddr{IP: ip.AsSlice(), Zone: zone}
}

const (
	header4   = 20 // RFC 791 3.1, without options
	header6   = 40 // RFC 8200 3
	headerUDP = 8  // RFC 768
)

// send sends one packet and notes it. index is the interface for a group.
func (p *prober) send(s *socket, round int, what Sent, to net.Addr, index int) {
	headers := header4
	if s.six {
		headers = header6
	}
	if _, udp := s.conn.(*net.UDPConn); udp {
		headers += headerUDP
	}
	name, mtu := p.localInterface()
	d := datagram{session: p.session, kind: what.Kind, from: p.plan.Self, round: round, iface: what.Interface}
	if !what.Kind.multicast() {
		d.iface = name
	}
	if what.Kind == UnicastFull {
		d.totalSize = min(mtu, maxProbe) - headers
		if d.totalSize < datagramSize {
			return
		}
	}
	b := d.encode()
	what.Size = len(b) + headers
	var err error
	if s.six {
		cm := &ipv6.ControlMessage{IfIndex: index}
		if index == 0 {
			cm.Src = s.local.AsSlice()
		}
		_, err = s.v6.WriteTo(b, cm, to)
	} else {
		cm := &ipv4.ControlMessage{IfIndex: index}
		if index == 0 {
			cm.Src = s.local.AsSlice()
		} else if own := p.ownOf(index); own.IsValid() {
			cm.Src = own.AsSlice() // the kernel might take a virtual address
		}
		_, err = s.v4.WriteTo(b, cm, to)
	}
	i := slices.IndexFunc(p.result.Sent, func(o Sent) bool {
		return o.Kind == what.Kind && o.Six == what.Six && o.Interface == what.Interface && o.To == what.To
	})
	if i < 0 {
		p.result.Sent = append(p.result.Sent, what)
		i = len(p.result.Sent) - 1
	}
	if err != nil {
		p.result.Sent[i].Error = Clean(err.Error())
		return
	}
	p.result.Sent[i].Rounds |= 1 << round
}

// ownOf is the first own IPv4 address of an interface.
func (p *prober) ownOf(index int) netip.Addr {
	for _, i := range p.plan.Interfaces {
		for _, a := range i.Addresses {
			if i.Index == index && a.Addr().Is4() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// localInterface is the one that has the node's address; without one the usual MTU.
func (p *prober) localInterface() (name string, mtu int) {
	for _, i := range p.plan.Interfaces {
		if slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr() == p.plan.Local.Addr() }) {
			return i.Name, i.MTU
		}
	}
	return "-", 1500
}

// listen hears until the deadline.
func (p *prober) listen(s *socket) {
	buf := make([]byte, maxProbe+1)
	for failures := 0; ; {
		n, dst, index, err := s.read(buf)
		if err != nil {
			// ICMP errors for what was sent before, such as "port unreachable", pass.
			var timeout net.Error
			failures++
			if errors.As(err, &timeout) && timeout.Timeout() || failures > maxEntries {
				return
			}
			continue
		}
		d, err := parseDatagram(buf[:n])
		if err != nil || d.session != p.session || d.from == p.plan.Self || d.from >= p.plan.Nodes || !s.takes(d.kind, dst) {
			continue
		}
		p.note(d, s.six, index)
	}
}

func (s *socket) read(buf []byte) (n int, dst netip.Addr, index int, err error) {
	var to net.IP
	if s.six {
		var cm *ipv6.ControlMessage
		if n, cm, _, err = s.v6.ReadFrom(buf); err == nil && cm != nil {
			to, index = cm.Dst, cm.IfIndex
		}
	} else {
		var cm *ipv4.ControlMessage
		if n, cm, _, err = s.v4.ReadFrom(buf); err == nil && cm != nil {
			to, index = cm.Dst, cm.IfIndex
		}
	}
	dst, _ = netip.AddrFromSlice(to)
	return n, dst.Unmap(), index, err
}

// takes tells whether a packet came in as its kind says.
func (s *socket) takes(kind Kind, dst netip.Addr) bool {
	if kind.multicast() {
		return kind == s.multicast && dst.WithZone("") == map[bool]netip.Addr{false: group4, true: group6}[s.six]
	}
	return dst == s.local && (kind == s.unicast || kind == UnicastFull && s.unicast == UnicastUDP)
}

func (p *prober) note(d datagram, six bool, index int) {
	name := ""
	for _, i := range p.plan.Interfaces {
		if i.Index == index {
			name = i.Name
		}
	}
	if name == "" {
		ifi, err := net.InterfaceByIndex(index)
		if err != nil {
			return // it is gone
		}
		name = ifi.Name
	}
	key := Seen{Kind: d.kind, Six: six, From: d.from, FromInterface: d.iface, Interface: name}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.seen[key]; known || len(p.seen) < maxEntries {
		p.seen[key] |= 1 << d.round
	}
}
