// Package vip makes the kernel match the wanted virtual addresses of an
// ownership group and announces them. It is the only package that puts an
// address on an interface, and the only one that opens route and packet sockets
// for that. It knows nothing about Raft: it is told what to own (Keeper.Set) and
// until when (Gate).
//
// Instants are time.Duration since boot, CLOCK_BOOTTIME (package
// internal/boottime); tests give another clock. DESIGN.md says what is
// load-bearing and why.
package vip
