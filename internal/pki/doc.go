// Package pki turns the one thing that the members of a cluster share, a
// 32-byte secret, into what TLS needs: every node derives the same certificate
// authority from it and mints its own short-lived certificate, so that no node
// is special and nothing has to be distributed or rotated.
//
// Trust model: whoever holds the secret is a member, as with corosync's authkey.
// A join token holds no secret of the cluster; it pins the authority by hash and
// is exchanged for the secret over a connection to a node that proves it.
package pki
