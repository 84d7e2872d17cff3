// Package group is one Raft group on one node: Raft itself, unchanged, the decorated
// transport and the fence that apply the rules of the quorum lease to every message, the
// elections that go to the best node first, and hand-over. Authority begins here: the
// end of a lease is told to a LeaseSink, and to nobody else.
package group
