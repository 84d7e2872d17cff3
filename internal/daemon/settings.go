package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/advertise"
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
	reachedAt := func(id store.Identity, peers []string) string {
		address, _ := advertise.Address(id, c, peers, place.FileAddresses(c))
		return address
	}
	return operate.DoctorAlone(ctx, c, reachedAt, finding)
}
