package group

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// answering is a Raft transport at an address whose owner refuses every vote.
func answering(t *testing.T, address string) *raft.NetworkTransport {
	t.Helper()
	trans, err := raft.NewTCPTransport(address, nil, poolSize, time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for rpc := range trans.Consumer() {
			rpc.Respond(&raft.RequestVoteResponse{}, nil)
		}
	}()
	return trans
}

// A peer that was restarted has closed the connections that a node keeps to it, and
// the node finds out when it asks for a vote.
func TestVoteIsAskedForOnANewConnection(t *testing.T) {
	peer := answering(t, "127.0.0.1:0")
	address := peer.LocalAddr()
	inner, err := raft.NewTCPTransport("127.0.0.1:0", nil, poolSize, time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	trans := newLeaseTransport(inner, newFence("n1", func() time.Duration { return time.Hour }, 0, 0, 1, &recordingSink{}), func() time.Duration { return time.Second })
	defer trans.Close()
	ask := func() error {
		return trans.RequestVote("n2", address, &raft.RequestVoteRequest{Term: 2}, &raft.RequestVoteResponse{})
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	peer = answering(t, string(address))
	defer peer.Close()
	if err := ask(); err != nil {
		t.Errorf("a peer that is back was not asked: %v", err)
	}
}
