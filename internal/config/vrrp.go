package config

import (
	"net/netip"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// VRRPMode says what VRRP (RFC 9568, RFC 3768) is to an instance.
type VRRPMode string

// Modes of VRRP. An instance without VRRP has none of them: [Instance.VRRP] is nil.
const (
	// VRRPHybrid: the Raft owner speaks VRRP for the whole cluster and has the
	// addresses while it is VRRP master too.
	VRRPHybrid VRRPMode = "hybrid"
	// VRRPOnly: the instance is a plain VRRP router; Raft has no part in it.
	VRRPOnly VRRPMode = "only"
)

// VRRP is how an instance speaks VRRP. Keywords are keepalived's, and so are the
// defaults unless stated otherwise.
type VRRP struct {
	Pos  Pos
	Mode VRRPMode
	// Version is 2 or 3. Default: vrrp_version; IPv6 is always 3.
	Version int
	// IPv6 is the family of the virtual_ipaddress lines, all of which have one.
	IPv6 bool
	// Password is that of auth_type PASS, 1 to 8 bytes, version 2 only; empty is no
	// authentication. Never print it.
	Password string
	// Source is the sender's address; invalid: the interface's own.
	Source netip.Addr
	// TrackSource (track_src_ip): the absence of Source is a fault.
	TrackSource bool
	// Group is the multicast group. Default 224.0.0.18 or ff02::12.
	Group netip.Addr
	// Peers, if not empty, are sent to one by one instead of the group.
	Peers []VRRPPeer
	// TTL is that of packets to peers, 0 to 255; 0 is the kernel's. Default 255.
	TTL int
	// CheckSource: packets of others than the peers are dropped.
	CheckSource bool
	// NoPeerIsFault (unicast_fault_no_peer): without a peer the instance is in
	// fault, instead of sending to the group.
	NoPeerIsFault bool
	// VMAC: the addresses are on an interface of their own with the virtual MAC
	// address 00:00:5e:00:01:VRID (IPv6: 02). VMACName is its name, "" for
	// vrrp.VRID. VMACBase (vmac_xmit_base): advertisements leave from the base
	// interface.
	VMAC     bool
	VMACName string
	VMACBase bool
	// PlainChecksum (v3_checksum_as_v2): version 3 over IPv4 without pseudo-header.
	PlainChecksum bool
	// SkipCheckAddresses: the address list is not compared while the sender stays
	// the same master.
	SkipCheckAddresses bool
	// LowerPrioNoAdvert: as master, do not answer an advertisement of lower priority
	// at once. HigherPrioSendAdvert: send one more when yielding.
	LowerPrioNoAdvert    bool
	HigherPrioSendAdvert bool
	// OwnerIgnoreAdverts: with priority 255, do not heed others'.
	OwnerIgnoreAdverts bool
	// DownTimerAdverts is the number of missed advertisements before a take-over, 1
	// to 100. Default 3.
	DownTimerAdverts int
	// StartupDelay holds the instance at the start of the daemon. Default 0.
	StartupDelay time.Duration
	// Strict is vrrp_strict: what it changes has been changed above.
	Strict bool
}

// A VRRPPeer is one line of unicast_peer.
type VRRPPeer struct {
	Pos  Pos
	Addr netip.Addr
	// MinTTL and MaxTTL bound the TTL of received packets, 0 to 255; -1 is unbounded.
	MinTTL, MaxTTL int
}

// Default groups of VRRP.
var (
	vrrpGroup4 = netip.MustParseAddr("224.0.0.18")
	vrrpGroup6 = netip.MustParseAddr("ff02::12")
)

// vrrpGlobals are the VRRP settings of global_defs.
type vrrpGlobals struct {
	VRRP
	group4, group6 netip.Addr
}

// vrrpBlock is the VRRP part of an instance until all blocks are read.
type vrrpBlock struct {
	VRRP
	positions  map[string]Pos // of keywords
	set        []func(*VRRP)  // over the global settings
	versionSet bool
	groupSet   netip.Addr
	sourceWord string
}

const vrrpAllowed = "off, hybrid or only"

// vrrpMode finds the mode of an instance: other keywords depend on it, wherever it
// stands. The last one counts, as with other keywords.
func (l *loader) vrrpMode(block []*keepalived.Node) (mode VRRPMode, pos Pos) {
	for _, n := range block {
		if n.Keyword() != "vrrp" || n.HasBlock || len(n.Args()) == 0 {
			continue
		}
		switch m := VRRPMode(n.Args()[0].Text); m {
		case VRRPHybrid, VRRPOnly:
			mode, pos = m, n.Pos
		default:
			mode, pos = "", n.Pos
		}
	}
	return mode, pos
}

// readVRRPMode checks the keyword itself.
func (l *loader) readVRRPMode(n *keepalived.Node) {
	v, ok := l.value(n, vrrpAllowed)
	if !ok {
		return
	}
	switch v {
	case "off", string(VRRPHybrid), string(VRRPOnly):
	default:
		l.errorf(n.Pos, "vrrp %s: must be %s", shorten(v), vrrpAllowed)
	}
}

// vrrpStatements are the keywords of an instance that only VRRP uses. Where VRRP
// is off they have no effect, and nothing in them is looked at.
func (l *loader) vrrpStatements(v *vrrpBlock) map[string]statement {
	set := func(f func(*VRRP)) { v.set = append(v.set, f) }
	at := func(read func(n *keepalived.Node)) statement {
		return statement{read: func(n *keepalived.Node) {
			v.positions[n.Keyword()] = n.Pos
			read(n)
		}}
	}
	flag := func(store func(*VRRP, bool)) statement {
		return at(func(n *keepalived.Node) {
			if b, ok := l.flag(n); ok {
				set(func(r *VRRP) { store(r, b) })
			}
		})
	}
	source := at(func(n *keepalived.Node) {
		if a, ok := l.plainAddress(n, "an IPv4 or IPv6 address of this node", false); ok {
			v.Source, v.sourceWord = a, n.Keyword()
		}
	})
	return map[string]statement{
		"version": at(func(n *keepalived.Node) {
			if i, ok := l.integer(n, 2, 3); ok {
				v.Version, v.versionSet = i, true
			}
		}),
		"authentication": {block: true, read: func(n *keepalived.Node) {
			v.positions[n.Keyword()] = n.Pos
			l.authentication(n, v)
		}},
		"auth_hmac": {block: true, read: func(n *keepalived.Node) {
			l.errorf(n.Pos, "auth_hmac: not supported; use authentication with auth_type PASS, or none")
		}},
		"unicast_src_ip": source,
		"mcast_src_ip":   source,
		"track_src_ip":   at(l.setFlag(&v.TrackSource)),
		"unicast_peer": {block: true, many: true, read: func(n *keepalived.Node) {
			if v.positions[n.Keyword()] == (Pos{}) {
				v.positions[n.Keyword()] = n.Pos
			}
			l.unicastPeers(n, v)
		}},
		"unicast_ttl": at(func(n *keepalived.Node) {
			if i, ok := l.integer(n, 0, 255); ok {
				v.TTL = i
			}
		}),
		"check_unicast_src":     flag(func(r *VRRP, b bool) { r.CheckSource = b }),
		"unicast_fault_no_peer": at(l.setFlag(&v.NoPeerIsFault)),
		"mcast_dst_ip": at(func(n *keepalived.Node) {
			if a, ok := l.plainAddress(n, "a multicast address", true); ok {
				v.groupSet = a
			}
		}),
		"use_vmac":                at(func(n *keepalived.Node) { l.useVMAC(n, v) }),
		"vmac_xmit_base":          at(l.setFlag(&v.VMACBase)),
		"v3_checksum_as_v2":       flag(func(r *VRRP, b bool) { r.PlainChecksum = b }),
		"skip_check_adv_addr":     flag(func(r *VRRP, b bool) { r.SkipCheckAddresses = b }),
		"lower_prio_no_advert":    flag(func(r *VRRP, b bool) { r.LowerPrioNoAdvert = b }),
		"higher_prio_send_advert": flag(func(r *VRRP, b bool) { r.HigherPrioSendAdvert = b }),
		"owner_ignore_adverts":    flag(func(r *VRRP, b bool) { r.OwnerIgnoreAdverts = b }),
		"strict_mode":             flag(func(r *VRRP, b bool) { r.Strict = b }),
		"down_timer_adverts": at(func(n *keepalived.Node) {
			if i, ok := l.integer(n, 1, 100); ok {
				set(func(r *VRRP) { r.DownTimerAdverts = i })
			}
		}),
		"garp_lower_prio_delay":  at(l.lowerPrio),
		"garp_lower_prio_repeat": at(l.lowerPrio),
		"accept":                 at(func(n *keepalived.Node) { l.flag(n) }), // the default
		"native_ipv6":            at(func(n *keepalived.Node) { l.flag(n) }), // deprecated: always so
	}
}

// vrrpGlobalStatements are those of global_defs.
func (l *loader) vrrpGlobalStatements(g *vrrpGlobals) map[string]statement {
	group := func(to *netip.Addr, want6 bool) statement {
		return statement{read: func(n *keepalived.Node) {
			a, ok := l.plainAddress(n, "a multicast address", true)
			if ok && a.Is6() != want6 {
				l.errorf(n.Pos, "%s %s: wrong family; must be %s multicast address", n.Keyword(), a, map[bool]string{false: "an IPv4", true: "an IPv6"}[want6])
			} else if ok {
				*to = a
			}
		}}
	}
	return map[string]statement{
		"vrrp_mcast_group4":            group(&g.group4, false),
		"vrrp_mcast_group6":            group(&g.group6, true),
		"vrrp_skip_check_adv_addr":     {read: l.setFlag(&g.SkipCheckAddresses)},
		"vrrp_check_unicast_src":       {read: l.setFlag(&g.CheckSource)},
		"vrrp_lower_prio_no_advert":    {read: l.setFlag(&g.LowerPrioNoAdvert)},
		"vrrp_higher_prio_send_advert": {read: l.setFlag(&g.HigherPrioSendAdvert)},
		"vrrp_owner_ignore_adverts":    {read: l.setFlag(&g.OwnerIgnoreAdverts)},
		"vrrp_strict":                  {read: l.setFlag(&g.Strict)},
		"v3_checksum_as_v2":            {read: l.setFlag(&g.PlainChecksum)},
		"vrrp_startup_delay":           {read: l.setSeconds(&g.StartupDelay, "0", "4294")},
		"vrrp_down_timer_adverts": {read: func(n *keepalived.Node) {
			if i, ok := l.integer(n, 1, 100); ok {
				g.DownTimerAdverts = i
			}
		}},
	}
}

// lowerPrio reads a keyword for which VRRP instances have no setting of their own.
func (l *loader) lowerPrio(n *keepalived.Node) {
	l.warnf(n.Pos, "%s", noEffectMessage(n.Keyword(), "after a lower priority was heard, addresses are announced as garp_master_* says"))
}

// plainAddress reads an address without length or zone.
func (l *loader) plainAddress(n *keepalived.Node, allowed string, multicast bool) (netip.Addr, bool) {
	s, ok := l.value(n, allowed)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() != multicast {
		l.errorf(n.Pos, "%s %s: must be %s", n.Keyword(), shorten(s), allowed)
		return netip.Addr{}, false
	}
	return a, true
}

// maxPassword is what fits into an advertisement of version 2.
const maxPassword = 8

// authentication reads auth_type and auth_pass. The password is never shown.
func (l *loader) authentication(n *keepalived.Node, v *vrrpBlock) {
	l.noMore(n, 0)
	kind := ""
	var pass string
	l.statements(ctxAuthentication, n.Block, map[string]statement{
		"auth_type": {read: func(n *keepalived.Node) {
			const allowed = "PASS"
			s, ok := l.value(n, allowed)
			switch {
			case !ok:
				kind = "bad"
			case s == "AH":
				l.errorf(n.Pos, "auth_type AH: not supported; must be %s", allowed)
				kind = "bad"
			case s != allowed:
				l.errorf(n.Pos, "auth_type %s: must be %s", shorten(s), allowed)
				kind = "bad"
			default:
				kind = s
			}
		}},
		"auth_pass": {read: func(n *keepalived.Node) {
			args := n.Args()
			if len(args) == 0 || args[0].Text == "" {
				l.errorf(n.Pos, "auth_pass: missing value; must be a password of 1 to 8 bytes")
				kind = "bad"
				return
			}
			s := args[0].Text
			if len(args) > 1 {
				l.warnf(n.Pos, "auth_pass: only the first word counts; put a password with blanks in double quotes")
			}
			if len(s) > maxPassword {
				l.warnf(n.Pos, "auth_pass: only the first %d of its %d bytes count, as in keepalived", maxPassword, len(s))
				s = s[:maxPassword]
			}
			pass = s
		}},
	})
	switch {
	case kind == "bad":
	case kind == "" && pass == "":
		l.warnf(n.Pos, "authentication: neither auth_type nor auth_pass; there is no authentication")
	case kind == "":
		l.errorf(n.Pos, "authentication: missing auth_type; must be auth_type PASS")
	case pass == "":
		l.errorf(n.Pos, "authentication: missing auth_pass; must be a password of 1 to 8 bytes")
	default:
		v.Password = pass
	}
}

// unicastPeers reads lines of ADDRESS [min_ttl N] [max_ttl N].
func (l *loader) unicastPeers(n *keepalived.Node, v *vrrpBlock) {
	l.noMore(n, 0)
	for _, line := range n.Block {
		l.seq++
		if line.HasBlock {
			l.errorf(line.Pos, "unicast_peer: no block in braces is allowed here; write one address per line")
			continue
		}
		a, err := netip.ParseAddr(line.Keyword())
		if err != nil || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			l.errorf(line.Pos, "unicast_peer: %s: must be the IPv4 or IPv6 address of another node", shorten(line.Keyword()))
			continue
		}
		p := VRRPPeer{Pos: line.Pos, Addr: a, MinTTL: -1, MaxTTL: -1}
		if l.peerOptions(line, &p) {
			if i := indexPeer(v.Peers, a); i >= 0 {
				l.warnf(line.Pos, "unicast_peer: %s is written twice, first at %s; the second is ignored", a, v.Peers[i].Pos)
				continue
			}
			v.Peers = append(v.Peers, p)
		}
	}
}

func (l *loader) peerOptions(line *keepalived.Node, p *VRRPPeer) bool {
	words := line.Args()
	for i := 0; i < len(words); i++ {
		to := map[string]*int{"min_ttl": &p.MinTTL, "max_ttl": &p.MaxTTL}[words[i].Text]
		if to == nil {
			l.errorf(line.Pos, "unicast_peer: unknown word %s; allowed after the address: min_ttl N, max_ttl N", display(words[i].Text))
			return false
		}
		if i++; i == len(words) {
			l.errorf(line.Pos, "unicast_peer: %s: missing value; must be %s", words[i-1].Text, wholeNumber(0, 255))
			return false
		}
		var ok bool
		if *to, ok = l.integerWord(line.Pos, "unicast_peer: "+words[i-1].Text, words[i].Text, 0, 255); !ok {
			return false
		}
	}
	if p.MinTTL >= 0 && p.MaxTTL >= 0 && p.MinTTL > p.MaxTTL {
		l.errorf(line.Pos, "unicast_peer: min_ttl %d: must not be above max_ttl %d", p.MinTTL, p.MaxTTL)
		return false
	}
	return true
}

func indexPeer(peers []VRRPPeer, a netip.Addr) int {
	for i, p := range peers {
		if p.Addr == a {
			return i
		}
	}
	return -1
}

// useVMAC reads [NAME].
func (l *loader) useVMAC(n *keepalived.Node, v *vrrpBlock) {
	v.VMAC = true
	args := n.Args()
	if len(args) == 0 {
		return
	}
	l.noMore(n, 1)
	if l.interfaceName(n.Pos, "use_vmac", args[0].Text) {
		v.VMACName = args[0].Text
	}
}
