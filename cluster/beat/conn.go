package beat

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Conn carries messages between two nodes, in order or not: what is lost or comes
// twice is dealt with here.
type Conn interface {
	// Send sends a message; it must not block for longer than a moment.
	Send([]byte) error
	// Receive returns the next message, which is good until the next call.
	Receive() ([]byte, error)
	Close() error
}

// sendWithin bounds how long a message may take to get into the kernel's buffer.
const sendWithin = 10 * time.Millisecond

// A stream is a Conn on a connection of bytes: each message behind its length.
type stream struct {
	conn net.Conn
	r    *bufio.Reader
	in   []byte

	mu  sync.Mutex
	out []byte
}

// NewConn makes a Conn of an authenticated connection.
func NewConn(conn net.Conn) Conn {
	return &stream{conn: conn, r: bufio.NewReaderSize(conn, 4096)}
}

func (s *stream) Send(b []byte) error {
	if len(b) == 0 || len(b) >= maxMessage {
		return fmt.Errorf("send beat: %d bytes", len(b))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = binary.BigEndian.AppendUint16(s.out[:0], uint16(len(b)))
	s.out = append(s.out, b...)
	s.conn.SetWriteDeadline(time.Now().Add(sendWithin))
	_, err := s.conn.Write(s.out)
	return err
}

func (s *stream) Receive() ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if cap(s.in) < n {
		s.in = make([]byte, n)
	}
	s.in = s.in[:n]
	_, err := io.ReadFull(s.r, s.in)
	return s.in, err
}

func (s *stream) Close() error { return s.conn.Close() }
