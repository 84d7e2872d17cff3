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
)

// ErrNoDaemon: no daemon answers on the control socket.
var ErrNoDaemon = errors.New("no raftvip daemon is running here")

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
	case err != nil:
		return fmt.Errorf("call daemon: %w", err)
	}
	defer resp.Body.Close()
	return decodeAnswer(resp, out)
}
