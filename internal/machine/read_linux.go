package machine

import (
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Read returns the facts of this machine, or of this network namespace of it.
func Read() Facts {
	f := Facts{
		MachineID:   first("/etc/machine-id", "/var/lib/dbus/machine-id"),
		ProductUUID: strings.ToLower(first("/sys/class/dmi/id/product_uuid")),
	}
	links, err := netlink.LinkList()
	if err != nil {
		return f
	}
	for _, l := range links {
		a := l.Attrs()
		hw := a.PermHWAddr
		if len(hw) == 0 {
			hw = a.HardwareAddr
		}
		if a.Flags&net.FlagLoopback != 0 || len(hw) != 6 || !physical(l.Type()) {
			continue
		}
		f.Device = f.Device || a.ParentDev != ""
		if text := hw.String(); !slices.Contains(f.Hardware, text) {
			f.Hardware = append(f.Hardware, text)
		}
	}
	slices.Sort(f.Hardware)
	return f
}

// physical tells whether an interface of this type may be what a machine or a container
// was given, rather than what was made in it from others.
func physical(kind string) bool {
	switch kind {
	case "device", "veth", "macvlan", "ipvlan", "macvtap", "ipoib", "hsr", "netdevsim":
		return true
	}
	return false
}

func first(paths ...string) string {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			if text := strings.TrimSpace(string(b)); text != "" && len(text) <= 64 && text != "uninitialized" {
				return text
			}
		}
	}
	return ""
}
