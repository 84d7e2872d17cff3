package state

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// nodeName is what a node may be called: it appears in host lists, certificates
// and log lines.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62})$`)

// NodeID is a name and what NewNodeID adds to it.
var NodeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$`)

// nodeIDSuffix is what NewNodeID adds to a name.
var nodeIDSuffix = regexp.MustCompile(`^-[0-9a-f]{8}$`)

// hostName is what may stand for an address (RFC 1123, 2.1), and underscores.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// zoneName is an interface in a link-local address.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)

// maxHost is the longest host name (RFC 1035, 2.3.4).
const maxHost = 253

// MaxAddress is the longest HOST:PORT of a node in bytes.
const MaxAddress = maxHost + len("[]:65535")

// CheckName tells whether name can be a node's name.
func CheckName(name string) error {
	if !nodeName.MatchString(name) {
		return fmt.Errorf("node name %.80q: must be 1 to 63 letters, digits, dots, dashes or underscores and begin with a letter or digit", name)
	}
	return nil
}

// CheckOwnID tells whether id can be the identity that a node of this name has made
// for itself. One that is somebody else's name would be taken for that node.
func CheckOwnID(name, id string) error {
	rest, ok := strings.CutPrefix(id, name)
	if !ok || !nodeIDSuffix.MatchString(rest) {
		return fmt.Errorf("node ID %.80q: must be the name of the node, a dash and 8 hexadecimal digits", id)
	}
	return nil
}

// CheckAddress tells whether address can be where a node is reached: HOST:PORT, HOST
// being an IP address of one machine or a host name.
func CheckAddress(address string) error {
	bad := func(why string) error {
		return fmt.Errorf("node address %.80q: %s", address, why)
	}
	if len(address) > MaxAddress {
		return bad("is too long")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return bad("must be HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return bad("the port must be 1 to 65535")
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		// What looks like an IPv4 address and is none would be asked of name servers.
		if len(host) > maxHost || !hostName.MatchString(host) || strings.Trim(host, "0123456789.") == "" {
			return bad("the host is neither an IP address nor a host name")
		}
		return nil
	}
	switch {
	case ip.Is4In6():
		return bad("write the IPv4 address as such: " + ip.Unmap().String())
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad("is not the address of one machine")
	case ip.Zone() != "" && !zoneName.MatchString(ip.Zone()):
		return bad("no interface has such a name")
	}
	return nil
}

// AddressIP returns the IP address in HOST:PORT, if HOST is one.
func AddressIP(address string) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(host)
	return ip.Unmap(), err == nil
}

// checkNode tells whether a record can be that of a node.
func checkNode(n NodeRecord) error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if !NodeID.MatchString(n.ID) {
		return fmt.Errorf("node ID %.80q: must be letters, digits, dots, dashes or underscores", n.ID)
	}
	return CheckAddress(n.Address)
}
