// Package vrrpcompat speaks VRRP version 3 (RFC 9568) and version 2 (RFC 3768) as
// keepalived does: the packets, the checks of what was received, and the state
// machine of one virtual router. It is pure: no socket, clock, goroutine or log.
// Times are of any monotonic clock of the caller.
//
// The RFC's "Active" is called Master here, as in keepalived, its configuration
// and its notify scripts.
//
// In the hybrid mode a whole raftvip cluster is one virtual router. Raft says
// which node may speak (it is entitled), and this machine says whether that node
// is master beside the routers that are not of the cluster. See [Machine.Entitle].
package vrrpcompat
