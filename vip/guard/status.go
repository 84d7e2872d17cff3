package guard

import "time"

// Drops counts packets dropped by the guard since it was opened. The nftables guard
// knows only the total.
type Drops struct {
	Ingress uint64 `json:"ingress"`
	Egress  uint64 `json:"egress"`
	Total   uint64 `json:"total"`
}

// A Refusal says why a better mechanism is not in use.
type Refusal struct {
	Kind   Kind   `json:"kind"`
	Reason string `json:"reason"`
}

// InterfaceStatus is the attachment to one interface.
type InterfaceStatus struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Attached is true if the program was attached, and first of its chain, at the
	// last check.
	Attached bool `json:"attached"`
	// Repairs is the number of times that somebody else had removed or overtaken the
	// attachment.
	Repairs int `json:"repairs"`
	// Error is why it is not attached.
	Error string `json:"error,omitempty"`
	// Unchecked is why it could not be looked at of late, for want of descriptors or
	// memory, or "". Attached is as it was before.
	Unchecked string `json:"unchecked,omitempty"`
}

// Status describes the guard for operators and metrics.
type Status struct {
	Kind     Kind   `json:"kind"`
	Instance string `json:"instance"`
	// PinDir is where tcx links are pinned.
	PinDir     string            `json:"pin_dir,omitempty"`
	Interfaces []InterfaceStatus `json:"interfaces"`
	// Checked is the time of the last complete check, on CLOCK_BOOTTIME.
	Checked time.Duration `json:"checked_since_boot_ns"`
	// Armed is the number of armed addresses, Inherited the part of them that an
	// earlier process left and that are still on an interface; they are shut.
	Armed     int   `json:"armed"`
	Inherited int   `json:"inherited"`
	Drops     Drops `json:"drops"`
	// Repairs is the number of times that somebody else had damaged the guard.
	Repairs int       `json:"repairs"`
	Refused []Refusal `json:"refused,omitempty"`
	// Lateness is the longest time for which the kernel may go on answering after a
	// deadline; Unbounded if nothing stops it.
	Lateness time.Duration `json:"lateness_ns"`
	// AddressLifetime is the valid lifetime that addresses must have; 0 is none.
	AddressLifetime time.Duration `json:"address_lifetime_ns"`
	Guarantee       string        `json:"guarantee"`
	Clocksource     string        `json:"clocksource,omitempty"`
	Warnings        []string      `json:"warnings,omitempty"`
}
