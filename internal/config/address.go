package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/raftvip/raftvip/internal/keepalived"
	"github.com/raftvip/raftvip/internal/vipaddr"
)

// addresses reads a virtual_ipaddress or virtual_ipaddress_excluded block.
func (l *loader) addresses(n *keepalived.Node, excluded bool) []Address {
	l.noMore(n, 0)
	var out []Address
	for _, line := range n.Block {
		l.seq++
		if line.HasBlock {
			l.errorf(line.Pos, "%s: no block in braces is allowed here; write one address per line", n.Keyword())
			continue
		}
		if a, ok := l.address(n.Keyword(), line); ok {
			a.Excluded = excluded
			out = append(out, a)
		}
	}
	return out
}

// addressWords are the words of an address line that have no effect, and how
// many words follow them; -1: all the rest of the line.
var addressWords = map[string]struct {
	values int
	reason string
}{
	"peer":          {1, "point-to-point addresses are not supported"},
	"home":          {0, ""},
	"-nodad":        {0, "duplicate address detection stays off, the lease prevents duplicates"},
	"nodad":         {0, "duplicate address detection is off anyway"},
	"mngtmpaddr":    {0, ""},
	"noprefixroute": {0, "no prefix route is added anyway"},
	"autojoin":      {0, ""},
	"no_track":      {0, "losing an address is never a fault: it is added again"},
	"preferred_lft": {1, "IPv6 addresses are never chosen as source"},
	"track_group":   {1, ""},
	"use_vmac":      {-1, noVMAC},
}

const addressAllowed = "must be an IPv4 or IPv6 unicast address, with /LENGTH if wanted"

// address reads one line: ADDRESS[/LENGTH] and options.
func (l *loader) address(block string, line *keepalived.Node) (Address, bool) {
	prefix, ok := l.vip(line.Pos, block, line.Keyword())
	a := Address{Pos: line.Pos, Prefix: prefix}
	words := line.Args()
	for i := 0; i < len(words); i++ {
		word := words[i].Text
		// next returns the option's value.
		next := func(allowed string) (string, bool) {
			if i+1 == len(words) {
				l.errorf(line.Pos, "%s: %s: missing value; must be %s", block, word, allowed)
				ok = false
				return "", false
			}
			i++
			return words[i].Text, true
		}
		switch word {
		case "dev":
			if v, found := next("an interface name"); found {
				ok = l.interfaceName(line.Pos, block+": dev", v) && ok
				a.Dev = v
			}
		case "brd", "broadcast":
			if v, found := next("an IPv4 address, + or -"); found {
				ok = l.broadcast(line.Pos, block, v, prefix) && ok
				a.Brd = v
			}
		case "scope":
			if v, found := next(scopes); found {
				ok = l.scope(line.Pos, block, v) && ok
				a.Scope = v
			}
		case "label":
			if v, found := next("a label of at most 15 bytes"); found {
				ok = l.label(line.Pos, block, v, prefix) && ok
				a.Label = v
			}
		default:
			if w, known := addressWords[word]; known {
				l.warnf(line.Pos, "%s: %s", block, noEffectMessage(word, w.reason))
				if i += w.values; w.values < 0 {
					i = len(words)
				}
			} else if _, err := netip.ParseAddr(beforeSlash(word)); err == nil {
				l.errorf(line.Pos, "%s: second address %s on the line; write one address per line", block, shorten(word))
				ok = false
			} else if meant := nearestAddressWord(word); meant != "" {
				// What follows it would be lost, and the address would go elsewhere.
				l.errorf(line.Pos, "%s: unknown word %s; did you mean %s?", block, display(word), meant)
				ok, i = false, i+1
			} else {
				l.warnf(line.Pos, "%s: unknown word %s; allowed after the address: dev, brd, scope, label", block, display(word))
			}
		}
	}
	return a, ok
}

// nearestAddressWord returns the word with an effect of which a word of an address line
// is a misspelling, or "".
func nearestAddressWord(word string) string {
	var candidates []string
	for w := range addressWords {
		candidates = append(candidates, w)
	}
	effective := []string{"dev", "brd", "broadcast", "scope", "label"}
	if lower := strings.ToLower(word); slices.Contains(effective, lower) {
		return lower
	}
	if best := nearest(word, append(candidates, effective...)); slices.Contains(effective, best) {
		return best
	}
	return ""
}

func beforeSlash(s string) string {
	before, _, _ := strings.Cut(s, "/")
	return before
}

// vip reads the address of a line.
func (l *loader) vip(pos Pos, block, s string) (netip.Prefix, bool) {
	bad := func(why string) (netip.Prefix, bool) {
		l.errorf(pos, "%s: %s: %s; %s", block, shorten(s), why, addressAllowed)
		return netip.Prefix{}, false
	}
	text, length, hasLength := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return bad("not an IP address")
	case addr.Zone() != "": // which a prefix has not
		return bad("zone not allowed, use dev")
	}
	// What concerns the address alone is said before its length is looked at.
	if err := vipaddr.Check(netip.PrefixFrom(addr, addr.BitLen())); err != nil {
		return bad(err.Error())
	}
	bits := addr.BitLen()
	if hasLength {
		v, err := strconv.ParseUint(length, 10, 8)
		if err != nil || v < 1 || int(v) > addr.BitLen() || length[0] == '0' || length[0] == '+' {
			l.errorf(pos, "%s: %s: bad prefix length; must be between 1 and %d", block, shorten(s), addr.BitLen())
			return netip.Prefix{}, false
		}
		bits = int(v)
	}
	prefix := netip.PrefixFrom(addr, bits)
	if err := vipaddr.Check(prefix); err != nil {
		return bad(err.Error())
	}
	if bits < addr.BitLen()-1 && addr == prefix.Masked().Addr() {
		l.warnf(pos, "%s: %s: is the address of the network itself; is a host address meant?", block, s)
	}
	return prefix, true
}

func (l *loader) broadcast(pos Pos, block, s string, vip netip.Prefix) bool {
	if vip.IsValid() && vip.Addr().Is6() {
		l.errorf(pos, "%s: brd: IPv6 has no broadcast; allowed with IPv4 addresses only", block)
		return false
	}
	if addr, err := netip.ParseAddr(s); s != "+" && s != "-" && (err != nil || !addr.Is4()) {
		l.errorf(pos, "%s: brd %s: must be an IPv4 address, + or -", block, shorten(s))
		return false
	}
	return true
}

const scopes = "global, site, link, host, nowhere or a number between 0 and 255"

func (l *loader) scope(pos Pos, block, s string) bool {
	switch s {
	case "global", "site", "link", "host", "nowhere":
		return true
	}
	if _, err := strconv.ParseUint(s, 10, 8); err != nil {
		l.errorf(pos, "%s: scope %s: must be %s", block, shorten(s), scopes)
		return false
	}
	return true
}

func (l *loader) label(pos Pos, block, s string, vip netip.Prefix) bool {
	switch {
	case vip.IsValid() && vip.Addr().Is6():
		l.errorf(pos, "%s: label: IPv6 addresses have no label; allowed with IPv4 addresses only", block)
		return false
	case s == "" || len(s) > 15 || strings.ContainsAny(s, " \t/"):
		l.errorf(pos, "%s: label %s: must be 1 to 15 bytes without blank or slash", block, shorten(s))
		return false
	}
	return true
}
