// Package cluster makes a set of nodes one cluster: Raft groups over one mutually
// authenticated TCP port, membership and joining, the replicated state, the
// quorum lease that says until when this node may own, and the hints by which
// nodes tell each other how well they would do.
//
// The package grants nothing by itself. It publishes, per group, whether this
// node leads and until when its lease runs; ownership is decided by package
// daemon, which knows the addresses too.
package cluster
