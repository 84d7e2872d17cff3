// Package doctor finds out whether a network and its nodes are fit for raftvip, and
// which transport works between them: multicast VRRP, unicast VRRP, or only the TCP
// that raftvip itself uses.
//
// Each node gathers [Facts] about itself and takes part in a [Probe]: for some
// seconds it listens for numbered datagrams of the other members and sends its own.
// One node puts together what all of them say ([Examine]), which is pure: from the
// same observations come the same findings.
//
// # What is sent
//
// Only addresses of members are contacted, and the two link-local groups of VRRP, on
// interfaces that carry a member's own subnet or a virtual address. Every packet is
// sent a few times, once. There are two kinds:
//
//   - UDP. Switches forward 224.0.0.0/24 whatever IGMP snooping has learnt (RFC 4541
//     2.1.2), so that a group of that range which does not arrive is not a matter of
//     snooping.
//   - IP protocol 112, VRRP's own, because a firewall that drops it lets UDP through.
//     Its first byte says version 15, type 15, and its VRID is 0, which no virtual
//     router has: RFC 9568 7.1 has every router discard it.
package doctor
