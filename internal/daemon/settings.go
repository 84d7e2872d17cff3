package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/place"
)

// Defaults of the global flags.
const (
	DefaultConfigPath = "/etc/raftvip/raftvip.conf"
	DefaultDataDir    = "/var/lib/raftvip"
	DefaultSocket     = "/run/raftvip/raftvip.sock"
	DefaultPort       = "7355"
)

// Settings say which configuration a daemon or command uses. Empty strings mean
// that neither a flag nor the environment named one.
type Settings struct {
	ConfigPath string
	ConfigID   string // selects @id lines; empty for the host name
	DataDir    string
	Socket     string
	// Program is the version of raftvip.
	Program string
}

// A ConfigError lists all errors of a configuration file.
type ConfigError struct {
	Path        string
	Diagnostics []config.Diagnostic
}

func (e *ConfigError) Error() string {
	var lines []string
	for _, d := range e.Diagnostics {
		if d.Severity == config.SeverityError {
			lines = append(lines, d.String())
		}
	}
	return strings.Join(lines, "\n")
}

// LoadConfig reads the node's configuration. No file at the default path is the
// default configuration, and its path is empty.
func (s Settings) LoadConfig() (c *config.Config, path string, err error) {
	path = s.ConfigPath
	if path == "" {
		if _, err := os.Stat(DefaultConfigPath); errors.Is(err, fs.ErrNotExist) {
			host, err := os.Hostname()
			if err != nil {
				return nil, "", fmt.Errorf("read host name: %w", err)
			}
			return s.override(config.Default(host)), "", nil
		}
		path = DefaultConfigPath
	}
	c, diags := config.Load(path, config.System(config.Options{ConfigID: s.ConfigID}))
	if config.HasErrors(diags) || c == nil {
		return nil, path, api.WithHint(&ConfigError{path, diags}, fmt.Sprintf("check the file with: raftvip check-config %s", path))
	}
	c.Warnings = diags
	return s.override(c), path, nil
}

func (s Settings) override(c *config.Config) *config.Config {
	if s.DataDir != "" {
		c.Raft.DataDir = s.DataDir
	}
	if s.Socket != "" {
		c.Raft.Socket = s.Socket
	}
	if c.Raft.DataDir == "" {
		c.Raft.DataDir = DefaultDataDir
	}
	if c.Raft.Socket == "" {
		c.Raft.Socket = DefaultSocket
	}
	return c
}

// ownIdentity reads who this node is, or makes it somebody from the peers and
// secret_file of its configuration.
func ownIdentity(data *store.DataDir, c *config.Config) (store.Identity, pki.Secret, error) {
	id, err := data.Identity()
	if err == nil {
		secret, err := data.Secret()
		if err != nil {
			return id, secret, err
		}
		if c.Raft.SecretFile != "" {
			configured, err := operate.ReadSecretFile(c.Raft.SecretFile)
			if err != nil {
				return id, secret, err
			}
			if configured.ClusterID() != id.ClusterID {
				return id, secret, api.WithHint(
					fmt.Errorf("data dir %s belongs to cluster %s, but secret_file %s to cluster %s", data.Path(), id.ClusterID, c.Raft.SecretFile, configured.ClusterID()),
					"use the secret of the node's own cluster, or move the data dir away to make this a new node of the other one")
			}
		}
		return id, secret, nil
	}
	if !errors.Is(err, store.ErrEmptyDataDir) {
		return id, pki.Secret{}, err
	}
	if len(c.Raft.Peers) == 0 || c.Raft.SecretFile == "" {
		return id, pki.Secret{}, api.WithHint(err,
			`found a cluster with "raftvip init", enter one with "raftvip join HOST --token-file FILE", or give peers and secret_file in the raft block`)
	}
	secret, err := operate.ReadSecretFile(c.Raft.SecretFile)
	if err != nil {
		return id, pki.Secret{}, err
	}
	if err := state.CheckName(c.Raft.NodeID); err != nil {
		return id, pki.Secret{}, err
	}
	id = store.Identity{
		ClusterID: secret.ClusterID(), NodeID: store.NewNodeID(c.Raft.NodeID), Name: c.Raft.NodeID,
		Witness: c.Raft.Witness, Origin: store.OriginPeers,
	}
	return id, secret, data.Create(id, secret, store.Cache{}, nil)
}

// ListenAddress is where a node listens.
func ListenAddress(id store.Identity, c *config.Config) string {
	if id.Listen != "" && (c.Raft.Listen == "" || c.Raft.Listen == ":"+DefaultPort) {
		return id.Listen
	}
	if c.Raft.Listen == "" {
		return ":" + DefaultPort
	}
	return c.Raft.Listen
}

// AdvertiseAddress is what other nodes are given: what the file says, else the
// host listened on, else what the operator told init or join, else an address of
// this host: the one chosen before if it is still there, the one on the way to a
// known peer, one in the subnet of a virtual address, the first.
func AdvertiseAddress(id store.Identity, c *config.Config, peers []string, vips []netip.Addr) (string, error) {
	address, err := chooseAdvertised(id, c, peers, vips)
	if err == nil {
		if err := state.CheckAddress(address); err != nil {
			return "", fmt.Errorf("advertise: %w", err)
		}
	}
	return address, err
}

func chooseAdvertised(id store.Identity, c *config.Config, peers []string, vips []netip.Addr) (string, error) {
	listen := ListenAddress(id, c)
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

// checkPrivileges says what is missing to put addresses on interfaces.
func checkPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return api.WithHint(fmt.Errorf("not permitted to put addresses on interfaces: %s missing", strings.Join(missing, " and ")),
			"run as root, or by the systemd unit, which grants just these")
	}
	return nil
}

// DoctorAlone examines this node without its daemon: what can be seen from here, and
// whether the other nodes that are known can be reached. finding says what is wrong with
// the daemon. Nothing is changed.
func DoctorAlone(ctx context.Context, s Settings, finding doctor.Finding) (doctor.Report, error) {
	c, _, err := s.LoadConfig()
	if err != nil {
		return doctor.Report{}, err
	}
	// Without an address that others could use there is still much to look at.
	advertise := func(id store.Identity, peers []string) string {
		address, _ := AdvertiseAddress(id, c, peers, place.FileAddresses(c))
		return address
	}
	return operate.DoctorAlone(ctx, c, advertise, finding)
}
