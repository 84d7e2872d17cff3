package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/raftvip/raftvip/internal/pki"
)

// maxBody bounds a request or answer of the node API in bytes.
const maxBody = 4 << 20

// Paths of the node API that this package answers itself.
const (
	pathHello   = "/peer/hello"
	pathJoin    = "/peer/join"
	pathReport  = "/peer/report"
	pathPrepare = "/peer/prepare"
	pathRelease = "/peer/release"
	pathRebind  = "/peer/rebind"
	pathHolders = "/peer/holders"
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
	ClusterID string           `json:"cluster_id"`
	Secret    string           `json:"secret,omitempty"` // only for a token
	Heartbeat HeartbeatSetting `json:"heartbeat"`
	Nodes     []NodeRecord     `json:"nodes"`
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
	Run Run      `json:"run,omitzero"`
	At  Position `json:"at,omitzero"`
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

type (
	peerIDKey   struct{}
	peerBootKey struct{}
)

// bootFromContext returns the boot of the process that a request came from, or "".
func bootFromContext(ctx context.Context) string {
	boot, _ := ctx.Value(peerBootKey{}).(string)
	return boot
}

// PeerFromContext returns the node ID of the member that a request of the node
// API came from.
func PeerFromContext(ctx context.Context) string {
	id, _ := ctx.Value(peerIDKey{}).(string)
	return id
}

// connContext puts the peer's node ID into the context of its requests.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*trackedConn); ok {
		ctx = context.WithValue(ctx, connKey{}, t)
		if r, ok := parseRun(t.run); ok && t.peer != "" {
			ctx = context.WithValue(ctx, peerBootKey{}, r.Boot)
		}
		return context.WithValue(ctx, peerIDKey{}, t.peer)
	}
	return ctx
}

// peerClient calls the node API of other members.
type peerClient struct {
	http *http.Client
}

func newPeerClient(dial func(ctx context.Context, proto, address string) (net.Conn, error)) *peerClient {
	return &peerClient{http: &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dial(ctx, pki.ProtoAPI, address)
		},
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     5 * time.Minute,
		DisableCompression:  true,
	}}}
}

func (c *peerClient) close() { c.http.CloseIdleConnections() }

// call posts in to a member and reads its answer into out, which may be nil. A
// Refusal is returned as *Refusal.
func (c *peerClient) call(ctx context.Context, address, path string, in, out any) error {
	return postJSON(ctx, c.http, address, path, in, out)
}

func postJSON(ctx context.Context, client *http.Client, address, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", address, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s: %w", address, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("call %s: %w", address, unwrapURL(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("call %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		var r Refusal
		if json.Unmarshal(answer, &r) == nil && r.Message != "" {
			return &r
		}
		return fmt.Errorf("call %s: it answered %s", address, resp.Status)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("call %s: its answer cannot be read: %w", address, err)
	}
	return nil
}

// unwrapURL drops the method and URL that net/http puts before its errors.
func unwrapURL(err error) error {
	var wrapped interface{ Unwrap() error }
	if errors.As(err, &wrapped) {
		if inner := wrapped.Unwrap(); inner != nil {
			return inner
		}
	}
	return err
}

func (c *peerClient) callPrepare(ctx context.Context, address string, r Release) error {
	return c.call(ctx, address, pathPrepare, r, nil)
}

func (c *peerClient) callRelease(ctx context.Context, address string, r Release) error {
	return c.call(ctx, address, pathRelease, r, nil)
}

func (c *peerClient) callRebind(ctx context.Context, id, address string, r Release) error {
	answered := ""
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		answered = ""
		if t, ok := got.Conn.(*trackedConn); ok {
			answered = t.peer
		}
	}})
	if err := c.call(ctx, address, pathRebind, r, nil); err != nil {
		return err
	}
	if answered != id {
		return fmt.Errorf("%w: node %s was asked, node %q answered", errMessage, id, answered)
	}
	return nil
}

// answer writes a result or a refusal. The status is only for people with a
// packet capture: clients look at the body.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var r *Refusal
		if !errors.As(err, &r) {
			r = &Refusal{Code: "error", Message: err.Error()}
		}
		w.WriteHeader(http.StatusConflict)
		v = r
	}
	if v == nil {
		v = struct{}{}
	}
	json.NewEncoder(w).Encode(v) // a failure means that the peer is gone
}

// handle registers a typed handler of members' requests.
func handle[T any](mux *http.ServeMux, path string, f func(ctx context.Context, in T) (any, error)) {
	handleWithin(mux, path, maxBody, f)
}

// handleWithin registers a typed handler of requests of so many bytes.
func handleWithin[T any](mux *http.ServeMux, path string, limit int64, f func(ctx context.Context, in T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in T
		body := http.MaxBytesReader(w, r.Body, limit)
		if err := json.NewDecoder(body).Decode(&in); err != nil {
			answer(w, nil, refuse(CodeBadRequest, "", "cannot read the request: %s", err))
			return
		}
		out, err := f(r.Context(), in)
		answer(w, out, err)
	})
}
