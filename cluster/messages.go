package cluster

import (
	"context"
	"encoding/json"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
)

// Paths of the node API that this package answers itself.
const (
	pathHello   = "/peer/hello"
	pathJoin    = "/peer/join"
	pathReport  = "/peer/report"
	pathPrepare = "/peer/prepare"
	pathRelease = "/peer/release"
	pathRebind  = "/peer/rebind"
	pathHolders = "/peer/holders"
	pathFree    = "/peer/free"
)

// Hello is what a node says of itself to whoever holds the cluster secret.
type Hello struct {
	NodeID    string `json:"node_id"`
	Name      string `json:"name"`
	ClusterID string `json:"cluster_id"`
	// Founded: the node has a cluster's log.
	Founded bool `json:"founded"`
	// Peers are the founding nodes in its file, sorted.
	Peers []string `json:"peers,omitempty"`
	// LeaderAddress is where the leader is, or "".
	LeaderAddress string `json:"leader_address,omitempty"`
	// Clock is the node's wall clock.
	Clock time.Time `json:"clock"`
}

// A JoinRequest asks to be admitted.
type JoinRequest struct {
	NodeID  string `json:"node_id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Witness bool   `json:"witness,omitempty"`
	// TokenID and Proof are those of a join token, or empty for a node that has
	// shown a certificate of the cluster.
	TokenID string `json:"token_id,omitempty"`
	Proof   string `json:"proof,omitempty"`
	// Replace removes a member of the same name that does not answer.
	Replace bool `json:"replace,omitempty"`
	// Clock is the newcomer's wall clock.
	Clock time.Time `json:"clock"`
	// Level is the feature level that it understands; 0 is the first one.
	Level int `json:"level,omitempty"`
}

// A JoinAnswer is what an admitted node needs.
type JoinAnswer struct {
	ClusterID string                 `json:"cluster_id"`
	Secret    string                 `json:"secret,omitempty"` // only for a token
	Heartbeat state.HeartbeatSetting `json:"heartbeat"`
	Nodes     []state.NodeRecord     `json:"nodes"`
}

// A Report is a node's word about itself, sent to the leader each second and at
// once on change. The newest one counts.
type Report struct {
	NodeID  string `json:"node_id"`
	Address string `json:"address"`
	// Applied is the log index that the node has applied.
	Applied uint64 `json:"applied"`
	// Clock is its wall clock, to find clocks that are off.
	Clock time.Time `json:"clock"`
	// MinHeartbeat is the shortest heartbeat timeout at which the node's guard can
	// keep the lease; 0 for none.
	MinHeartbeat time.Duration `json:"min_heartbeat,omitempty"`
	// Level is the feature level that the node understands; 0 is the first one.
	Level int `json:"level,omitempty"`
	// Run is the process that reports, At how far the node has come.
	Run identity.Run      `json:"run,omitzero"`
	At  identity.Position `json:"at,omitzero"`
	// StateIndex and StateHash are the newest entry of the log that is applied and the
	// hash of the state after it.
	StateIndex uint64 `json:"state_index,omitempty"`
	StateHash  string `json:"state_hash,omitempty"`
	// Hint is for the leader's policy; this package does not look inside.
	Hint json.RawMessage `json:"hint,omitempty"`
}

// A SeenReport is a report and its age.
type SeenReport struct {
	Report
	// Age is the time since the leader got it.
	Age time.Duration `json:"age"`
	// ClockOffset is how far the node's wall clock is ahead of the leader's.
	ClockOffset time.Duration `json:"clock_offset"`
}

// A ReportAnswer is the leader's answer: everyone's newest report.
type ReportAnswer struct {
	Reports []SeenReport `json:"reports"`
}

// memberCalls are the calls of a hand-over.
type memberCalls struct{ client *port.Client }

func (m memberCalls) CallPrepare(ctx context.Context, address string, r group.Release) error {
	return m.client.Call(ctx, address, pathPrepare, r, nil)
}

func (m memberCalls) CallRelease(ctx context.Context, address string, r group.Release) error {
	return m.client.Call(ctx, address, pathRelease, r, nil)
}

func (m memberCalls) CallRebind(ctx context.Context, id, address string, r group.Release) error {
	return m.client.CallNode(ctx, id, address, pathRebind, r, nil)
}
