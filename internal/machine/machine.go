// Package machine tells one machine from another: what a data directory is bound to.
package machine

import (
	"fmt"
	"slices"
	"strings"
)

// Facts are what a machine is known by. What could not be read is empty, and says
// nothing.
type Facts struct {
	// MachineID is that of the installed system (machine-id(5)).
	MachineID string `json:"machine_id,omitempty"`
	// ProductUUID is the hardware's, or the virtual machine's, by its firmware.
	ProductUUID string `json:"product_uuid,omitempty"`
	// Hardware are the hardware addresses of interfaces, sorted.
	Hardware []string `json:"hardware,omitempty"`
	// Device: some interface belongs to a device of this machine. Without one this is a
	// container or a network namespace, which shares the other facts with its host.
	Device bool `json:"-"`
}

// Differs says why now is another machine than the one that was bound, or is "".
// A machine may get new interfaces. A container may not: only they tell it from others
// on its host.
func Differs(bound, now Facts) string {
	if a, b := bound.MachineID, now.MachineID; a != "" && b != "" && a != b {
		return fmt.Sprintf("machine id %s, not %s", b, a)
	}
	if a, b := bound.ProductUUID, now.ProductUUID; a != "" && b != "" && a != b {
		return fmt.Sprintf("product UUID %s, not %s", b, a)
	}
	if len(bound.Hardware) == 0 || len(now.Hardware) == 0 {
		return ""
	}
	if slices.ContainsFunc(now.Hardware, func(a string) bool { return slices.Contains(bound.Hardware, a) }) {
		return ""
	}
	if now.Device && bound.ProductUUID != "" && bound.ProductUUID == now.ProductUUID && bound.MachineID == now.MachineID {
		return "" // its interfaces were replaced
	}
	return fmt.Sprintf("hardware addresses %s, none of %s", strings.Join(now.Hardware, " "), strings.Join(bound.Hardware, " "))
}

// maxHardware bounds the hardware addresses that are remembered.
const maxHardware = 64

// Merge returns what is bound after a start, or a look, on the same machine: interfaces
// come and go, and those that went may come back.
func Merge(bound, now Facts) Facts {
	if now.MachineID != "" {
		bound.MachineID = now.MachineID
	}
	if now.ProductUUID != "" {
		bound.ProductUUID = now.ProductUUID
	}
	all := slices.Clone(now.Hardware)
	for _, a := range bound.Hardware {
		if len(all) < maxHardware && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	bound.Hardware = all
	return bound
}
