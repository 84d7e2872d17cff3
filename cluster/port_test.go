package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/pki"
)

func TestRefusalsAreNewsOnceAMinute(t *testing.T) {
	var r refusals
	now := time.Now()
	for _, tt := range []struct {
		what string
		at   time.Duration
		want bool
	}{
		{"a removed", 0, true},
		{"a removed", 59 * time.Second, false},
		{"b removed", 59 * time.Second, true},
		{"a removed", time.Minute, true},
	} {
		if got := r.news(tt.what, now.Add(tt.at)); got != tt.want {
			t.Errorf("%s after %s: got %v", tt.what, tt.at, got)
		}
	}
	for i := range 2 * maxRefusals {
		r.news(fmt.Sprint(i), now.Add(2*time.Minute))
	}
	if len(r.last) > maxRefusals {
		t.Errorf("%d refusals are remembered", len(r.last))
	}
}

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
	if err := conn.SetReadDeadline(time.Now().Add(6 * handshakeTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the call has ended, its connection has not: %v", err)
	}
}
