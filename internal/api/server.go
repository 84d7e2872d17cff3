package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/printable"
)

// maxBody bounds a request or answer in bytes.
const maxBody = 4 << 20

// Paths of the operator's API. Those under PathLeader are carried out by the
// leader; a daemon that does not lead asks it.
const (
	PathStatus   = "/v1/status"
	PathHistory  = "/v1/history"
	PathVIPs     = "/v1/vips"
	PathReload   = "/v1/reload"
	PathLeave    = "/v1/leave"
	PathTokens   = "/v1/tokens"
	PathDrill    = "/v1/drill"
	PathObserve  = "/v1/observe"
	PathOwner    = "/v1/owner"
	PathDoctor   = "/v1/doctor"
	PathLeader   = "/v1/leader/"
	PathTransfer = PathLeader + "transfer"
	PathDrain    = PathLeader + "drain"
	PathVIPAdd   = PathLeader + "vip-add"
	PathVIPDel   = PathLeader + "vip-del"
	PathRemove   = PathLeader + "node-remove"
	PathPromote  = PathLeader + "node-promote"
	PathToken    = PathLeader + "token-create"
	PathRevoke   = PathLeader + "token-revoke"
	PathConfig   = PathLeader + "configure"
	PathNote     = PathLeader + "note"
	PathLoss     = PathLeader + "loss"
)

// Paths of the node port by which raftvip doctor asks the members.
const (
	PathDoctorFacts   = PathDoctor + "/facts"
	PathDoctorTime    = PathDoctor + "/time"
	PathDoctorPayload = PathDoctor + "/payload"
	PathDoctorDial    = PathDoctor + "/dial"
	PathDoctorProbe   = PathDoctor + "/probe"
)

// Handle registers a typed handler for POST requests of the control socket. A field
// that it does not know is an error: it would be an option that does nothing.
func Handle[In, Out any](mux *http.ServeMux, path string, f func(context.Context, In) (Out, error)) {
	register(mux, path, true, f)
}

// HandlePeer is Handle for the node port, where the other side may be newer during
// an upgrade: what this version does not know it does without.
func HandlePeer[In, Out any](mux *http.ServeMux, path string, f func(context.Context, In) (Out, error)) {
	register(mux, path, false, f)
}

func register[In, Out any](mux *http.ServeMux, path string, strict bool, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		if strict {
			d.DisallowUnknownFields()
		}
		if err := d.Decode(&in); err != nil {
			Answer(w, nil, state.Refuse(state.CodeBadRequest, "", "cannot read the request: %s", err))
			return
		}
		out, err := f(r.Context(), in)
		Answer(w, out, err)
	})
}

// Answer writes a result, or an error as a refusal.
func Answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var r *state.Refusal
		if !errors.As(err, &r) {
			r = &state.Refusal{Code: "error", Message: err.Error(), Hint: HintOf(err)}
		}
		w.WriteHeader(http.StatusConflict)
		v = r
	}
	json.NewEncoder(w).Encode(v) // a failure means that the caller is gone
}

// ListenSocket makes the control socket, which only its owner may use. A socket
// that nobody listens on any more is replaced.
func ListenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("make control socket %s: another raftvip daemon answers on it", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale control socket: %w", err)
		}
	}
	// Not chmod after the fact: between the two anybody could connect.
	old := syscall.Umask(0o077)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	return ln, nil
}

// Serve answers on a listener until ctx ends.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		// Answers under way, such as that of "leave", get a moment to be sent.
		bounded, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	})
	err := server.Serve(ln)
	if !stop() {
		<-done
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// decodeAnswer reads an answer into out, or the refusal it holds.
func decodeAnswer(resp *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var r state.Refusal
		if json.Unmarshal(body, &r) == nil && r.Message != "" {
			printable.Value(&r)
			return &r
		}
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	// The daemon passes on what other nodes say of themselves.
	printable.Value(out)
	return nil
}
