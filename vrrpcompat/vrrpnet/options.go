package vrrpnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/raftvip/raftvip/vrrpcompat"
)

// trafficClass is the TOS of IPv4 and the traffic class of IPv6 as keepalived
// sends them: precedence "internetwork control".
const trafficClass = 0xc0

// Options say where and how a virtual router speaks.
type Options struct {
	// Interface is where advertisements leave and arrive. It may be empty for a
	// unicast router with a Source: then it is the interface that has this address.
	Interface string
	// IPv6 makes it a router for IPv6 addresses.
	IPv6 bool
	// VRID is the virtual router's number, 1 to 255.
	VRID uint8
	// Group is the multicast address; default vrrpcompat.Group4 or Group6.
	Group netip.Addr
	// Source is the address to send from, which the machine must have
	// (mcast_src_ip, unicast_src_ip). Default: for IPv4 the interface's primary
	// address; for IPv6 its link-local address, or towards peers that are not
	// link-local its first global address if it has one.
	Source netip.Addr
	// Virtual are the virtual addresses, which are never chosen as Source.
	Virtual []netip.Addr
	// IsVirtual reports whether an address is a virtual one of another router here,
	// which is not a source either; nil for none.
	IsVirtual func(netip.Addr) bool `json:"-"`
	// Peers, if there are any, are sent to instead of the group.
	Peers []netip.Addr
	// TTL is the TTL or hop limit towards peers, 1 to 255; 0 means 255.
	TTL int
	// VMAC, if not nil, asks for an interface with the virtual router's MAC address.
	VMAC *VMAC
	// IgnoreCarrier has an interface count as usable without a carrier and while
	// it is switched off (dont_track_primary).
	IgnoreCarrier bool
}

// VMAC describes the interface with the virtual router's MAC address: a macvlan on
// Options.Interface that exchanges nothing with its siblings (private mode).
type VMAC struct {
	// Name of the interface; default as keepalived: vrrp.VRID, or what comes next
	// when that name is taken.
	Name string
	// TransmitBase sends from the base interface and its own MAC address
	// (vmac_xmit_base). Advertisements to unicast peers always are.
	TransmitBase bool
}

// errOptions is wrapped by every error about what Options say.
var errOptions = errors.New("invalid VRRP options")

// ready returns the options with defaults filled in, or every reason why they
// cannot work.
func (o Options) ready() (Options, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{errOptions}, args...)...))
	}
	family := "IPv4"
	if o.IPv6 {
		family = "IPv6"
	}
	ours := func(a netip.Addr) bool { return a.Is4() != o.IPv6 && !a.Is4In6() }

	if o.VRID == 0 {
		bad("VRID 0: must be 1 to 255")
	}
	if o.Interface == "" && (len(o.Peers) == 0 || !o.Source.IsValid()) {
		bad("no interface: may be left out only with unicast peers and a source address")
	}
	if len(o.Interface) > maxInterfaceName {
		bad("interface %q: at most %d characters", o.Interface, maxInterfaceName)
	}
	if !o.Group.IsValid() {
		o.Group = vrrpcompat.Group4
		if o.IPv6 {
			o.Group = vrrpcompat.Group6
		}
	}
	if !ours(o.Group) || !o.Group.IsMulticast() || o.Group.Zone() != "" {
		bad("group %v: must be an %s multicast address", o.Group, family)
	}
	if o.Source.IsValid() && (!ours(o.Source) || o.Source.IsMulticast() || o.Source.IsUnspecified() || o.Source.Zone() != "") {
		bad("source %v: must be an %s unicast address", o.Source, family)
	}
	if o.Source.IsValid() && slices.Contains(o.Virtual, o.Source) {
		bad("source %v: must not be a virtual address", o.Source)
	}
	if o.TTL < 0 || o.TTL > 255 {
		bad("unicast TTL %d: must be 1 to 255", o.TTL)
	}
	if o.TTL == 0 {
		o.TTL = 255
	}
	o.Peers = slices.Clone(o.Peers)
	for i, p := range o.Peers {
		if !ours(p) || p.IsMulticast() || p.IsUnspecified() || p.Zone() != "" {
			bad("peer %v: must be an %s unicast address", p, family)
		}
		if slices.Contains(o.Peers[:i], p) {
			bad("peer %v: named twice", p)
		}
	}
	o.Virtual = slices.Clone(o.Virtual)
	if o.VMAC != nil {
		v := *o.VMAC
		o.VMAC = &v
		if len(v.Name) > maxInterfaceName {
			bad("virtual MAC interface %q: at most %d characters", v.Name, maxInterfaceName)
		}
		if v.Name != "" && v.Name == o.Interface {
			bad("virtual MAC interface %q: is the base interface", v.Name)
		}
	}
	return o, errors.Join(errs...)
}

// maxInterfaceName is IFNAMSIZ without the end mark (netdevice(7)).
const maxInterfaceName = 15

// unicast tells whether there are peers, so that the group is not used.
func (o Options) unicast() bool { return len(o.Peers) > 0 }

// transmitsVMAC tells whether advertisements leave from the virtual MAC. To a peer
// they never do: it would learn this machine's own address at the virtual MAC.
func (o Options) transmitsVMAC() bool {
	return o.VMAC != nil && !o.VMAC.TransmitBase && !o.unicast()
}

// mac returns the virtual router's MAC address (RFC 9568 section 7.3).
func (o Options) mac() net.HardwareAddr {
	family := byte(1)
	if o.IPv6 {
		family = 2
	}
	return net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, family, o.VRID}
}

// vmacNames returns the names to try for the virtual MAC interface, in order, as
// keepalived does.
func (o Options) vmacNames() []string {
	if o.VMAC.Name != "" {
		return []string{o.VMAC.Name}
	}
	names := []string{fmt.Sprintf("vrrp.%d", o.VRID)}
	if o.IPv6 {
		names = append(names, fmt.Sprintf("vrrp6.%d", o.VRID))
	}
	for i := 1; i < 100; i++ {
		if name := fmt.Sprintf("vrrp%d.%d", i, o.VRID); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
