package doctor

import (
	"cmp"
	"slices"
)

// A Check names what was looked at.
type Check string

// Checks, in the order in which they are reported.
const (
	CheckDaemon     Check = "daemon"
	CheckOwner      Check = "owner"
	CheckMember     Check = "member"
	CheckTCP        Check = "tcp"
	CheckClock      Check = "clock"
	CheckMTU        Check = "mtu"
	CheckMulticast  Check = "multicast"
	CheckUnicast    Check = "unicast"
	CheckFirewall   Check = "firewall"
	CheckInterface  Check = "interface"
	CheckAddress    Check = "address"
	CheckSysctl     Check = "sysctl"
	CheckGuard      Check = "guard"
	CheckPrivileges Check = "privileges"
	CheckDisk       Check = "disk"
	CheckIdentity   Check = "identity"
)

var checkOrder = []Check{
	CheckDaemon, CheckOwner, CheckMember, CheckTCP, CheckClock, CheckMTU, CheckMulticast, CheckUnicast,
	CheckFirewall, CheckInterface, CheckAddress, CheckSysctl, CheckGuard, CheckPrivileges, CheckDisk, CheckIdentity,
}

// A Result judges a finding.
type Result string

// Results. The zero value is invalid.
const (
	// OK: as it should be.
	OK Result = "ok"
	// Warn: raftvip works, but something else will not, or not as well.
	Warn Result = "warn"
	// Fail: raftvip itself does not work like this.
	Fail Result = "fail"
)

// A Finding is one thing that was looked at.
type Finding struct {
	Check Check `json:"check"`
	// Node is the name of the node that it is about; of two, the one that sends.
	Node string `json:"node"`
	// Peer is the other node, or "".
	Peer string `json:"peer,omitempty"`
	// Interface is that of Node, or "".
	Interface string `json:"interface,omitempty"`
	Result    Result `json:"result"`
	// Seen says in words what was seen, Do what to do about it, or is "".
	Seen string `json:"seen"`
	Do   string `json:"do,omitempty"`
}

// A Transport is what works between all nodes that may own.
type Transport string

// Transports, best first. The zero value is invalid.
const (
	TransportMulticast Transport = "multicast"
	TransportUnicast   Transport = "unicast"
	TransportTCP       Transport = "tcp"
	TransportNone      Transport = "none"
	TransportUnknown   Transport = "unknown"
)

// A Report is what raftvip doctor prints.
type Report struct {
	API int `json:"api"`
	// Node is the node that asked the others.
	Node string `json:"node"`
	// Daemon: it was running, so that the other members were asked and probed.
	Daemon bool `json:"daemon"`
	// Members are the names of those that took part, Silent of those that did not.
	Members   []string  `json:"members"`
	Silent    []string  `json:"silent,omitempty"`
	Findings  []Finding `json:"findings"`
	Transport Transport `json:"transport"`
	// Verdict says in one line which transport works here.
	Verdict string `json:"verdict"`
}

// Count returns the number of findings with a result.
func (r Report) Count(result Result) int {
	n := 0
	for _, f := range r.Findings {
		if f.Result == result {
			n++
		}
	}
	return n
}

// Add adds what was found elsewhere, in its place.
func (r *Report) Add(more ...Finding) {
	r.Findings = append(r.Findings, more...)
	sortFindings(r.Findings)
}

// sortFindings brings findings into the order in which they are reported: by check,
// then node, peer and interface.
func sortFindings(fs []Finding) {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(checkOrder, a.Check), slices.Index(checkOrder, b.Check)),
			cmp.Compare(a.Node, b.Node), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Interface, b.Interface),
		)
	})
}
