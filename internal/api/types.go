// Package api is the operator's interface to a daemon: the types, the server side
// on the control socket and on the node port, and the client. What is printed
// with --json are these types.
package api

import (
	"net/netip"
	"time"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/check"
)

// Version is the version of these types. It grows when a field changes its
// meaning or goes away; new fields do not change it.
const Version = 1

// Status is everything a daemon knows about its cluster.
type Status struct {
	API     int    `json:"api"`
	Program string `json:"program"` // version of raftvip
	Node    Self   `json:"node"`
	// Phase says what a node that is not a member yet waits for, or "".
	Phase   string  `json:"phase,omitempty"`
	Cluster Cluster `json:"cluster"`
	Groups  []Group `json:"groups"`
	Nodes   []Node  `json:"nodes"`
	Guard   Guard   `json:"guard"`
	Config  Config  `json:"config"`
	// Standalone: the daemon has no cluster, as all its instances are "vrrp only".
	Standalone bool `json:"standalone,omitempty"`
	// VRRP are the instances that speak VRRP on this node.
	VRRP []VirtualRouter `json:"vrrp,omitempty"`
	// Findings are what is wrong with members' identities and states, as peers see it.
	Findings []identity.Finding `json:"findings,omitempty"`
	// Warnings are what an operator should change, worst first.
	Warnings []string `json:"warnings,omitempty"`
}

// Self is the node that answers.
type Self struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Address string `json:"address"`
	Started string `json:"started"` // RFC 3339
}

// Cluster is the membership as this node sees it.
type Cluster struct {
	ID      string `json:"id"`
	Leader  string `json:"leader"` // node name, "" for none
	Term    uint64 `json:"term"`
	Version uint64 `json:"version"` // of the replicated state
	Voters  int    `json:"voters"`
	// Reachable is the number of voters that answer the leader now, 0 if that is not
	// known.
	Reachable int `json:"reachable"`
	// Tolerates is the number of voters that may fail from now on with the cluster going
	// on; 0 also if it is not known who answers.
	Tolerates        int     `json:"tolerates"`
	HeartbeatTimeout float64 `json:"heartbeat_timeout_seconds"`
}

// Group is one ownership group.
type Group struct {
	Name  string `json:"name"`
	Owner string `json:"owner"` // node name, "" for nobody
	// Unknown: this node cannot tell who owns; Owner is "" then.
	Unknown bool `json:"owner_unknown,omitempty"`
	// Why says why the owner is the owner, why there is none, or why it is not known.
	Why string `json:"why"`
	// State is this node's own: "owner", "standby", "releasing" or "fault".
	State string `json:"state"`
	// Term is the newest that this node knows of in the group. It grows with each owner,
	// and each group has its own.
	Term uint64 `json:"term"`
	// LeaseRemaining is what is left of this node's own lease, 0 for none.
	LeaseRemaining float64   `json:"lease_remaining_seconds"`
	Addresses      []Address `json:"addresses"`
	// Voters is how many nodes vote in the group. A node that has joined votes in each
	// group as soon as it has that group's log.
	Voters int `json:"voters,omitempty"`
	// Nodes are the members as candidates of this group.
	Nodes []GroupNode `json:"nodes,omitempty"`
	// NotRemoved is the number of addresses that this node cannot take off the
	// kernel: the most serious trouble there is.
	NotRemoved int `json:"not_removed,omitempty"`
	// ForeignClaims counts other machines' claims of the addresses that this node has
	// heard while it owned, since the daemon began.
	ForeignClaims uint64 `json:"foreign_claims"`
	// Troubles are addresses on any node that do not answer where they should, or do
	// where they should not.
	Troubles []Trouble `json:"troubles,omitempty"`
}

// GroupNode is a member as a candidate of one group.
type GroupNode struct {
	Name     string `json:"name"`
	Priority int    `json:"priority"` // effective
	// Arithmetic shows how it comes about, "" where the node has not told.
	Arithmetic string `json:"arithmetic,omitempty"`
	Owner      bool   `json:"owner,omitempty"`
	Eligible   bool   `json:"eligible"`
	Why        string `json:"why,omitempty"` // it is not eligible
}

// Kinds of troubles.
const (
	// TroubleDown: the owner does not answer for addresses.
	TroubleDown = "down"
	// TroubleStray: the address is on a node that does not own it, and nothing keeps it
	// silent there, or it cannot be removed.
	TroubleStray = "stray"
)

// Trouble is what is wrong with addresses on one node for longer than a moment.
type Trouble struct {
	Node string `json:"node"` // its name
	// Address is the one that it is about, if it is one.
	Address netip.Addr `json:"address,omitzero"`
	Kind    string     `json:"kind"`
	Why     string     `json:"why"`
}

// OwnerRequest asks the leader of a group who owns in it.
type OwnerRequest struct {
	Group string `json:"group,omitempty"` // ID, "" for the default one
}

// Ownership is the leader's word on who owns.
type Ownership struct {
	Owner string `json:"owner"` // node name, "" for nobody
	Why   string `json:"why"`
	Term  uint64 `json:"term"`
	// Moving: nobody owns, and that since a moment only.
	Moving bool `json:"moving,omitempty"`
	// Reachable is the number of voters that answer the leader, itself included.
	Reachable int       `json:"reachable"`
	Troubles  []Trouble `json:"troubles,omitempty"`
}

// Address is one virtual address.
type Address struct {
	Prefix   netip.Prefix `json:"prefix"`
	Instance string       `json:"instance"`
	Excluded bool         `json:"excluded,omitempty"`
	// Link is where this node puts it, or would.
	Link string `json:"link,omitempty"`
	// State is this node's own: "present", "absent", or "foreign" where it is there by
	// someone else's hand and does not serve.
	State     string `json:"state"`
	Problem   string `json:"problem,omitempty"`
	Announced uint64 `json:"announced"`
}

// Node is one member.
type Node struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Address string `json:"address"`
	// Role is "voter", "nonvoter", "witness" or "joining".
	Role   string `json:"role"`
	Leader bool   `json:"leader"`
	Owner  bool   `json:"owner"`
	// Owns are the groups that it owns.
	Owns    []string `json:"owns,omitempty"`
	Drained bool     `json:"drained"`
	// Alive: it has reported within the last seconds.
	Alive bool `json:"alive"`
	// ReportAge is the age of its newest report, -1 if there is none.
	ReportAge float64 `json:"report_age_seconds"`
	// Eligible: it may own; Why says why not.
	Eligible bool   `json:"eligible"`
	Why      string `json:"why,omitempty"`
	Priority int    `json:"priority"`
	// Missing is how many of the addresses the node, as owner, does not get up, or is
	// known not to get up if it were; MissingWhy says which and why. Others that can put
	// up more are preferred.
	Missing    int    `json:"addresses_missing,omitempty"`
	MissingWhy string `json:"addresses_missing_why,omitempty"`
	// Foreign are copies of the addresses that someone else has configured on the node.
	Foreign []ForeignCopy `json:"foreign,omitempty"`
	// Claims are other machines' claims of addresses that the node owns, of the last ten
	// minutes: those of members first.
	Claims []Claim `json:"claims,omitempty"`
	// AddressClaims are other machines' claims of the address at which members reach the
	// node, as it heard them itself within the last ten minutes.
	AddressClaims []Claim `json:"address_claims,omitempty"`
	// Arithmetic shows how the priority comes about, such as "107 = 101 + 6 chk_lb". It is
	// "" where there are several groups: see GroupNode.
	Arithmetic string                 `json:"arithmetic"`
	Checks     []check.InstanceReport `json:"checks,omitempty"`
	// ClockOffset is how far its wall clock is ahead of the leader's.
	ClockOffset float64  `json:"clock_offset_seconds"`
	Drift       []string `json:"drift,omitempty"`
	ConfigError string   `json:"config_error,omitempty"`
	Program     string   `json:"program,omitempty"`
}

// Claim is what one machine claims whose address it is not.
type Claim struct {
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac"`
	// Link is the node's interface on which the claims came in, Port the port of that
	// bridge, if it is one and knows.
	Link string `json:"link"`
	Port string `json:"port,omitempty"`
	// Member is the name of the machine if it is another member.
	Member string `json:"member,omitempty"`
	// Count is the number of claims heard, First and Last by the node's clock.
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Seen says all that in words.
	Seen string `json:"seen"`
}

// ForeignCopy is a virtual address that someone else has configured on a node.
type ForeignCopy struct {
	Prefix netip.Prefix `json:"prefix"`
	Link   string       `json:"link"`
	// Silent: the guard lets it answer only under the lease; otherwise the node answers
	// for it whoever owns it. Serves: it answers now, as the node owns it.
	Silent bool   `json:"silent"`
	Serves bool   `json:"serves"`
	Why    string `json:"why"`
}

// Answers reports whether the node answers for the copy without owning it.
func (f ForeignCopy) Answers() bool { return !f.Silent && !f.Serves }

// Guard is the kernel mechanism that enforces the lease on this node.
type Guard struct {
	Kind      string   `json:"kind"`
	Guarantee string   `json:"guarantee"`
	Warnings  []string `json:"warnings,omitempty"`
	// Interfaces are where it is attached.
	Interfaces []GuardInterface `json:"interfaces,omitempty"`
	// Refused says why better kinds are not used.
	Refused []string `json:"refused,omitempty"`
	// Lateness is by how much the kernel may answer late, at worst; -1: without end.
	Lateness    float64 `json:"lateness_seconds"`
	ClockSource string  `json:"clock_source,omitempty"`
	Dropped     uint64  `json:"dropped"`
}

// GuardInterface is the guard on one interface.
type GuardInterface struct {
	Name     string `json:"name"`
	Attached bool   `json:"attached"`
	Problem  string `json:"problem,omitempty"`
}

// Config is this node's configuration file.
type Config struct {
	File     string    `json:"file,omitempty"`
	LoadedAt time.Time `json:"loaded_at,omitzero"`
	// Error is why the last reload changed nothing, or "".
	Error    string   `json:"error,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Drift are the differences from what the cluster does, one per line.
	Drift []string `json:"drift,omitempty"`
}

// Move is one entry of the ownership history.
type Move struct {
	Seq    uint64    `json:"seq"`
	At     time.Time `json:"at"`
	Group  string    `json:"group"`
	Term   uint64    `json:"term"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	// Gap is the longest and GapLeast the shortest time that clients can have been
	// without an answer, as the new owner knows it; 0: not known.
	Gap      float64 `json:"gap_seconds"`
	GapLeast float64 `json:"gap_least_seconds"`
	// Loss: there was no majority of the voters from At on. It is written down when
	// there is one again, so that it may have a higher number than what came after it.
	Loss bool `json:"loss,omitempty"`
}

// VIP is one address of the replicated state.
type VIP struct {
	Prefix   netip.Prefix `json:"prefix"`
	Instance string       `json:"instance"`
	Excluded bool         `json:"excluded,omitempty"`
	Dev      string       `json:"dev,omitempty"`
	Owner    string       `json:"owner"`
}

// TransferRequest asks for a planned move; an empty Node means the best one.
type TransferRequest struct {
	// Group is the ID or name of the group, "" for the only one.
	Group string `json:"group,omitempty"`
	Node  string `json:"node,omitempty"`
	// Reason is for the history; empty means that an operator asked.
	Reason string `json:"reason,omitempty"`
	// Preemptible: a better node may take over from the new owner as usual.
	Preemptible bool `json:"preemptible,omitempty"`
}

// DrillRequest asks for a drill of a group.
type DrillRequest struct {
	// Group is its ID or name, "" for the only one.
	Group string `json:"group,omitempty"`
}

// NoteRequest adds a remark to the newest move to a node.
type NoteRequest struct {
	Group string `json:"group,omitempty"` // ID, "" for the default one
	To    string `json:"to"`
	Note  string `json:"note"`
}

// LossRequest has the leader write down that there was no quorum.
type LossRequest struct {
	At  time.Time     `json:"at"` // when it began
	For time.Duration `json:"for"`
	// Missing are the names of the voters that did not answer.
	Missing []string `json:"missing"`
}

// TransferResult says what a planned move did.
type TransferResult struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Took is the time from the request to the hand-over.
	Took float64 `json:"took_seconds"`
}

// DrainRequest sets or clears a node's drain flag.
type DrainRequest struct {
	Node    string `json:"node"`
	Drained bool   `json:"drained"`
	// Force does it though no node is left that may own.
	Force bool `json:"force,omitempty"`
}

// NodeRequest names a node.
type NodeRequest struct {
	Node string `json:"node"`
	// Force removes it though no node is left that may own.
	Force bool `json:"force,omitempty"`
}

// LeaveRequest has the node leave the cluster.
type LeaveRequest struct {
	// Force does it though no node is left that may own.
	Force bool `json:"force,omitempty"`
}

// VIPRequest adds or deletes an address.
type VIPRequest struct {
	Prefix   netip.Prefix `json:"prefix"`
	Instance string       `json:"instance,omitempty"`
	Dev      string       `json:"dev,omitempty"`
	// Force adds it though another machine answers for it, or deletes it though it is
	// the last one.
	Force bool `json:"force,omitempty"`
}

// TokenRequest makes a join token.
type TokenRequest struct {
	TTL  time.Duration `json:"ttl"`
	Uses int           `json:"uses"`
}

// Token is a join token; Text only in the answer that made it.
type Token struct {
	ID      string    `json:"id"`
	Text    string    `json:"text,omitempty"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
	// Join is the command to run on the new node.
	Join string `json:"join,omitempty"`
}

// TokenRevoke names a token.
type TokenRevoke struct {
	ID string `json:"id"`
}

// ReloadRequest has the file read again.
type ReloadRequest struct {
	// Force takes new addresses though another machine answers for them, and does what
	// leaves no address, or no node that may own, or undoes newer changes.
	Force bool `json:"force,omitempty"`
}

// ConfigureRequest proposes the cluster-wide part of a node's file.
type ConfigureRequest struct {
	Configuration state.Configuration `json:"configuration"`
	Force         bool                `json:"force,omitempty"`
	// Seen, if not empty, is a hash of the cluster's configuration that the file was
	// judged by; with another one the request is refused.
	Seen string `json:"seen,omitempty"`
}

// Configured says what was changed, one per line.
type Configured struct {
	Changes []string `json:"changes,omitempty"`
}

// ReloadResult says what a reload did.
type ReloadResult struct {
	File string `json:"file"`
	// Changes are the changes of the cluster-wide state, one per line.
	Changes  []string `json:"changes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Done is the answer of a request that has no other result.
type Done struct {
	Message string `json:"message,omitempty"`
}

// ObserveRequest asks a node to ask the network, every millisecond, who answers
// for an address.
type ObserveRequest struct {
	Address netip.Addr    `json:"address"`
	For     time.Duration `json:"for"`
}

// Observation is what a node saw on the network.
type Observation struct {
	// Gaps are the times without an answer, longest first, at most ten.
	Gaps []float64 `json:"gaps_seconds"`
	// Holders are the hardware addresses that answered, in order of appearance.
	Holders []string `json:"holders"`
	Asked   int      `json:"asked"`
	Answers int      `json:"answers"`
}

// DrillResult is what a drill found.
type DrillResult struct {
	Address  netip.Addr `json:"address"`
	Observer string     `json:"observer"` // node name
	Moves    []DrillLeg `json:"moves"`
}

// DrillLeg is one move of a drill.
type DrillLeg struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Gap is the longest time without an answer that the observer saw.
	Gap float64 `json:"gap_seconds"`
	// Holders are how many machines answered during the move: 2 is one after the other.
	Holders int `json:"holders"`
}

// DoctorTime is the answer of a member that is asked for its wall clock.
type DoctorTime struct {
	Clock time.Time `json:"clock"`
}

// DoctorPayload is data that only has to pass, and is sent back.
type DoctorPayload struct {
	Padding string `json:"padding"`
}

// DoctorDial has a member connect to others, named by their IDs.
type DoctorDial struct {
	To []string `json:"to"`
}

// DoctorProbe has a member take part in a probe: it listens and sends at once.
type DoctorProbe struct {
	// Session is 16 hexadecimal digits.
	Session string `json:"session"`
	// Nodes are the IDs of those that take part; their order is their number.
	Nodes []string `json:"nodes"`
}
