package config

import (
	"os"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// Options are what a configuration depends on besides its text. The hooks
// check it against the machine; a nil hook skips its checks, so that the zero
// Options are hermetic except for HostName.
type Options struct {
	// HostName is this node's host name. Default: os.Hostname().
	HostName string
	// ConfigID selects @id lines. Default: HostName up to the first dot.
	ConfigID string
	// Instance is the value of ${_INSTANCE}.
	Instance string
	// FS is where configuration files are read from. Default: the machine's.
	FS keepalived.FileSystem
	// Env looks up ${_ENV NAME}. Default: os.LookupEnv.
	Env func(name string) (string, bool)

	// LookPath finds a bare command in PATH.
	LookPath func(name string) (string, error)
	// Lstat describes a file without following a symbolic link. With it,
	// scripts must exist, be executable, and pass enable_script_security.
	Lstat func(path string) (FileStat, error)
	// Head returns the first bytes of a file, up to 256. Without it interpreters are
	// not known.
	Head func(path string) ([]byte, error)
	// InterfaceExists reports whether the machine has a network interface.
	InterfaceExists func(name string) bool
	// LookupUser and LookupGroup return the id of a user or group by name or number.
	LookupUser  func(name string) (uint32, error)
	LookupGroup func(name string) (uint32, error)
}

// Load reads a configuration file with its includes. All problems are
// returned, in file order; the configuration is nil if one of them is an error.
func Load(path string, opt Options) (*Config, []Diagnostic) {
	l := newLoader(opt)
	tree, problems := keepalived.Parse(path, l.parserOptions())
	return l.load(tree, problems)
}

// LoadBytes is Load for a file of which the content is known; name is used in
// messages and to find includes.
func LoadBytes(name string, data []byte, opt Options) (*Config, []Diagnostic) {
	l := newLoader(opt)
	tree, problems := keepalived.ParseBytes(name, data, l.parserOptions())
	return l.load(tree, problems)
}

// Default returns the configuration of a node without a file: no instances.
func Default(hostName string) *Config {
	short, _, _ := strings.Cut(hostName, ".")
	return &Config{
		Global: Global{
			RouterID:         hostName,
			DefaultInterface: "eth0",
			VRRPVersion:      2,
			GARP: GARP{
				MasterDelay:         5 * time.Second,
				MasterRepeat:        5,
				MasterRefresh:       60 * time.Second,
				MasterRefreshRepeat: 1,
			},
		},
		Raft: Raft{
			NodeID:           short,
			Listen:           ":" + DefaultPort,
			DataDir:          "/var/lib/raftvip",
			Socket:           "/run/raftvip/raftvip.sock",
			HeartbeatTimeout: 300 * time.Millisecond,
			Guard:            "auto",
			Ownership:        Together,
		},
	}
}

// A loader turns one tree into a configuration.
type loader struct {
	opt   Options
	cfg   *Config
	diags []Diagnostic

	// seq numbers statements in the order they are read, across files.
	seq                     int
	defaultInterfaceWritten bool
	scripts                 map[string]*scriptBlock
	instances               []*instanceBlock
	globalVRRP              [][]*keepalived.Node // VRRP settings of each global_defs
	instanceNames           map[string]Pos
	syncGroups              []*syncGroup
}

func newLoader(opt Options) *loader {
	if opt.HostName == "" {
		opt.HostName, _ = os.Hostname()
	}
	if opt.ConfigID == "" {
		opt.ConfigID, _, _ = strings.Cut(opt.HostName, ".")
	}
	return &loader{
		opt:           opt,
		cfg:           Default(opt.HostName),
		scripts:       map[string]*scriptBlock{},
		instanceNames: map[string]Pos{},
	}
}

func (l *loader) parserOptions() keepalived.Options {
	return keepalived.Options{ConfigID: l.opt.ConfigID, Instance: l.opt.Instance, FS: l.opt.FS, Env: l.opt.Env}
}

func (l *loader) load(tree *keepalived.Tree, problems []keepalived.Problem) (*Config, []Diagnostic) {
	for _, p := range problems {
		if p.Warning {
			l.warnf(p.Pos, "%s", p.Message)
		} else {
			l.errorf(p.Pos, "%s", p.Message)
		}
	}
	l.cfg.Files = tree.Files

	l.statements(ctxRoot, tree.Nodes, map[string]statement{
		"global_defs":     {block: true, many: true, read: l.globalDefs},
		"vrrp_script":     {block: true, many: true, read: l.vrrpScript},
		"vrrp_instance":   {block: true, many: true, read: l.vrrpInstance},
		"vrrp_sync_group": {block: true, many: true, read: l.vrrpSyncGroup},
		"raft":            {block: true, read: l.raft},
	})
	if !anyKnown(tree.Nodes) && !HasErrors(l.diags) && len(tree.Files) > 0 {
		l.errorf(Pos{File: tree.Files[0], Line: 1}, "there is no block in this file that raftvip knows, such as vrrp_instance or raft: it is empty, or no configuration file")
	}
	l.resolve()

	sortDiagnostics(l.diags, tree.Files)
	if HasErrors(l.diags) {
		return nil, l.diags
	}
	l.cfg.Warnings = l.diags
	return l.cfg, l.diags
}
