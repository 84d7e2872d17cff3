package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A way is one direction between two interfaces of a subnet, for one family.
type way struct {
	from, to numbered
	out, in  Interface
	six      bool
}

func (w way) group() netip.Addr {
	if w.six {
		return group6
	}
	return group4
}

// ways are those between all nodes that may own, over every subnet that they share.
func (e *examination) ways() []way {
	var out []way
	owners := e.owners()
	for _, a := range owners {
		for _, b := range owners {
			if a.ID == b.ID || a.ProbeError != "" || b.ProbeError != "" {
				continue
			}
			for _, x := range a.Facts.Interfaces {
				for _, y := range b.Facts.Interfaces {
					for _, six := range []bool{false, true} {
						if x.shares(y, six) {
							out = append(out, way{a, b, x, y, six})
						}
					}
				}
			}
		}
	}
	return out
}

func (w way) arrived(kind Kind) RoundSet {
	return w.to.Probed.seen(kind, w.six, w.from.number, w.out.Name, w.in.Name)
}

// untested says why a kind was not tried on this way, or "".
func (w way) untested(kind Kind) string {
	for _, end := range []struct {
		node  numbered
		iface string
	}{{w.from, w.out.Name}, {w.to, w.in.Name}} {
		if why := end.node.Probed.unable(kind, w.six, end.iface); why != "" {
			return end.node.Name + ": " + why
		}
	}
	if _, ok := w.from.Probed.sent(kind, w.six, w.out.Name, 0); !ok {
		return w.from.Name + " sent nothing on " + w.out.Name
	}
	return ""
}

// Advice that both kinds of VRRP share.
const (
	notTried = "run the daemon as root, or by the systemd unit, and see that the interface is up and has an address"
	lost     = "VRRP takes some lost packets for a dead master: find where they are lost, or use another transport"
)

// multicast judges what arrived of what was sent to the groups.
func (e *examination) multicast() {
	ways := e.ways()
	owners := e.owners()
	for i, a := range owners {
		for _, b := range owners[i+1:] {
			if a.ProbeError == "" && b.ProbeError == "" && !slices.ContainsFunc(ways, func(w way) bool { return w.from.ID == a.ID && w.to.ID == b.ID }) {
				e.add(Finding{Check: CheckMulticast, Node: a.Name, Peer: b.Name, Result: Warn, Seen: "the two share no subnet: multicast cannot pass, and a virtual address cannot move between them",
					Do: "put the nodes that own addresses into one subnet; a witness may be anywhere"})
			}
		}
	}
	for _, w := range ways {
		f := Finding{Check: CheckMulticast, Node: w.from.Name, Peer: w.to.Name, Interface: w.out.Name, Result: Warn}
		vrrp, udp := w.arrived(MulticastVRRP), w.arrived(MulticastUDP)
		group := w.group()
		switch why := w.untested(MulticastVRRP); {
		case why != "":
			f.Seen = fmt.Sprintf("protocol 112 to %s was not tried (%s)", group, why)
			if udp != 0 {
				f.Seen += "; UDP to it arrives"
			}
			f.Do = notTried
		case vrrp.lossy():
			f.Seen = fmt.Sprintf("protocol 112 to %s arrives with gaps: %d of %d", group, vrrp.count(), Rounds)
			f.Do = lost
		case vrrp != 0:
			f.Result = OK
			f.Seen = fmt.Sprintf("protocol 112 to %s arrives on %s", group, w.in.Name)
		case udp != 0:
			f.Seen = fmt.Sprintf("protocol 112 to %s does not arrive on %s, UDP to the same group does: something drops protocol 112", group, w.in.Name)
			f.Do = "look for a firewall rule or security group about protocol 112; raftvip itself does not need it"
		default:
			f.Seen = fmt.Sprintf("nothing sent to %s arrives on %s", group, w.in.Name)
			f.Do = "multicast does not pass, as in most clouds; it is no matter of IGMP snooping, which leaves 224.0.0.0/24 alone. raftvip itself does not need it; keepalived peers need unicast_peer"
			if w.six {
				f.Do = "multicast does not pass, as in most clouds, or MLD snooping has not learnt the group. raftvip itself does not need it; keepalived peers need unicast_peer"
			}
		}
		if by := w.filtered(); by != "" && f.Do != "" {
			f.Do = "see the firewall of " + by + " below; raftvip itself does not need it"
		}
		e.add(f)
	}
}

// filtered names the node whose own rules are known to drop protocol 112 to the group
// on this way, or is "".
func (w way) filtered() string {
	for _, end := range []struct {
		node numbered
		what string
	}{
		{w.from, groupPacket(w.group()) + goingOut + w.out.Name},
		{w.to, groupPacket(w.group()) + comingIn + w.in.Name},
	} {
		if slices.ContainsFunc(end.node.Facts.Filters, func(f Filter) bool { return f.Certain && f.Packet == end.what }) {
			return end.node.Name
		}
	}
	return ""
}

// unicast judges protocol 112 between the addresses of nodes that may own.
func (e *examination) unicast() {
	e.pairs(func(from, to numbered) {
		if from.Witness || to.Witness || from.ProbeError != "" || to.ProbeError != "" {
			return
		}
		f := Finding{Check: CheckUnicast, Node: from.Name, Peer: to.Name, Result: Warn}
		six, ok := unicastFamily(from, to)
		why := ""
		for _, end := range []numbered{from, to} {
			if w := end.Probed.unable(UnicastVRRP, six, ""); w != "" {
				why = end.Name + ": " + w
			}
		}
		switch got := to.Probed.seen(UnicastVRRP, six, from.number, "", ""); {
		case !ok:
			f.Seen = "protocol 112 was not tried: the two have no addresses of the same family"
			f.Do = "let all nodes advertise addresses of the same family, and names that can be looked up"
		case why != "":
			f.Seen = fmt.Sprintf("protocol 112 was not tried (%s)", why)
			f.Do = notTried
		case got == 0:
			f.Seen = "protocol 112 from address to address does not arrive"
			f.Do = "look for a firewall rule or security group about protocol 112; raftvip itself does not need it"
		case got.lossy():
			f.Seen = fmt.Sprintf("protocol 112 from address to address arrives with gaps: %d of %d", got.count(), Rounds)
			f.Do = lost
		default:
			f.Result, f.Seen = OK, "protocol 112 from address to address arrives"
		}
		e.add(f)
	})
}

// verdict says which transport works between all nodes that may own and answered.
func (e *examination) verdict(silent []string) (Transport, string) {
	owners := e.owners()
	among := "between all " + fmt.Sprint(len(owners)) + " nodes"
	if len(silent) > 0 {
		among = fmt.Sprintf("between the %d nodes that answered (not %s)", len(owners), names(silent))
	}
	if len(owners) < 2 {
		text := "which transport works cannot be told with one node"
		if len(silent) > 0 {
			text = "which transport works cannot be told: " + names(silent) + " did not answer"
		}
		return TransportUnknown, text
	}
	var cut []string
	for _, a := range owners {
		for _, b := range owners {
			if d, ok := a.dial(b.ID); a.ID != b.ID && (!ok || d.Error != "" || d.PayloadError != "") {
				cut = append(cut, a.Name+" to "+b.Name)
			}
		}
	}
	tcp := "; raftvip's own TCP works"
	if len(cut) > 0 {
		tcp = "; raftvip's own TCP does NOT work from " + names(cut)
	}
	probed := !slices.ContainsFunc(owners, func(m numbered) bool { return m.ProbeError != "" })
	switch {
	case probed && e.multicastWorks(owners):
		return TransportMulticast, "multicast VRRP works " + among + tcp
	case probed && e.unicastWorks(owners):
		return TransportUnicast, "only unicast VRRP works " + among + ", multicast does not" + tcp
	case len(cut) > 0:
		return TransportNone, "no transport works " + among + ": TCP fails from " + names(cut)
	case !probed:
		return TransportTCP, "TCP (raftvip's own) works " + among + "; VRRP was not tried"
	}
	return TransportTCP, "only TCP (raftvip's own) works " + among + ", neither multicast nor unicast VRRP does"
}

// multicastWorks tells whether VRRP's packets reach every other node's group, in each
// family of the virtual addresses, on the interfaces that carry them.
func (e *examination) multicastWorks(owners []numbered) bool {
	ways := e.ways()
	for _, six := range e.families() {
		for _, a := range owners {
			for _, b := range owners {
				if a.ID == b.ID {
					continue
				}
				works := false
				for _, w := range ways {
					if w.from.ID != a.ID || w.to.ID != b.ID || w.six != six || !w.matters() {
						continue
					}
					if w.arrived(MulticastVRRP) == 0 {
						return false
					}
					works = true
				}
				if !works {
					return false
				}
			}
		}
	}
	return true
}

// matters tells whether VRRP would use this way: where there are virtual addresses of
// the family, or none on the node at all.
func (w way) matters() bool {
	placed := func(i Interface) bool {
		return slices.ContainsFunc(i.VIPs, func(v netip.Prefix) bool { return v.Addr().Is6() == w.six })
	}
	return placed(w.out) || !slices.ContainsFunc(w.from.Facts.Interfaces, placed)
}

// unicastWorks tells whether protocol 112 passes between all pairs.
func (e *examination) unicastWorks(owners []numbered) bool {
	for _, a := range owners {
		for _, b := range owners {
			if a.ID == b.ID {
				continue
			}
			six, ok := unicastFamily(a, b)
			if !ok || b.Probed.seen(UnicastVRRP, six, a.number, "", "") == 0 {
				return false
			}
		}
	}
	return true
}

// ExamineAlone makes a report of one node that cannot ask the others, for the reason
// given, and of the connections that it tried.
func ExamineAlone(why Finding, self Member, peers []Member) Report {
	e := examination{members: []numbered{{self, 0}}, silent: peers}
	e.add(why)
	for _, f := range judgeNode(self.Facts) {
		if f.Check != CheckPrivileges { // they are not the daemon's
			e.add(f)
		}
	}
	if lacks := self.Facts.Lacking; len(lacks) > 0 {
		e.add(Finding{Check: CheckPrivileges, Node: self.Name, Result: Warn, Seen: "doctor runs without " + strings.Join(lacks, ", ") + " and cannot look at everything", Do: "run as root"})
	}
	e.tcp()
	for _, p := range peers {
		if (p.Clock != ClockReading{}) {
			e.members = append(e.members, numbered{p, len(e.members)})
		}
	}
	e.clocks()
	sortFindings(e.findings)
	r := Report{Node: self.Name, Members: []string{self.Name}, Findings: e.findings, Transport: TransportUnknown}
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	r.Silent = names
	r.Verdict = "which transport works cannot be told without a daemon that is in the cluster: it asks the other members and probes with them"
	if len(peers) > 0 && !slices.ContainsFunc(e.findings, func(f Finding) bool { return f.Check == CheckTCP && f.Result != OK }) {
		r.Verdict = "TCP (raftvip's own) works from here to " + strings.Join(names, ", ") + "; whether VRRP does cannot be told without a daemon that is in the cluster"
	}
	return r
}
