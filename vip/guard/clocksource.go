package guard

import (
	"os"
	"strings"
)

const clocksourceFile = "/sys/devices/system/clocksource/clocksource0/current_clocksource"

// clocksource returns the kernel's current clock source, "" if unknown.
func clocksource() string {
	b, err := os.ReadFile(clocksourceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// clocksourceWarning tells of a clock that stands still while the hypervisor pauses
// this machine: a lease then runs on afterwards for what was left of it. No clock
// in the guest can mend this.
func clocksourceWarning(source string) string {
	switch {
	case source == "kvm-clock", strings.HasPrefix(source, "hyperv"), source == "xen":
		return "clocksource " + source + " hides a pause of this virtual machine: after a pause or live migration the address may be answered for the rest of the lease; use clocksource tsc where the host has it"
	}
	return ""
}
