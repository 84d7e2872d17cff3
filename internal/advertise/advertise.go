package advertise

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
)

// Listen is HOST:PORT, or :PORT, at which a node listens.
func Listen(id store.Identity, c *config.Config) string {
	if id.Listen != "" && (c.Raft.Listen == "" || c.Raft.Listen == ":"+DefaultPort) {
		return id.Listen
	}
	if c.Raft.Listen == "" {
		return ":" + DefaultPort
	}
	return c.Raft.Listen
}

// Address is HOST:PORT that other nodes are given: what the file says, else the
// host listened on, else what the operator told init or join, else an address of
// this host: the one chosen before if it is still there, the one on the way to a
// known peer, one in the subnet of a virtual address, the first. peers are HOST:PORT of
// known peers; vips are the virtual addresses, of which none is ever returned.
func Address(id store.Identity, c *config.Config, peers []string, vips []netip.Addr) (string, error) {
	address, err := chooseAdvertised(id, c, peers, vips)
	if err == nil {
		if err := state.CheckAddress(address); err != nil {
			return "", fmt.Errorf("advertise: %w", err)
		}
	}
	return address, err
}

func chooseAdvertised(id store.Identity, c *config.Config, peers []string, vips []netip.Addr) (string, error) {
	listen := Listen(id, c)
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("listen %s: %w", listen, err)
	}
	named := ""
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		named = listen
	}
	if named == "" && id.Advertise != "" {
		named = withPort(id.Advertise, port)
	}
	if c.Raft.Advertise != "" {
		named = withPort(c.Raft.Advertise, port)
	}
	if named != "" {
		return named, notVirtual(named, vips)
	}
	own, err := hostAddresses()
	if err != nil {
		return "", err
	}
	mine := func(address string) bool {
		h, _, err := net.SplitHostPort(address)
		return err == nil && slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr().String() == h })
	}
	if id.Chosen != "" && mine(id.Chosen) && notVirtual(id.Chosen, vips) == nil {
		return id.Chosen, nil
	}
	// A peer list that names one of this host's addresses says which to use.
	for _, peer := range c.Raft.Peers {
		if mine(peer) && notVirtual(peer, vips) == nil {
			return peer, nil
		}
	}
	for _, peer := range peers {
		if a, ok := sourceTowards(peer); ok && !isVIP(a, vips) {
			return net.JoinHostPort(a.String(), port), nil
		}
	}
	best, err := chooseAddress(own, vips)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(best.String(), port), nil
}

// notVirtual refuses a virtual address as that at which others reach this node: it
// would be another node's tomorrow.
func notVirtual(address string, vips []netip.Addr) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !isVIP(a.Addr().Unmap(), vips) {
		return nil
	}
	return api.WithHint(fmt.Errorf("the other nodes cannot reach this one at %s: it is a virtual address", a.Addr()),
		"give an address that stays with this node, with advertise in the raft block or --advertise HOST")
}

// sourceTowards returns the address that this host would use to reach another:
// the kernel's routing decision, for which nothing is sent.
func sourceTowards(address string) (netip.Addr, bool) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil || local.Addr().IsLoopback() {
		return netip.Addr{}, false
	}
	return local.Addr().Unmap(), true
}

func withPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), port)
}

// WithPort completes HOST to HOST:PORT.
func WithPort(address string) string { return withPort(address, DefaultPort) }

func hostAddresses() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		ip = ip.Unmap()
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() || !ip.IsValid() {
			continue
		}
		out = append(out, netip.PrefixFrom(ip, bits))
	}
	return out, nil
}

// chooseAddress picks the address other nodes reach this host at: in the subnet
// of a virtual address, else the first IPv4 one, else the first. A virtual
// address itself never is.
func chooseAddress(own []netip.Prefix, vips []netip.Addr) (netip.Addr, error) {
	var fallback netip.Addr
	for _, p := range own {
		if isVIP(p.Addr(), vips) || p.IsSingleIP() {
			continue
		}
		for _, v := range vips {
			if p.Contains(v) {
				return p.Addr(), nil
			}
		}
		if !fallback.IsValid() || fallback.Is6() && p.Addr().Is4() {
			fallback = p.Addr()
		}
	}
	if !fallback.IsValid() {
		return netip.Addr{}, api.WithHint(errors.New("this host has no address that other nodes could reach it at"),
			"name one with --advertise HOST, or with advertise in the raft block")
	}
	return fallback, nil
}

func isVIP(a netip.Addr, vips []netip.Addr) bool {
	for _, v := range vips {
		if v == a {
			return true
		}
	}
	return false
}

// DefaultPort is the TCP port of a node where neither its file nor a flag names one.
const DefaultPort = "7355"
