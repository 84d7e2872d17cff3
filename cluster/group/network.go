package group

import (
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/raftlog"
)

// A network is the Raft transport of a group over the node's port.
type network struct {
	networkTransport
	layer   *timedLayer
	address raft.ServerAddress
}

// NewNetwork makes a transport over stream. advertise is where other nodes reach this
// one, and heartbeat the present timeout, see retime. log is told of members that send
// what no member should.
func NewNetwork(stream *port.StreamLayer, advertise string, heartbeat time.Duration, log, raftLog *slog.Logger) *network {
	layer := &timedLayer{StreamLayer: sendOn(stream)}
	layer.heartbeat.Store(int64(heartbeat))
	sending := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: poolSize, Timeout: raftTimeout, Logger: raftlog.New(raftLog),
	})
	return &network{receiveOn(stream, sending, log, checkSnapshot), layer, raft.ServerAddress(advertise)}
}

// Retime says how long answers are waited for, as a heartbeat timeout.
func (n *network) Retime(heartbeat time.Duration) { n.layer.heartbeat.Store(int64(heartbeat)) }

// streamsFrom returns how many connections of a node there are.
func (n *network) streamsFrom(id string) int {
	in := n.networkTransport.(*inbound)
	in.mu.Lock()
	defer in.mu.Unlock()
	count := 0
	for _, from := range in.streams {
		if from == id {
			count++
		}
	}
	return count
}

// LocalAddr implements raft.Transport: the address is the advertised one rather than the
// one listened on.
func (n *network) LocalAddr() raft.ServerAddress { return n.address }

// EncodePeer implements raft.Transport.
func (n *network) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}
