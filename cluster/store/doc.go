// Package store keeps what a node must not forget: its identity and secret, Raft's log
// and snapshots, and the vote. It notices what is lost, what is another machine's, and a
// disk that cannot be written.
package store
