// Package cluster makes a set of nodes one cluster: a node, its membership and its
// joining, over the packages below it.
//
// The package grants nothing by itself. It publishes, per group, whether this
// node leads and until when its lease runs; ownership is decided by package
// daemon, which knows the addresses too.
package cluster
