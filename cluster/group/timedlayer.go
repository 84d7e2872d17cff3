package group

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// raftTimeout is the time that Raft's transport is told to wait for an answer. It
// cannot be told another one later, so that its deadlines are stretched or shrunk on
// their way to the connection.
const raftTimeout = time.Second

// answerTimeout is how long an answer is waited for: a connection that has gone
// silent is given up and dialled anew, rather than left to TCP's back-off.
func answerTimeout(heartbeat time.Duration) time.Duration {
	return max(2*heartbeat, 500*time.Millisecond)
}

// A timedLayer dials connections whose deadlines follow the heartbeat timeout.
type timedLayer struct {
	raft.StreamLayer
	heartbeat atomic.Int64
}

// scaled returns the time that is meant by one that Raft's transport has calculated.
func (l *timedLayer) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(answerTimeout(time.Duration(l.heartbeat.Load()))) / float64(raftTimeout))
}

// Dial implements raft.StreamLayer.
func (l *timedLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := l.StreamLayer.Dial(address, l.scaled(timeout))
	if err != nil {
		return nil, err
	}
	return &timedConn{conn, l}, nil
}

type timedConn struct {
	net.Conn
	layer *timedLayer
}

// SetDeadline implements net.Conn.
func (c *timedConn) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(c.layer.scaled(time.Until(t)))
	}
	return c.Conn.SetDeadline(t)
}
