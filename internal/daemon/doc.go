// Package daemon builds the parts of raftvip and joins them. It is the only
// package that knows both the cluster, which says until when this node may own,
// and the addresses. Authority flows one way: acknowledged heartbeats, lease,
// ownership, addresses, announcements. Advice flows the other way and can only
// start a hand-over.
package daemon
