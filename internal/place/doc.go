// Package place says where addresses belong on this node: it makes the list of the
// cluster, the node's own file and its interfaces into what package vip puts up. It also
// compares the file with the cluster: what differs, what a reload would change, and
// whether that would undo something newer. It puts nothing up itself, and knows nothing
// of who owns.
package place
