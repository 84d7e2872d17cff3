// Package check watches what decides whether this node should own: it runs the
// check scripts, follows the state of interfaces, and turns both into faults and
// an effective priority by keepalived's arithmetic.
//
// What it reports is advice to the policy. It has no say in whether this node
// may own.
//
// Where it differs from keepalived (reference: keepalived 2.2.7, observed):
//
//   - A script that overruns its timeout has failed at that moment, not when it
//     is reaped. While it cannot be ended, each further interval is a failure.
//   - A run that timed out and that a tick has passed by is followed by the next
//     run as soon as it is gone, so that with timeout = interval (the default) a
//     hanging check fails once per interval rather than every other.
//   - A command that cannot be executed has failed. keepalived takes a missing
//     interpreter or a deleted script for success, for ever.
//   - The end of a script's output is kept and shown with the failure.
//   - enable_script_security is checked before each run, not only at load.
//   - A node is not ready before all its scripts have reported, weighted ones too,
//     so that addresses do not move twice when nodes start.
package check
