package place

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/raftvip/raftvip/vip"
)

func TestMACsOf(t *testing.T) {
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	addr := func(s string) []vip.KernelAddress { return []vip.KernelAddress{{Prefix: netip.MustParsePrefix(s)}} }
	links := []vip.Link{
		{Name: "lo", Addresses: addr("127.0.0.1/8")},
		{Name: "mgmt", MAC: mac(1), Addresses: addr("10.9.0.1/24")},
		{Name: "veth7", MAC: mac(2), Addresses: addr("fe80::1/64")},
		{Name: "eth0", MAC: mac(3), Addresses: addr("10.0.0.1/24")},
	}
	if got, want := fmt.Sprint(macsOf([]string{"eth0"}, links)), fmt.Sprint([]string{mac(3).String(), mac(1).String()}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
