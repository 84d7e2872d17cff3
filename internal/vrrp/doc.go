// Package vrrp joins virtual routers (RFC 9568) with what may own. An instance with
// "vrrp hybrid" has a virtual router beneath the lease of Raft: Hybrid is the owner's
// VRRP half, which can keep an address down that the lease would permit, and never put
// one up that it does not; a slot is an instance's own gate and keeper. An instance with
// "vrrp only" is run by Plain, without Raft, as keepalived would.
package vrrp
