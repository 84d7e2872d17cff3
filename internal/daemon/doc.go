// Package daemon builds the parts of raftvip, runs them, and reads the node's file again.
// Authority flows one way: acknowledged heartbeats, lease (cluster/group), ownership
// (internal/owner), addresses and announcements (vip). Advice flows the other way, from
// checks and hints, and can only start a hand-over. The daemon joins them and decides
// nothing.
package daemon
