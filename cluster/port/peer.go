package port

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

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

// MaxBody bounds a request or answer of the node API in bytes.
const MaxBody = 4 << 20

type (
	PeerIDKey   struct{}
	PeerBootKey struct{}
)

// BootFromContext returns the boot of the process that a request came from, or "".
func BootFromContext(ctx context.Context) string {
	boot, _ := ctx.Value(PeerBootKey{}).(string)
	return boot
}

// PeerFromContext returns the node ID of the member that a request of the node
// API came from.
func PeerFromContext(ctx context.Context) string {
	id, _ := ctx.Value(PeerIDKey{}).(string)
	return id
}

// ConnContext puts the peer's node ID into the context of its requests.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*Conn); ok {
		ctx = context.WithValue(ctx, connKey{}, t)
		if r, ok := identity.ParseRun(t.Run); ok && t.Peer != "" {
			ctx = context.WithValue(ctx, PeerBootKey{}, r.Boot)
		}
		return context.WithValue(ctx, PeerIDKey{}, t.Peer)
	}
	return ctx
}

// Client calls the node API of other members.
type Client struct {
	http *http.Client
}

func NewClient(dial func(ctx context.Context, proto, address string) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dial(ctx, pki.ProtoAPI, address)
		},
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     5 * time.Minute,
		DisableCompression:  true,
	}}}
}

func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call posts in to a member and reads its answer into out, which may be nil. A
// Refusal is returned as *Refusal.
func (c *Client) Call(ctx context.Context, address, path string, in, out any) error {
	return PostJSON(ctx, c.http, address, path, in, out)
}

// CallNode is call, and an error if another node than id has answered.
func (c *Client) CallNode(ctx context.Context, id, address, path string, in, out any) error {
	answered := ""
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		answered = ""
		if t, ok := got.Conn.(*Conn); ok {
			answered = t.Peer
		}
	}})
	if err := c.Call(ctx, address, path, in, out); err != nil {
		return err
	}
	if answered != id {
		return fmt.Errorf("node %s was asked, node %q answered", id, answered)
	}
	return nil
}

func PostJSON(ctx context.Context, client *http.Client, address, path string, in, out any) error {
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
	answer, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err != nil {
		return fmt.Errorf("call %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		var r state.Refusal
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

// Answer writes a result or a refusal. The status is only for people with a
// packet capture: clients look at the body.
func Answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var r *state.Refusal
		if !errors.As(err, &r) {
			r = &state.Refusal{Code: "error", Message: err.Error()}
		}
		w.WriteHeader(http.StatusConflict)
		v = r
	}
	if v == nil {
		v = struct{}{}
	}
	json.NewEncoder(w).Encode(v) // a failure means that the peer is gone
}

// Handle registers a typed handler of members' requests.
func Handle[T any](mux *http.ServeMux, path string, f func(ctx context.Context, in T) (any, error)) {
	HandleWithin(mux, path, MaxBody, f)
}

// HandleWithin registers a typed handler of requests of so many bytes.
func HandleWithin[T any](mux *http.ServeMux, path string, limit int64, f func(ctx context.Context, in T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in T
		body := http.MaxBytesReader(w, r.Body, limit)
		if err := json.NewDecoder(body).Decode(&in); err != nil {
			Answer(w, nil, state.Refuse(state.CodeBadRequest, "", "cannot read the request: %s", err))
			return
		}
		out, err := f(r.Context(), in)
		Answer(w, out, err)
	})
}
