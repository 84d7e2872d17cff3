package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
)

// The groups of VRRP (RFC 9568 5.1.1.2, 5.1.2.2) and its protocol number (5.1.1.4).
var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
)

const protocolVRRP = 112

// A Kind is a way in which a probe travels.
type Kind uint8

// Kinds of probes. The zero value is invalid.
const (
	_ Kind = iota
	MulticastUDP
	MulticastVRRP
	UnicastUDP
	// UnicastFull is UDP that fills the MTU of the sender's interface and must not be
	// fragmented.
	UnicastFull
	UnicastVRRP
	kinds
)

// Rounds is how often each probe is sent, numbered from 0.
const Rounds = 3

// A datagram is one probe on the wire, the same in UDP and in protocol 112:
//
//	byte  0     0xff: VRRP version 15, type 15, which every router discards
//	byte  1     0: a VRID that no virtual router has
//	bytes 2-7   0
//	bytes 8-11  "rvdr"
//	bytes 12-19 session
//	byte  20    kind
//	byte  21    number of the sender in the session
//	byte  22    round
//	byte  23    length of the interface's name
//	bytes 24-38 the sender's interface, filled with 0
//	byte  39    0
//
// and zeros up to the wanted size.
type datagram struct {
	session   [8]byte
	kind      Kind
	from      int
	round     int
	iface     string
	totalSize int // of what is encoded; 0 is datagramSize
}

const (
	datagramSize = 40
	notVRRP      = 0xff
)

var datagramMagic = [4]byte{'r', 'v', 'd', 'r'}

func (d datagram) encode() []byte {
	b := make([]byte, max(datagramSize, d.totalSize))
	b[0] = notVRRP
	copy(b[8:], datagramMagic[:])
	copy(b[12:], d.session[:])
	b[20], b[21], b[22], b[23] = byte(d.kind), byte(d.from), byte(d.round), byte(len(d.iface))
	copy(b[24:24+maxInterfaceName], d.iface)
	return b
}

var errNotOurs = errors.New("not a probe of raftvip")

// parseDatagram reads a probe. Whoever can reach the port can send one.
func parseDatagram(b []byte) (datagram, error) {
	if len(b) < datagramSize || b[0] != notVRRP || b[1] != 0 || [4]byte(b[8:12]) != datagramMagic ||
		binary.BigEndian.Uint32(b[2:]) != 0 || b[6] != 0 || b[7] != 0 {
		return datagram{}, errNotOurs
	}
	d := datagram{session: [8]byte(b[12:20]), kind: Kind(b[20]), from: int(b[21]), round: int(b[22]), totalSize: len(b)}
	if d.kind == 0 || d.kind >= kinds || d.from >= MaxNodes || d.round >= Rounds || b[23] > maxInterfaceName {
		return datagram{}, fmt.Errorf("%w: kind %d, sender %d, round %d", errNotOurs, d.kind, d.from, d.round)
	}
	d.iface = string(b[24 : 24+int(b[23])])
	if err := CheckInterfaceName(d.iface); err != nil {
		return datagram{}, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	return d, nil
}

// parseSession reads the text of a session: 16 hexadecimal digits.
func parseSession(text string) (s [8]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, fmt.Errorf("session %.40q: must be %d hexadecimal digits", text, 2*len(s))
	}
	return [8]byte(b), nil
}
