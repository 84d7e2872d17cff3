package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/machine"
	"github.com/raftvip/raftvip/internal/pki"
)

// Files of a data directory.
const (
	identityFile = "node.json"
	secretFile   = "secret"
	cacheFile    = "cluster.json"
	seedFile     = "seed.json"
	baseFile     = "base.json"
	lockFile     = "lock"
	RaftDir      = "raft"
)

// An Origin says how a data directory came to belong to a cluster.
type Origin string

// Origins.
const (
	// OriginInit: made by init; the node founds the cluster when it first runs.
	OriginInit Origin = "init"
	// OriginJoin: made by join; a member adds the node when it first runs.
	OriginJoin Origin = "join"
	// OriginPeers: made by the daemon from the peers and secret_file of its file.
	OriginPeers Origin = "peers"
)

// An Identity is who a node is. It is made with its data directory and never
// changes; a node that has lost its directory is another node.
type Identity struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
	NodeID    string `json:"node_id"`
	Name      string `json:"name"`
	// Advertise is HOST:PORT given to the other nodes, as the operator said, or
	// empty if the daemon is to choose.
	Advertise string `json:"advertise,omitempty"`
	// Chosen is the HOST:PORT that init or join chose. It holds as long as this
	// host has the address: a node whose address has changed chooses anew.
	Chosen string `json:"chosen,omitempty"`
	// Listen is HOST:PORT to listen on, or empty for the default.
	Listen  string `json:"listen,omitempty"`
	Witness bool   `json:"witness,omitempty"`
	Origin  Origin `json:"origin"`
	// HasLog is set before the Raft log is first written. With it set, a missing
	// log is lost votes, and the node must not take part under this identity.
	HasLog bool `json:"has_log,omitempty"`
}

const identityFormat = 1

// NewNodeID returns an identity for a node of this name that was never used before.
func NewNodeID(name string) string {
	var b [4]byte
	rand.Read(b[:])
	return name + "-" + hex.EncodeToString(b[:])
}

// A Cache is what a node remembers of its cluster between runs, until it hears
// it anew: where the others are and what it has promised.
type Cache struct {
	// Addresses are HOST:PORT of the other members.
	Addresses []string `json:"addresses,omitempty"`
	// Heartbeat is the setting in force when it was written.
	Heartbeat state.HeartbeatSetting `json:"heartbeat"`
	// Version is that of the replicated state that it was written from, or 0. The log
	// reaches at least that far as long as it is whole.
	Version uint64 `json:"version,omitempty"`
	// Past is how far the members are known to have come, by node ID.
	Past map[string]identity.Past `json:"past,omitempty"`
}

// A Seed is what init leaves for the first run: the content of the new cluster.
type Seed struct {
	Instances []state.Instance    `json:"instances,omitempty"`
	Tokens    []state.TokenRecord `json:"tokens,omitempty"`
}

// A DataDir is a node's data directory.
type DataDir struct {
	path string
	lock *os.File
}

// Errors of data directories.
var (
	// ErrEmptyDataDir: the directory belongs to no cluster.
	ErrEmptyDataDir = errors.New("the data dir belongs to no cluster yet")
	// ErrDataDirInUse: another process has the directory open.
	ErrDataDirInUse = errors.New("another raftvip process uses the data dir")
	// ErrLogLost: the identity is there, the Raft log is not.
	ErrLogLost = errors.New("the Raft log is missing or damaged")
)

// OpenDataDir makes the directory if needed and locks it against other processes.
func OpenDataDir(path string) (*DataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open data dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data dir: %w", err)
	}
	// A daemon that is being restarted may need a moment to let go.
	for deadline := time.Now().Add(time.Second); ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("open %s: %w", path, ErrDataDirInUse)
		}
		return nil, fmt.Errorf("lock data dir %s: %w", path, err)
	}
	return &DataDir{path: path, lock: f}, nil
}

// PeekDataDir reads who the node of a data directory is, without locking or changing
// it, for commands that only look. The errors are those of Identity, Secret and Cache.
func PeekDataDir(path string) (Identity, pki.Secret, Cache, error) {
	d := &DataDir{path: path}
	id, err := d.Identity()
	if err != nil {
		return Identity{}, pki.Secret{}, Cache{}, err
	}
	secret, err := d.Secret()
	if err != nil {
		return Identity{}, pki.Secret{}, Cache{}, err
	}
	cache, err := d.Cache()
	return id, secret, cache, err
}

// Close unlocks the directory.
func (d *DataDir) Close() error { return d.lock.Close() }

// Path is the directory's path.
func (d *DataDir) Path() string { return d.path }

// Identity reads who this node is; ErrEmptyDataDir if it is nobody yet.
func (d *DataDir) Identity() (Identity, error) {
	var id Identity
	if err := d.read(identityFile, &id); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Identity{}, fmt.Errorf("%s: %w", d.path, ErrEmptyDataDir)
		}
		return Identity{}, err
	}
	if id.Format > identityFormat {
		return Identity{}, fmt.Errorf("%s has format %d, this version of raftvip knows up to %d", d.file(identityFile), id.Format, identityFormat)
	}
	if id.NodeID == "" || id.ClusterID == "" || state.CheckName(id.Name) != nil {
		return Identity{}, fmt.Errorf("%s is damaged: it names no node or no cluster", d.file(identityFile))
	}
	return id, nil
}

// Create makes the directory belong to a cluster: identity, secret, and what else
// the first run needs. The identity is written last, so that a crash leaves an
// empty directory rather than half a node.
func (d *DataDir) Create(id Identity, secret pki.Secret, cache Cache, seed *Seed) error {
	if old, err := d.Identity(); err == nil {
		return &OtherClusterError{Path: d.path, Existing: old}
	} else if !errors.Is(err, ErrEmptyDataDir) {
		return err
	}
	id.Format = identityFormat
	if err := os.Remove(d.file(secretFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("prepare data dir: %w", err)
	}
	if err := pki.WriteSecretFile(d.file(secretFile), secret); err != nil {
		return err
	}
	if err := d.write(cacheFile, cache); err != nil {
		return err
	}
	if seed != nil {
		if err := d.write(seedFile, seed); err != nil {
			return err
		}
	}
	if err := d.bind(machine.Read(), 0); err != nil {
		return err
	}
	return d.write(identityFile, id)
}

// An OtherClusterError says that a data directory is somebody's already.
type OtherClusterError struct {
	Path     string
	Existing Identity
}

func (e *OtherClusterError) Error() string {
	return fmt.Sprintf("data dir %s already belongs to node %s of cluster %s", e.Path, e.Existing.Name, e.Existing.ClusterID)
}

// Secret reads the cluster secret.
func (d *DataDir) Secret() (pki.Secret, error) { return pki.ReadSecretFile(d.file(secretFile)) }

// Seed reads what init left; a missing file is an empty seed.
func (d *DataDir) Seed() (Seed, error) {
	var s Seed
	if err := d.read(seedFile, &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Seed{}, err
	}
	return s, nil
}

// DropSeed removes the seed once the cluster exists.
func (d *DataDir) DropSeed() error {
	if err := os.Remove(d.file(seedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove seed: %w", err)
	}
	return nil
}

// Cache reads what this node remembers; a missing file is an empty cache.
func (d *DataDir) Cache() (Cache, error) {
	var c Cache
	if err := d.read(cacheFile, &c); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Cache{}, err
	}
	return c, nil
}

// CachedHeartbeat reads the timing that the node whose data directory this is had
// last, without taking hold of the directory.
func CachedHeartbeat(dir string) (state.HeartbeatSetting, error) {
	c, err := (&DataDir{path: dir}).Cache()
	return c.Heartbeat, err
}

// Base reads what this node's configuration file and its cluster last agreed on, for
// the daemon to judge files by; a missing file is nil.
func (d *DataDir) Base() (map[string]string, error) {
	var c map[string]string
	if err := d.read(baseFile, &c); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

// WriteBase stores it.
func (d *DataDir) WriteBase(c map[string]string) error { return d.write(baseFile, c) }

// WriteCache stores what this node remembers.
func (d *DataDir) WriteCache(c Cache) error { return d.write(cacheFile, c) }

// MarkLog notes in the identity that a Raft log exists from now on.
func (d *DataDir) MarkLog(id Identity) error {
	id.HasLog = true
	return d.write(identityFile, id)
}

// GroupDir is where a group's log and snapshots are.
func (d *DataDir) GroupDir(group string) string { return filepath.Join(d.path, RaftDir, group) }

func (d *DataDir) file(name string) string { return filepath.Join(d.path, name) }

func (d *DataDir) read(name string, into any) error {
	b, err := os.ReadFile(d.file(name))
	if err != nil {
		return fmt.Errorf("read data dir: %w", err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", d.file(name), err)
	}
	return nil
}

// write replaces a file so that a crash leaves the old or the new content.
func (d *DataDir) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	temporary := d.file(name + ".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write data dir: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, d.file(name))
	}
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
