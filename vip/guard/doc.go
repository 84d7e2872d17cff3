// Package guard makes the kernel stop answering for a virtual address when the
// lease of its group ends, with no help from the daemon: stopped, killed, starved
// or swapped out, the daemon need not run for the address to fall silent.
//
// Arm puts addresses under guard, SetDeadline moves a group's deadline, Disarm
// takes them out again. The mechanism is chosen by Open, by really attaching and
// testing it: eBPF at tcx with a pinned link, eBPF at clsact, nftables, or the
// lifetime of the address itself. DESIGN.md gives the reasons.
package guard
