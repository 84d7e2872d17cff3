// Package testnet owns the network laboratory: namespaces joined by a software
// switch, the faults that can be done to them, and the observers that judge what
// a cluster did meanwhile. It is test support; the programs that demonstrate and
// measure raftvip use it as well, so nothing here needs package testing.
//
// # The parts
//
//   - [Lab] builds nodes, clients and one observer, each in a network namespace
//     of its own, joined by bridges in a switch namespace. Faults: [Lab.Cut],
//     [Lab.Delay], [Lab.LinkDown], [Lab.Heal].
//   - [Proc] is a program inside a node; [Throttle] starves one of CPU.
//   - [Prober] asks from outside, every millisecond, who answers for an address,
//     and [CheckP1] judges the answers: promise P1, at most one node at any
//     instant. [CheckHolds] and [HoldChecker] are the same judgement over what
//     simulated nodes say they hold.
//   - [Client] measures the gap a client sees; [ControlProbe] tells a stall of
//     the whole machine from a fault of the thing under test.
//   - [Capture] records announcements.
//
// # Time
//
// Every instant is a time.Duration since boot (CLOCK_BOOTTIME, see package
// boottime), the clock of the lease and of the guard, so that an answer can be
// compared with a deadline directly. Packets carry the kernel's receive time,
// translated from the wall clock at most one interval after it was taken.
//
// # Safety of the machine it runs on
//
// Only namespaces made here are touched, never an interface of the namespace the
// program started in. Names begin with rvt-<pid>-, so labs run side by side, and
// [Sweep] removes what a lab of a dead process left behind.
package testnet
