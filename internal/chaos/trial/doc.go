// Package trial owns experiments: a product on a laboratory network, one fault
// done to it, and what was seen from outside meanwhile. The product is raftvip or
// the installed keepalived; every fault and every judgement is the same for both,
// so that their results may stand side by side.
//
//   - [Product] says what to run and how it is configured: [Raftvip], [Keepalived].
//   - [Rig] is one product running in a lab under observation.
//   - [Fault] is something done to the node that owns the addresses.
//   - [Rig.Try] runs one fault from a settled state back to a settled state and
//     returns a [Result].
//
// It is used by the fault matrix (internal/chaos) and by the benchmark
// (internal/bench). Nothing here needs package testing.
package trial
