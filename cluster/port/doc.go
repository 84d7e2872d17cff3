// Package port is the one TCP port of a node: mutually authenticated TLS connections that
// carry Raft, the node API or a join, with bounds on what strangers and members can take.
package port
