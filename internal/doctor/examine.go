package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Member is one node and what it said when it was asked.
type Member struct {
	ID, Name, Address string
	Witness           bool
	// Error is why the member could not be asked at all; then the rest is empty.
	Error string
	Facts Facts
	// Clock is the member's clock against that of the node that asks.
	Clock ClockReading
	// Dials are the connections that it tried, DialError is why it tried none.
	Dials     []Dial
	DialError string
	// Probed is its part in the probe, ProbeError why it took none.
	Probed     Probed
	ProbeError string
}

// A ClockReading is the difference of two wall clocks, as seen over a network.
type ClockReading struct {
	// Ahead is how far the other clock is ahead, Within the uncertainty: half of the
	// round trip.
	Ahead, Within time.Duration
}

// ReadClock compares a clock that was read between two moments of the own one.
func ReadClock(sent, received, theirs time.Time) ClockReading {
	// Sub of two times of this process uses the monotonic clock, which a step of the
	// wall clock does not disturb.
	half := received.Sub(sent) / 2
	return ClockReading{Ahead: theirs.Round(0).Sub(sent.Round(0).Add(half)), Within: half}
}

// A Dial is one attempt to reach a member at its TCP port by an authenticated
// connection of its own.
type Dial struct {
	To string `json:"to"` // node ID
	// Error is why there is no connection.
	Error string `json:"error,omitempty"`
	// Connected is how long connection, TLS handshake and a first request took; RTT is
	// the time of a second request.
	Connected time.Duration `json:"connected"`
	RTT       time.Duration `json:"rtt"`
	// PayloadError is why much data at once did not pass, in both directions.
	PayloadError string `json:"payload_error,omitempty"`
}

// PayloadSize is how much each direction of a connection has to carry at once: many
// times what fits into a packet.
const PayloadSize = 64 << 10

// ValidateDials rejects what no node would answer that was told to dial these.
func ValidateDials(dials []Dial, targets []string) error {
	t := texts{}
	if len(dials) > len(targets) {
		return fmt.Errorf("%d connections to %d nodes", len(dials), len(targets))
	}
	for _, d := range dials {
		if !slices.Contains(targets, d.To) {
			return fmt.Errorf("a connection to %.80q, which is none of the nodes", d.To)
		}
		t.add(d.Error, d.PayloadError)
	}
	return t.err
}

// Examine makes a report of what the members said; their order is their number in the
// probe. self is the ID of the node that asked.
func Examine(self string, members []Member) Report {
	r := Report{Daemon: true}
	e := examination{}
	for i, m := range members {
		if m.ID == self {
			r.Node = m.Name
		}
		if m.Error != "" {
			r.Silent = append(r.Silent, m.Name)
			e.silent = append(e.silent, m)
			continue
		}
		r.Members = append(r.Members, m.Name)
		e.members = append(e.members, numbered{m, i})
	}
	e.silence(r.Node)
	for _, m := range e.members {
		e.findings = append(e.findings, judgeNode(m.Facts)...)
	}
	e.tcp()
	e.clocks()
	e.mtus()
	e.multicast()
	e.unicast()
	e.binding()
	sortFindings(e.findings)
	r.Findings = e.findings
	r.Transport, r.Verdict = e.verdict(r.Silent)
	return r
}

// A numbered member has its number in the probe.
type numbered struct {
	Member
	number int
}

// An examination gathers findings about all members that answered.
type examination struct {
	members  []numbered
	silent   []Member
	findings []Finding
}

func (e *examination) add(f Finding) { e.findings = append(e.findings, f) }

// pairs calls f for each ordered pair of members.
func (e *examination) pairs(f func(from, to numbered)) {
	for _, a := range e.members {
		for _, b := range e.members {
			if a.ID != b.ID {
				f(a, b)
			}
		}
	}
}

// silence names the members that could not be asked, or not for all.
func (e *examination) silence(asker string) {
	for _, m := range e.silent {
		e.add(Finding{Check: CheckMember, Node: m.Name, Peer: asker, Result: Fail, Seen: "cannot be asked: " + m.Error,
			Do: "is its daemon running, of this version, and does TCP reach " + m.Address + "? Nothing else is known of it"})
	}
	for _, m := range e.members {
		switch {
		case m.DialError != "":
			e.add(Finding{Check: CheckMember, Node: m.Name, Result: Fail, Seen: "did not try to reach the others: " + m.DialError, Do: "try again"})
		case m.ProbeError != "":
			e.add(Finding{Check: CheckMember, Node: m.Name, Result: Fail, Seen: "took no part in the probe: " + m.ProbeError, Do: "try again"})
		default:
			e.add(Finding{Check: CheckMember, Node: m.Name, Result: OK, Seen: "answers"})
		}
	}
}

func (m Member) dial(to string) (Dial, bool) {
	i := slices.IndexFunc(m.Dials, func(d Dial) bool { return d.To == to })
	if i < 0 {
		return Dial{}, false
	}
	return m.Dials[i], true
}

// tcp judges the connections that raftvip needs, between all pairs. Those to members
// that could not be asked were tried as well.
func (e *examination) tcp() {
	judge := func(from numbered, to Member) {
		d, ok := from.dial(to.ID)
		f := Finding{Check: CheckTCP, Node: from.Name, Peer: to.Name, Result: OK}
		switch {
		case !ok:
			return
		case d.Error != "":
			f.Result, f.Seen = Fail, fmt.Sprintf("cannot connect to %s: %s", to.Address, d.Error)
			f.Do = "let this TCP port through from " + from.Name + " to " + to.Name
		case d.PayloadError != "":
			f.Result, f.Seen = Fail, fmt.Sprintf("connected to %s, but %d KiB at once do not pass: %s", to.Address, PayloadSize>>10, d.PayloadError)
			f.Do = "a link on the way loses large packets: make the MTU the same everywhere, and let ICMP \"packet too big\" through"
		default:
			f.Seen = fmt.Sprintf("connected in %s, round trip %s", short(d.Connected), short(d.RTT))
		}
		e.add(f)
	}
	e.pairs(func(from, to numbered) { judge(from, to.Member) })
	for _, from := range e.members {
		for _, to := range e.silent {
			judge(from, to)
		}
	}
}

// Differences of wall clocks, as "raftvip status" and "raftvip join" judge them.
const (
	clockWarning = 10 * time.Second
	clockFailure = 5 * time.Minute
)

// clocks compares each pair once.
func (e *examination) clocks() {
	for i, a := range e.members {
		for _, b := range e.members[i+1:] {
			ahead, within := b.Clock.Ahead-a.Clock.Ahead, a.Clock.Within+b.Clock.Within
			f := Finding{Check: CheckClock, Node: a.Name, Peer: b.Name, Result: OK}
			switch off := ahead.Abs() - within; {
			case off > clockFailure:
				f.Result = Fail
			case off > clockWarning:
				f.Result = Warn
			}
			word := "ahead"
			if ahead < 0 {
				word = "behind"
			}
			f.Seen = fmt.Sprintf("the clock of %s is %s %s (within %s)", b.Name, short(ahead), word, short(within))
			if ahead.Abs() <= within {
				f.Seen = fmt.Sprintf("the clocks agree within %s", short(ahead.Abs()+within))
			}
			if f.Result != OK {
				f.Do = "set both by NTP: ownership does not depend on it, but tokens, certificates and the history do"
			}
			e.add(f)
		}
	}
}

// mtus compares the interfaces that share a subnet, and judges the packets that fill
// the sender's.
func (e *examination) mtus() {
	for i, a := range e.members {
		for _, b := range e.members[i+1:] {
			for _, x := range a.Facts.Interfaces {
				for _, y := range b.Facts.Interfaces {
					if x.MTU != y.MTU && (x.shares(y, false) || x.shares(y, true)) {
						small, large, peer := a.Name, b.Name, x
						if y.MTU < x.MTU {
							small, large, peer = b.Name, a.Name, y
						}
						e.add(Finding{Check: CheckMTU, Node: small, Peer: large, Interface: peer.Name, Result: Warn,
							Seen: fmt.Sprintf("the MTU is %d, that of %s in the same subnet is %d", min(x.MTU, y.MTU), large, max(x.MTU, y.MTU)),
							Do:   "give all interfaces of a subnet the same MTU: longer packets are lost without a word"})
					}
				}
			}
		}
	}
	e.pairs(func(from, to numbered) {
		six, ok := unicastFamily(from, to)
		full, sent := from.Probed.sent(UnicastFull, six, "", to.number)
		if !ok || !sent || from.ProbeError != "" || to.ProbeError != "" {
			return
		}
		f := Finding{Check: CheckMTU, Node: from.Name, Peer: to.Name, Result: OK}
		arrived := func(k Kind) bool { return to.Probed.seen(k, six, from.number, "", "") != 0 }
		switch {
		case arrived(UnicastFull):
			f.Seen = fmt.Sprintf("packets of %d bytes arrive whole", full.Size)
		case arrived(UnicastUDP) && full.Rounds == 0:
			f.Result, f.Seen = Warn, fmt.Sprintf("packets of %d bytes cannot be sent: %s", full.Size, full.Error)
			f.Do = "see the MTU of the routes between the two"
		case arrived(UnicastUDP):
			f.Result, f.Seen = Warn, fmt.Sprintf("packets of %d bytes, the MTU of %s, do not arrive; small ones do", full.Size, from.Name)
			f.Do = "make the MTU the same on the whole way: TCP adapts, but clients and UDP may not"
		default:
			f.Seen = fmt.Sprintf("not known: UDP to %s does not arrive, which raftvip does not need; TCP carries large amounts", to.Address)
			if d, ok := from.dial(to.ID); !ok || d.Error != "" || d.PayloadError != "" {
				f.Seen = fmt.Sprintf("not known: UDP to %s does not arrive", to.Address)
			}
		}
		e.add(f)
	})
}

// unicastFamily is the family in which one node reaches another: that of their
// addresses, if it is the same.
func unicastFamily(from, to numbered) (six, ok bool) {
	for _, six := range []bool{false, true} {
		if _, sent := from.Probed.sent(UnicastUDP, six, "", to.number); sent {
			return six, true
		}
		if _, sent := from.Probed.sent(UnicastVRRP, six, "", to.number); sent {
			return six, true
		}
	}
	return false, false
}

// binding names services that could not start on a standby: they listen on a virtual
// address alone, which only the owner has.
func (e *examination) binding() {
	for _, owner := range e.members {
		for _, service := range owner.Facts.Services {
			for _, m := range e.members {
				allowed, setting := m.Facts.NonlocalBind4, "net.ipv4.ip_nonlocal_bind"
				if service.Addr().Is6() {
					allowed, setting = m.Facts.NonlocalBind6, "net.ipv6.ip_nonlocal_bind"
				}
				if m.ID == owner.ID || m.Witness || allowed || slices.Contains(m.Facts.Services, service) {
					continue
				}
				e.add(Finding{Check: CheckSysctl, Node: m.Name, Peer: owner.Name, Result: Warn,
					Seen: fmt.Sprintf("%s is 0, and a service on %s listens on %s alone: here it cannot start before the address has come", setting, owner.Name, service),
					Do:   "sysctl -w " + setting + "=1, or let the service listen on all addresses"})
			}
		}
	}
	for _, m := range e.members {
		if !m.Witness {
			e.add(Finding{Check: CheckSysctl, Node: m.Name, Result: OK,
				Seen: fmt.Sprintf("ip_nonlocal_bind is %d for IPv4, %d for IPv6", bit(m.Facts.NonlocalBind4), bit(m.Facts.NonlocalBind6))})
		}
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// owners are the members that may own: the transport between them is what counts.
func (e *examination) owners() []numbered {
	return slices.DeleteFunc(slices.Clone(e.members), func(m numbered) bool { return m.Witness })
}

// names joins names for people: "a, b and c".
func names(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// families are those of the virtual addresses; without any, those of the nodes.
func (e *examination) families() []bool {
	var four, six bool
	note := func(a netip.Addr) {
		four, six = four || a.Is4(), six || a.Is6()
	}
	for _, m := range e.members {
		for _, i := range m.Facts.Interfaces {
			for _, v := range i.VIPs {
				note(v.Addr())
			}
		}
	}
	if !four && !six {
		for _, m := range e.members {
			if a, err := netip.ParseAddrPort(m.Address); err == nil {
				note(a.Addr().Unmap())
			}
		}
	}
	var out []bool
	if four || !six {
		out = append(out, false)
	}
	if six {
		out = append(out, true)
	}
	return out
}
