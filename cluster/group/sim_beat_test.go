package group

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/raftvip/raftvip/cluster/beat"
)

// A simConn carries beats on a simNet: they may be lost, come late, twice, or in another
// order, as on a network without TCP.
type simConn struct {
	from, to *simProc
	in       chan []byte
	closed   chan struct{}
}

var errConnClosed = errors.New("simulated network: the connection is closed")

// Send implements beat.Conn.
func (c *simConn) Send(b []byte) error {
	select {
	case <-c.closed:
		return errConnClosed
	default:
	}
	b = bytes.Clone(b)
	n := c.from.host.net
	n.mu.Lock()
	times := 1
	if n.rng.Float64() < 0.02 {
		times = 2
	}
	n.mu.Unlock()
	for range times {
		go c.exchange(b)
	}
	return nil
}

func (c *simConn) exchange(b []byte) {
	n := c.from.host.net
	if !n.carry(c.from, c.to) {
		return
	}
	var r beat.Replier
	reply, err := r.Reply(b, func(l beat.Led) beat.Result {
		return c.to.group.Beaten(c.from.speaker(), c.from.address, l.Term)
	})
	if err != nil || !n.carry(c.to, c.from) {
		return
	}
	select {
	case c.in <- reply:
	case <-c.closed:
	}
}

// Receive implements beat.Conn.
func (c *simConn) Receive() ([]byte, error) {
	select {
	case b := <-c.in:
		return b, nil
	case <-c.closed:
		return nil, errConnClosed
	}
}

// Close implements beat.Conn. The sender closes once.
func (c *simConn) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

// beatsOf makes what sends a process's heartbeats.
func (h *simHost) beatsOf(p *simProc, log *slog.Logger) Beats {
	if h.ordinary {
		return nil
	}
	p.beats = beat.NewSender(beat.Options{
		Now: h.now, Log: log,
		Dial: func(ctx context.Context, _, address string) (beat.Conn, error) {
			v, err := h.net.call(ctx, p, address, func(to *simProc) (any, error) {
				if to.group == nil || to.host.ordinary {
					return nil, beat.ErrUnsupported
				}
				return to, nil
			})
			if err != nil {
				return nil, err
			}
			return &simConn{p, v.(*simProc), make(chan []byte), make(chan struct{})}, nil
		},
	})
	return p.beats
}
