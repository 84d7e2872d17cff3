package doctor

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// Times of a probe. Everybody begins when asked, so that the first packets of one
// node may be too early for another: those are sent when all listen.
const (
	// ProbeLasts is how long a node listens.
	ProbeLasts = 2400 * time.Millisecond
	probeFirst = 600 * time.Millisecond
	probeEvery = 400 * time.Millisecond
)

// ProbePort is the UDP port of multicast probes.
const ProbePort = 7355

// maxProbe bounds the size of a packet that fills the MTU: loopback has 64 KiB.
const maxProbe = 16384

// A Plan is one node's part in a probe.
type Plan struct {
	// Session tells this probe's packets from all others: 16 hexadecimal digits.
	Session string
	// Self is this node's number in the session, Nodes how many there are.
	Self, Nodes int
	// Local is the node's own address and port, where unicast probes arrive.
	Local netip.AddrPort
	// Peers are where the other nodes are, by number. A node whose address is not
	// known is left out.
	Peers map[int]netip.AddrPort
	// Interfaces are those to send to the groups on.
	Interfaces []Interface
}

// Probed is what one node did and saw.
type Probed struct {
	Sent   []Sent   `json:"sent"`
	Seen   []Seen   `json:"seen"`
	Unable []Unable `json:"unable,omitempty"`
}

// Sent is one probe in all its rounds.
type Sent struct {
	Kind Kind `json:"kind"`
	Six  bool `json:"six,omitempty"`
	// Interface is where it went to a group, To the number of the node that it went to.
	Interface string `json:"interface,omitempty"`
	To        int    `json:"to"`
	// Size is that of the IP packet in bytes.
	Size int `json:"size"`
	// Rounds are those that were sent, Error is why others were not.
	Rounds RoundSet `json:"rounds"`
	Error  string   `json:"error,omitempty"`
}

// Seen is what arrived of one probe.
type Seen struct {
	Kind          Kind     `json:"kind"`
	Six           bool     `json:"six,omitempty"`
	From          int      `json:"from"`
	FromInterface string   `json:"from_interface"`
	Interface     string   `json:"interface"`
	Rounds        RoundSet `json:"rounds"`
}

// Unable says that a node cannot take part in probes of one kind.
type Unable struct {
	Kind Kind `json:"kind"`
	Six  bool `json:"six,omitempty"`
	// Interface is the one that it is about, or "" for all.
	Interface string `json:"interface,omitempty"`
	Why       string `json:"why"`
}

// A RoundSet is a set of rounds: bit n is round n.
type RoundSet uint8

func (s RoundSet) count() int { return bits.OnesCount8(uint8(s)) }

// lossy tells whether a round is missing between two that arrived: the first ones may
// have been too early, and the last too late.
func (s RoundSet) lossy() bool {
	v := uint8(s)
	return v != 0 && bits.Len8(v)-bits.TrailingZeros8(v) != bits.OnesCount8(v)
}

// maxEntries bounds what a node tells of a probe: one entry for each kind, family,
// sender, and pair of interfaces.
const maxEntries = 4096

// Validate rejects what no node would see in a session of so many nodes.
func (p Probed) Validate(nodes int) error {
	if len(p.Sent) > maxEntries || len(p.Seen) > maxEntries || len(p.Unable) > maxTexts {
		return fmt.Errorf("%d probes sent, %d seen: must be at most %d", len(p.Sent), len(p.Seen), maxEntries)
	}
	t := texts{}
	for _, s := range p.Sent {
		if s.Kind == 0 || s.Kind >= kinds || s.To < 0 || s.To >= nodes || s.Rounds >= 1<<Rounds {
			return fmt.Errorf("probe of kind %d to node %d, rounds %#x: there is no such", s.Kind, s.To, s.Rounds)
		}
		if s.Interface != "" && CheckInterfaceName(s.Interface) != nil {
			return CheckInterfaceName(s.Interface)
		}
		if s.Error != "" {
			t.add(s.Error)
		}
	}
	for _, s := range p.Seen {
		if s.Kind == 0 || s.Kind >= kinds || s.From < 0 || s.From >= nodes || s.Rounds >= 1<<Rounds {
			return fmt.Errorf("probe of kind %d from node %d, rounds %#x: there is no such", s.Kind, s.From, s.Rounds)
		}
		for _, name := range []string{s.FromInterface, s.Interface} {
			if err := CheckInterfaceName(name); err != nil {
				return err
			}
		}
	}
	for _, u := range p.Unable {
		t.add(u.Why)
		if u.Interface != "" && CheckInterfaceName(u.Interface) != nil {
			return CheckInterfaceName(u.Interface)
		}
	}
	return t.err
}

// sent returns what was sent of a kind on an interface, or to a node.
func (p Probed) sent(kind Kind, six bool, iface string, to int) (Sent, bool) {
	i := slices.IndexFunc(p.Sent, func(s Sent) bool {
		if s.Kind != kind || s.Six != six {
			return false
		}
		if kind.multicast() {
			return s.Interface == iface
		}
		return s.To == to
	})
	if i < 0 {
		return Sent{}, false
	}
	return p.Sent[i], true
}

// seen returns the rounds of a kind that arrived from a node; empty names of
// interfaces mean any.
func (p Probed) seen(kind Kind, six bool, from int, fromInterface, iface string) RoundSet {
	var all RoundSet
	for _, s := range p.Seen {
		if s.Kind == kind && s.Six == six && s.From == from &&
			(fromInterface == "" || s.FromInterface == fromInterface) && (iface == "" || s.Interface == iface) {
			all |= s.Rounds
		}
	}
	return all
}

// unable returns why a node cannot take part in a kind, or "".
func (p Probed) unable(kind Kind, six bool, iface string) string {
	for _, u := range p.Unable {
		if u.Kind == kind && u.Six == six && (u.Interface == "" || u.Interface == iface) {
			return u.Why
		}
	}
	return ""
}

func (k Kind) multicast() bool { return k == MulticastUDP || k == MulticastVRRP }
