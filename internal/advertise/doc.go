// Package advertise chooses where a node listens, and at which address of this host the
// other nodes are told to reach it. That is never a virtual address: it would be another
// node's tomorrow.
package advertise
