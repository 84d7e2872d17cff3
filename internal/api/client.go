package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ErrNoDaemon: no daemon answers on the control socket.
var ErrNoDaemon = errors.New("no raftvip daemon is running here")

// ErrNoAnswer: the daemon is there and does not answer.
var ErrNoAnswer = errors.New("the daemon does not answer")

// answerWithin bounds how long a command waits for the daemon; drills and moves
// take some seconds by themselves.
const answerWithin = 45 * time.Second

// statusWithin is the same for what a daemon only has to read from memory.
const statusWithin = 5 * time.Second

// A Client talks to the daemon on a control socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the daemon on the socket at path. Nothing is
// connected yet.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// Call posts in and reads the answer into out. Errors match ErrNoDaemon if nobody
// listens, fs.ErrPermission if the socket belongs to somebody else, and are a
// *cluster.Refusal if the cluster refused.
func (c *Client) Call(ctx context.Context, path string, in, out any) error {
	within := answerWithin
	switch path {
	case PathStatus, PathHistory, PathVIPs, PathTokens:
		within = statusWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call daemon: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://raftvip"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (control socket %s)", ErrNoDaemon, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s: %w", c.path, fs.ErrPermission)
	case errors.Is(err, context.DeadlineExceeded):
		return WithHint(fmt.Errorf("%w within %s (control socket %s)", ErrNoAnswer, within, c.path),
			"it is frozen or starved; its addresses are silent once its lease has ended: look at it with ps, or restart it")
	case err != nil:
		return fmt.Errorf("call daemon: %w", err)
	}
	defer resp.Body.Close()
	return decodeAnswer(resp, out)
}
