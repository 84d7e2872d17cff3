package e2e

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/raftvip/raftvip/internal/testnet"
)

// An Instance is a vrrp_instance as raftvip and keepalived both read it.
type Instance struct {
	Name     string
	VRID     int
	Priority int
	// AdvertInt is in seconds, as in a file. Default 0.5.
	AdvertInt string
	// Version is 2 or 3; default 3.
	Version int
	VIPs    []netip.Addr
	// More are further lines.
	More []string
	// VRRP is raftvip's mode, or "" for the file of keepalived or of raftvip without
	// VRRP.
	VRRP string
}

// Conf is the text of the instance, on the front network.
func (i Instance) Conf() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "    "+format+"\n", args...) }
	fmt.Fprintf(&b, "vrrp_instance %s {\n", i.Name)
	if i.VRRP != "" {
		line("vrrp %s", i.VRRP)
	}
	line("state BACKUP")
	line("interface %v", testnet.Front)
	line("virtual_router_id %d", i.VRID)
	line("priority %d", i.Priority)
	if i.AdvertInt == "" {
		i.AdvertInt = "0.5"
	}
	line("advert_int %s", i.AdvertInt)
	if i.Version == 0 {
		i.Version = 3
	}
	line("version %d", i.Version)
	for _, m := range i.More {
		line("%s", m)
	}
	line("virtual_ipaddress {")
	for _, a := range i.VIPs {
		line("    %v/%d", a, map[bool]int{true: 24, false: 64}[a.Is4()])
	}
	line("}")
	b.WriteString("}\n")
	return b.String()
}

// Confs is the text of several.
func Confs(all ...Instance) string {
	var b strings.Builder
	for _, i := range all {
		b.WriteString(i.Conf())
	}
	return b.String()
}
