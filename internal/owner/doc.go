// Package owner decides, for one group, whether this node owns it, and brings that about
// in the order that is safe. It is where the lease of package cluster/group becomes
// addresses of package vip: the sink carries the lease to the gate on the goroutine that
// learnt of it, and the loop opens the gate, has the addresses put up and taken down, and
// hands over. What it needs it asks for by small interfaces. Of advice it takes what the
// policy makes of it: that can move the group, and never permits what the lease does not.
package owner
