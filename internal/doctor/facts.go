package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Facts are what a node says of itself. They come from another machine: Validate
// them before use.
type Facts struct {
	// Name is what the operator calls the node, Address the HOST:PORT at which the
	// others reach it.
	Name    string `json:"name"`
	Address string `json:"address"`
	Witness bool   `json:"witness,omitempty"`
	// Interfaces are those that carry the node's own subnet or a virtual address.
	Interfaces []Interface `json:"interfaces"`
	// Others is the number of further interfaces with an address that others could use.
	Others int `json:"others"`
	// Missing are virtual addresses that have no interface here, with the reason.
	Missing []string `json:"missing,omitempty"`
	// Troubles are what the node's daemon finds wrong with virtual addresses.
	Troubles []Trouble `json:"troubles,omitempty"`
	// Identities are what the node knows to be wrong with who holds which identity.
	Identities []Trouble `json:"identities,omitempty"`
	// NonlocalBind4 and NonlocalBind6 are net.ipv4.ip_nonlocal_bind and its sibling.
	NonlocalBind4 bool `json:"nonlocal_bind4"`
	NonlocalBind6 bool `json:"nonlocal_bind6"`
	// Services listen on a virtual address alone, not on all addresses.
	Services []netip.AddrPort `json:"services,omitempty"`
	// Lacking are the capabilities that raftvip uses and the process does not have.
	Lacking []string `json:"lacking,omitempty"`
	Guard   *Guard   `json:"guard,omitempty"`
	// ClockSource is the kernel's, or "".
	ClockSource string `json:"clock_source,omitempty"`
	Sync        Sync   `json:"sync"`
	DataDir     string `json:"data_dir"`
	// Fsync is the longest of a few writes to the data directory, no more than is
	// waited for; FsyncError is why there is none. Heartbeat is the heartbeat timeout;
	// 0 is not known.
	Fsync      time.Duration `json:"fsync"`
	FsyncError string        `json:"fsync_error,omitempty"`
	Heartbeat  time.Duration `json:"heartbeat"`
	// Filters are the firewall's rules that drop what raftvip or VRRP sends,
	// FilterError why they cannot be read.
	Filters     []Filter `json:"filters,omitempty"`
	FilterError string   `json:"filter_error,omitempty"`
	// LegacyTables are the tables of iptables-legacy in use, as "ip filter"; what is
	// in them cannot be read.
	LegacyTables []string `json:"legacy_tables,omitempty"`
}

// An Interface is one network interface of a node.
type Interface struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	MTU   int    `json:"mtu"`
	Up    bool   `json:"up"`
	// Running: it has a carrier. Multicast: it can send to groups.
	Running   bool `json:"running"`
	Multicast bool `json:"multicast"`
	// Addresses are the node's own, VIPs the virtual ones that belong here.
	Addresses []netip.Prefix `json:"addresses"`
	VIPs      []netip.Prefix `json:"vips,omitempty"`
	// The settings in effect (ip-sysctl: the greater of "all" and the interface's).
	RPFilter    int `json:"rp_filter"`
	ARPIgnore   int `json:"arp_ignore"`
	ARPAnnounce int `json:"arp_announce"`
	ARPFilter   int `json:"arp_filter"`
	AcceptLocal int `json:"accept_local"`
}

// has tells whether the interface has an own address of a family that neighbours
// could use: a subnet of more than one address. Link-local IPv6 alone is none.
func (i Interface) has(six bool) bool {
	for _, p := range i.Addresses {
		if p.Addr().Is6() == six && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
			return true
		}
	}
	return false
}

// shares tells whether two interfaces have a subnet of a family in common.
func (i Interface) shares(o Interface, six bool) bool {
	for _, p := range i.Addresses {
		for _, q := range o.Addresses {
			if p.Addr().Is6() == six && q.Addr().Is6() == six && !p.IsSingleIP() && !q.IsSingleIP() &&
				!p.Addr().IsLinkLocalUnicast() && p.Masked() == q.Masked() {
				return true
			}
		}
	}
	return false
}

// Guard is the mechanism that enforces the lease.
type Guard struct {
	Kind      string `json:"kind"`
	Guarantee string `json:"guarantee"`
	// Weak: two nodes may answer for a while, or for ever, after a failure.
	Weak bool `json:"weak,omitempty"`
	// Problems are the interfaces on which it is not, with the reason.
	Problems []string `json:"problems,omitempty"`
}

// A Trouble is something wrong with one virtual address on a node.
type Trouble struct {
	Interface string `json:"interface,omitempty"`
	// Serious: clients notice, or the address answers in two places.
	Serious bool `json:"serious,omitempty"`
	// Seen and Do are as in a Finding.
	Seen string `json:"seen"`
	Do   string `json:"do,omitempty"`
}

// Sync says whether a clock is kept right by NTP or the like.
type Sync string

// The states of a clock. SyncUnknown: the process may not ask the kernel.
const (
	SyncYes     Sync = "yes"
	SyncNo      Sync = "no"
	SyncUnknown Sync = "unknown"
)

// A Filter is a rule that drops a packet, or may.
type Filter struct {
	// Packet says in words which one; Port is true for raftvip's own TCP port.
	Packet string `json:"packet"`
	Port   bool   `json:"port"`
	// Certain is false where the rules before it cannot be followed.
	Certain bool `json:"certain"`
	// Rule says where the rule is, such as "table inet filter, chain input, policy".
	Rule string `json:"rule"`
}

// Limits of what a node may say of itself.
const (
	MaxNodes      = 64
	maxInterfaces = 64
	maxAddresses  = 2048
	maxTexts      = 256
	maxText       = 500
)

// Validate rejects facts that no node would state: they are shown on the terminal of
// an operator.
func (f Facts) Validate() error {
	t := texts{}
	t.add(f.Name, f.Address, f.ClockSource, string(f.Sync), f.DataDir, f.FsyncError, f.FilterError)
	t.add(f.Missing...)
	t.add(f.Lacking...)
	t.add(f.LegacyTables...)
	for _, l := range f.Filters {
		t.add(l.Packet, l.Rule)
	}
	for _, a := range f.Troubles {
		t.add(a.Interface, a.Seen, a.Do)
	}
	if f.Guard != nil {
		t.add(f.Guard.Kind, f.Guard.Guarantee)
		t.add(f.Guard.Problems...)
	}
	if t.err != nil {
		return t.err
	}
	if len(f.Interfaces) > maxInterfaces || f.Others < 0 {
		return fmt.Errorf("%d interfaces and %d others: must be at most %d", len(f.Interfaces), f.Others, maxInterfaces)
	}
	if len(f.Services) > maxTexts {
		return fmt.Errorf("%d services: must be at most %d", len(f.Services), maxTexts)
	}
	for _, i := range f.Interfaces {
		if err := CheckInterfaceName(i.Name); err != nil {
			return err
		}
		if len(i.Addresses) > maxAddresses || len(i.VIPs) > maxAddresses {
			return fmt.Errorf("interface %s: more than %d addresses", i.Name, maxAddresses)
		}
	}
	return nil
}

// texts checks texts that come from another machine.
type texts struct {
	n   int
	err error
}

func (t *texts) add(list ...string) {
	for _, s := range list {
		t.n++
		switch {
		case t.err != nil:
		case t.n > maxTexts:
			t.err = fmt.Errorf("more than %d texts", maxTexts)
		case len(s) > maxText:
			t.err = fmt.Errorf("a text of %d bytes: must be at most %d", len(s), maxText)
		case !utf8.ValidString(s), strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
			t.err = errors.New("a text with characters that cannot be printed")
		}
	}
}

// Clean makes a text of this machine, such as an error, fit to be sent and shown: one
// printable line of limited length.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

// maxInterfaceName is the longest name of an interface (IFNAMSIZ without its zero).
const maxInterfaceName = 15

// CheckInterfaceName tells whether an interface can have this name (dev_valid_name), and
// it can be shown.
func CheckInterfaceName(name string) error {
	if name == "" || len(name) > maxInterfaceName || name == "." || name == ".." || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == '/' || r == ':' }) {
		return fmt.Errorf("%.40q is no name of an interface", name)
	}
	return nil
}
