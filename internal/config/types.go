package config

import (
	"net/netip"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// Pos is the place of a value in a configuration file.
type Pos = keepalived.Pos

// Severity tells an error, which prevents loading, from a warning.
type Severity int

// Severities. The zero value is the safe one: an unset severity is an error.
const (
	SeverityError Severity = iota
	SeverityWarning
)

// A Diagnostic is one problem found in a configuration file.
type Diagnostic struct {
	Pos      Pos
	Severity Severity
	// Message says what is wrong and, after a semicolon, what is allowed.
	// It never contains a secret.
	Message string
}

// A Config is one node's whole configuration, with defaults filled in.
type Config struct {
	// Files are the files read, the main one first.
	Files     []string
	Global    Global
	Raft      Raft
	Scripts   []*Script
	Instances []*Instance
	// Warnings are the diagnostics that did not prevent loading.
	Warnings []Diagnostic
}

// Global holds what is used of the global_defs block.
type Global struct {
	// RouterID labels this node in logs. Default: the host name.
	RouterID string
	// ScriptUser and ScriptGroup are the default identity of scripts. Empty
	// means: user keepalived_script if it exists, else the daemon's own.
	ScriptUser  string
	ScriptGroup string
	// EnableScriptSecurity refuses scripts run as root that others than root
	// could change.
	EnableScriptSecurity bool
	// DefaultInterface is used where an instance names none. Default eth0.
	DefaultInterface string
	// DynamicInterfaces permits interfaces that do not exist yet.
	DynamicInterfaces bool
	// VRRPVersion is the default protocol version, 2 or 3.
	VRRPVersion int
	// GARP is the default announcement schedule of the instances.
	GARP GARP
}

// GARP is the announcement schedule of an instance (keepalived.conf(5),
// garp_master_*).
type GARP struct {
	// MasterDelay is the time to the second burst; 0 means none. Default 5 s.
	MasterDelay time.Duration
	// MasterRepeat is the number of announcements per address and burst. Default 5.
	MasterRepeat int
	// MasterRefresh is the period of further announcements while owning. The
	// default here is 60 s (keepalived: off). 0 means off.
	MasterRefresh time.Duration
	// MasterRefreshRepeat is the number of announcements per refresh. Default 1.
	MasterRefreshRepeat int
	// Interval and GNAInterval are the gaps between two ARP or NA packets on one interface.
	Interval    time.Duration
	GNAInterval time.Duration
}

// A Script is a vrrp_script block.
type Script struct {
	Pos  Pos
	Name string
	// Argv is the command, split as keepalived splits it; never given to a
	// shell. Argv[0] is as written; a bare name is looked up in PATH.
	Argv []string
	// Interval is the period of runs, Timeout the time after which a run is
	// killed. Default 1 s and Interval.
	Interval time.Duration
	Timeout  time.Duration
	// Weight is added while the script succeeds if positive, while it fails if
	// negative; -253..253. 0: failing is a fault. Reverse swaps success and failure.
	Weight  int
	Reverse bool
	// Rise and Fall are the numbers of consecutive results that change the state.
	Rise int
	Fall int
	// User and Group override the global script identity where not empty.
	User  string
	Group string
}

// A TrackRef is one line of a track_script or track_interface block.
type TrackRef struct {
	Pos  Pos
	Name string
	// Weight and Reverse are the effective ones: the line's own, else the tracker's.
	Weight  int
	Reverse bool
}

// An Address is one line of virtual_ipaddress or virtual_ipaddress_excluded.
type Address struct {
	Pos Pos
	// Prefix is the address with its length as written; no length means /32 or /128.
	Prefix netip.Prefix
	// Excluded is true for an address of virtual_ipaddress_excluded.
	Excluded bool
	// Dev is the interface if the line names one.
	Dev string
	// Brd is "", "+", "-" or an IPv4 address.
	Brd string
	// Scope is "" (global), "global", "site", "link", "host", "nowhere" or a number 0..255.
	Scope string
	// Label is the IPv4 interface label (under 16 bytes), or "".
	Label string
}

// An Instance is a vrrp_instance block.
type Instance struct {
	Pos  Pos
	Name string
	// Interface is the interface as written, else the global default if that was
	// written, else "" (chosen by the address's subnet).
	Interface string
	// InitialState is "MASTER", "BACKUP" or "" if not written.
	InitialState string
	// VirtualRouterID is 1..255, or 0 if not written.
	VirtualRouterID int
	// Priority is the base priority, 1..255. Default 100.
	Priority int
	// AdvertInt is the VRRP advertisement interval. Default 1 s.
	AdvertInt time.Duration
	// NoPreempt and PreemptDelay are the rules under which this node takes over
	// from a lower-priority owner.
	NoPreempt       bool
	PreemptDelay    time.Duration
	Addresses       []Address // virtual_ipaddress, then virtual_ipaddress_excluded
	TrackScripts    []TrackRef
	TrackInterfaces []TrackRef
	// DontTrackPrimary: the instance's own interface being down is no fault.
	DontTrackPrimary bool
	GARP             GARP
	// SyncGroup is the vrrp_sync_group that the instance is in, or "".
	SyncGroup string
	// VRRP is how the instance speaks VRRP; nil: not at all.
	VRRP *VRRP
}

// Ownership says which instances of a cluster have one owner.
type Ownership string

// Ownership of instances.
const (
	// Together: all have one owner.
	Together Ownership = "together"
	// Separate: each vrrp_sync_group has an owner, and so has each instance in none.
	Separate Ownership = "separate"
)

// Raft is the raft block: raftvip's own settings.
type Raft struct {
	Pos Pos
	// NodeID is the operator's name for this node; default: the host name up to the first dot.
	NodeID string
	// Listen is HOST:PORT, HOST may be empty. Default ":7355".
	Listen string
	// Advertise is the HOST:PORT given to other nodes; default: Listen if it has a
	// host, else chosen from the interfaces.
	Advertise string
	// Peers are HOST:PORT of all founding nodes (a missing port is filled in).
	Peers []string
	// SecretFile holds the cluster secret, or is empty.
	SecretFile string
	// DataDir is the data directory. Default /var/lib/raftvip.
	DataDir string
	// Socket is the control socket. Default /run/raftvip/raftvip.sock.
	Socket string
	// HeartbeatTimeout is the failure detection time, 20 ms to 10 s. Default 300 ms.
	// HeartbeatPos is where it is written, or unknown for the default.
	HeartbeatTimeout time.Duration
	HeartbeatPos     Pos
	// Ownership is Together or Separate. Default Together. OwnershipPos is where it is
	// written, or unknown: then a cluster in which it is otherwise keeps that.
	Ownership    Ownership
	OwnershipPos Pos
	// Witness: vote, but never own an address.
	Witness bool
	// Guard is the kernel mechanism that enforces the lease: auto, bpf (bpf-tcx or
	// bpf-clsact), nft, lifetime or off. Default auto.
	Guard string
	// GuardPinDir is a directory in a bpffs for the guard's pins, or empty for the
	// default /sys/fs/bpf/raftvip.
	GuardPinDir string
}
