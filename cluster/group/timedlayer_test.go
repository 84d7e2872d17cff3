package group

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// deadlineLayer keeps the timeouts that it is given.
type deadlineLayer struct {
	net.Listener
	net.Conn
	dialled  time.Duration
	deadline time.Time
}

func (l *deadlineLayer) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l *deadlineLayer) Close() error              { return nil }
func (l *deadlineLayer) Dial(_ raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.dialled = timeout
	return l, nil
}
func (l *deadlineLayer) SetDeadline(t time.Time) error { l.deadline = t; return nil }

// What Raft's transport waits for follows a heartbeat timeout that changes.
func TestConnectionsFollowTheHeartbeat(t *testing.T) {
	inner := &deadlineLayer{}
	layer := &timedLayer{StreamLayer: inner}
	for _, c := range []struct{ heartbeat, want time.Duration }{
		{20 * time.Millisecond, 500 * time.Millisecond},
		{300 * time.Millisecond, 600 * time.Millisecond},
		{10 * time.Second, 20 * time.Second},
		{300 * time.Millisecond, 600 * time.Millisecond},
	} {
		layer.heartbeat.Store(int64(c.heartbeat))
		conn, err := layer.Dial("b", raftTimeout)
		if err != nil || inner.dialled != c.want {
			t.Errorf("%v: dials for %v, want %v (%v)", c.heartbeat, inner.dialled, c.want, err)
		}
		for _, times := range []time.Duration{1, 3} { // a large snapshot has more
			if err := conn.SetDeadline(time.Now().Add(times * raftTimeout)); err != nil {
				t.Fatal(err)
			}
			if got, want := time.Until(inner.deadline), times*c.want; got > want || got < want-want/4 {
				t.Errorf("%v: waits for %v, want %v", c.heartbeat, got, want)
			}
		}
		if err := conn.SetDeadline(time.Time{}); err != nil || !inner.deadline.IsZero() {
			t.Errorf("no deadline became %v (%v)", inner.deadline, err)
		}
	}
}
