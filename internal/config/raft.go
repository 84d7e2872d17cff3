package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// DefaultPort is the TCP port of the cluster.
const DefaultPort = "7355"

// maxSocketPath is the longest path that fits a Unix socket address.
const maxSocketPath = 107

func (l *loader) raft(n *keepalived.Node) {
	l.noMore(n, 0)
	r := &l.cfg.Raft
	r.Pos = n.Pos
	l.statements(ctxRaft, n.Block, map[string]statement{
		"node_id": {read: func(n *keepalived.Node) {
			if v, ok := l.value(n, nodeIDAllowed); !ok {
				return
			} else if !validNodeID(v) {
				l.errorf(n.Pos, "node_id %s: must be %s", shorten(v), nodeIDAllowed)
			} else {
				r.NodeID = v
			}
		}},
		"listen": {read: func(n *keepalived.Node) {
			if v, ok := l.hostPort(n, "[HOST][:PORT]", true); ok {
				r.Listen = v
			}
		}},
		"advertise": {read: func(n *keepalived.Node) {
			if v, ok := l.hostPort(n, "HOST[:PORT]", false); ok {
				r.Advertise = v
			}
		}},
		"peers":       {many: true, read: l.peers},
		"secret_file": {read: l.setPath(&r.SecretFile)},
		"data_dir":    {read: l.setPath(&r.DataDir)},
		"socket": {read: func(n *keepalived.Node) {
			if v, ok := l.path(n); ok && len(v) > maxSocketPath {
				l.errorf(n.Pos, "socket %s: path of %d bytes; must be at most %d bytes", shorten(v), len(v), maxSocketPath)
			} else if ok {
				r.Socket = v
			}
		}},
		"heartbeat_timeout": {read: l.heartbeatTimeout},
		"ownership":         {read: l.ownership},
		"on_quorum_loss":    {read: l.fixed("release", "keep")},
		"guard": {read: func(n *keepalived.Node) {
			const allowed = "auto, bpf, bpf-tcx, bpf-clsact, nft, lifetime or off"
			v, ok := l.value(n, allowed)
			if ok && !slices.Contains([]string{"auto", "bpf", "bpf-tcx", "bpf-clsact", "nft", "lifetime", "off"}, v) {
				l.errorf(n.Pos, "guard %s: must be %s", shorten(v), allowed)
			} else if ok {
				r.Guard = v
			}
		}},
		"guard_pin_dir": {read: l.setPath(&r.GuardPinDir)},
		"witness":       {read: l.setFlag(&r.Witness)},
		"tls": {block: true, many: true, read: func(n *keepalived.Node) {
			l.errorf(n.Pos, "tls: not supported by this version; certificates are made from the cluster secret")
		}},
	})
}

func (l *loader) setPath(to *string) func(*keepalived.Node) {
	return func(n *keepalived.Node) {
		if v, ok := l.path(n); ok {
			*to = v
		}
	}
}

// ownership reads who owns what.
func (l *loader) ownership(n *keepalived.Node) {
	const allowed = "together or separate"
	v, ok := l.value(n, allowed)
	switch o := Ownership(v); {
	case !ok:
	case o == Together, o == Separate:
		l.cfg.Raft.Ownership, l.cfg.Raft.OwnershipPos = o, n.Pos
	default:
		l.errorf(n.Pos, "ownership %s: must be %s", shorten(v), allowed)
	}
}

// fixed reads a keyword of which this version supports one value.
func (l *loader) fixed(allowed, later string) func(*keepalived.Node) {
	return func(n *keepalived.Node) {
		v, ok := l.value(n, allowed)
		switch {
		case !ok || v == allowed:
		case v == later:
			l.errorf(n.Pos, "%s %s: not supported by this version; allowed: %s", n.Keyword(), v, allowed)
		default:
			l.errorf(n.Pos, "%s %s: must be %s", n.Keyword(), shorten(v), allowed)
		}
	}
}

const nodeIDAllowed = "1 to 63 letters, digits, hyphens, underscores or dots"

func validNodeID(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c)
	})
}

const heartbeatAllowed = "between 20ms and 10s, with unit (as 300ms), or without one in seconds"

func (l *loader) heartbeatTimeout(n *keepalived.Node) {
	s, ok := l.value(n, heartbeatAllowed)
	if !ok {
		return
	}
	d, ok := parseSeconds(s)
	if !ok {
		var err error
		d, err = time.ParseDuration(s)
		ok = err == nil
	}
	if !ok || d < 20*time.Millisecond || d > 10*time.Second {
		l.errorf(n.Pos, "heartbeat_timeout %s: must be %s", shorten(s), heartbeatAllowed)
		return
	}
	l.cfg.Raft.HeartbeatTimeout, l.cfg.Raft.HeartbeatPos = d, n.Pos
}

// peers reads one line of peers; several lines add up.
func (l *loader) peers(n *keepalived.Node) {
	const form = "HOST[:PORT]"
	if len(n.Args()) == 0 {
		l.errorf(n.Pos, "peers: missing value; must be the %s of every node, separated by blanks", form)
	}
	for _, w := range n.Args() {
		peer, ok := hostPort(w.Text, false)
		switch {
		case !ok:
			l.errorf(w.Pos, "peers %s: must be %s, with IPv6 addresses in brackets if a port follows", shorten(w.Text), form)
		case slices.Contains(l.cfg.Raft.Peers, peer):
			l.warnf(w.Pos, "peers: %s is written twice; the second is ignored", peer)
		default:
			l.cfg.Raft.Peers = append(l.cfg.Raft.Peers, peer)
		}
	}
}

func (l *loader) hostPort(n *keepalived.Node, form string, anyHost bool) (string, bool) {
	s, ok := l.value(n, form)
	if !ok {
		return "", false
	}
	v, ok := hostPort(s, anyHost)
	if !ok {
		l.errorf(n.Pos, "%s %s: must be %s with a port between 1 and 65535, and IPv6 addresses in brackets if a port follows", n.Keyword(), shorten(s), form)
	}
	return v, ok
}

// hostPort completes HOST, HOST:PORT or :PORT. anyHost permits an empty or
// unspecified host.
func hostPort(s string, anyHost bool) (string, bool) {
	host, port := s, DefaultPort
	if _, err := netip.ParseAddr(s); err != nil {
		if h, p, err := net.SplitHostPort(s); err == nil {
			host, port = h, p
		} else if inner, ok := strings.CutPrefix(s, "["); ok {
			if host, ok = strings.CutSuffix(inner, "]"); !ok {
				return "", false
			}
		}
	}
	if v, err := strconv.ParseUint(port, 10, 16); err != nil || v == 0 || port[0] == '+' {
		return "", false
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && addr.IsUnspecified():
		if !anyHost {
			return "", false
		}
	case err == nil:
		if addr.IsMulticast() {
			return "", false
		}
	case !validHost(host):
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

// validHost reports whether s has the form of a host name, and not that of a
// mistyped IPv4 address.
func validHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if !validNodeID(label) {
			return false
		}
	}
	return strings.ContainsFunc(s, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
}
