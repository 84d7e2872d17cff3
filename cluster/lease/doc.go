// Package lease is the arithmetic of the quorum lease: until when an owner may
// answer, and what a voter promises so that nobody else may before. It is pure:
// no clock, goroutine, socket or logger. Instants are durations since boot
// (CLOCK_BOOTTIME) and have a meaning on one machine only.
//
// The argument, in short. A leader of term T asks a voter, at instant s of the
// leader's clock, to go on following. The voter gets the question at some later
// moment and from then on, for the promise P by its own clock, helps nobody else
// to become leader. If the voter says yes, the leader may count on it until
// s + L, because s is before the moment at which P began and L is so much
// shorter than P that the difference of clock rates cannot eat it. While a
// majority is so bound, no other node can win an election, as any winner needs a
// vote of at least one bound voter. DESIGN.md of the folder above has it in full.
package lease
