// Package vrrpnet owns the sockets of VRRP on Linux and runs a virtual router over
// them: package vrrpcompat decides, this one listens, waits and sends.
//
//   - [Conn] sends and receives advertisements of one virtual router: IP protocol
//     112, by multicast or to unicast peers, over IPv4 or IPv6.
//   - A Conn may own a virtual MAC interface (keepalived's use_vmac), so that
//     advertisements leave from the virtual router's MAC address (RFC 9568
//     section 7.3). The virtual addresses belong on it; nothing here adds one.
//   - [Router] runs a [vrrpcompat.Machine] over a Conn, opens it again when the
//     interface comes back, and keeps what an operator wants to know.
//
// All of it works in the network namespace of the process.
package vrrpnet
