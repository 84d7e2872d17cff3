package cluster

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/internal/pki"
)

// A machine that stands still takes connections, and never answers.
func TestDialToASilentMemberEnds(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var token pki.Token
	m, _ := startFirst(t, &token)
	eventually(t, "founded", func() bool { return m.State().Founded() })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- m.Call(ctx, ln.Addr().String(), pathHello, struct{}{}, nil) }()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := <-asked; err == nil {
		t.Fatal("answered")
	}
	if err := conn.SetReadDeadline(time.Now().Add(6 * port.HandshakeTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the call has ended, its connection has not: %v", err)
	}
}
