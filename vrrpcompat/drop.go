package vrrpcompat

// A Drop is the reason why a packet was not accepted. The zero Drop is DropNone.
type Drop uint8

// The reasons, in the order in which [Expect.Check] looks for them.
const (
	DropNone          Drop = iota // accepted
	DropLength                    // shorter than the packet has to be
	DropVRID                      // of another virtual router on this network; not an error
	DropOwn                       // from our own address: looped back, or the address is in use twice
	DropAddressOwner              // we have priority 255 and listen to nobody
	DropTTL                       // multicast, and the TTL or hop limit is not 255: forwarded by a router
	DropVersion                   // not the version that is configured
	DropAuthType                  // version 2: not the authentication type that is configured
	DropAuthData                  // version 2: not the password that is configured
	DropInterval                  // version 2: not the interval that is configured; version 3: zero
	DropType                      // not an advertisement
	DropChecksum                  // damaged
	DropChecksumForm              // version 3 over IPv4: v3_checksum_as_v2 differs
	DropNotUnicast                // multicast, but unicast peers are configured
	DropNotMulticast              // unicast or to another group, but multicast is configured
	DropVRIDCollision             // none of the addresses is ours: two virtual routers with one VRID
	DropAddressList               // the address list differs, and that is configured to matter
	DropSource                    // not from a unicast peer
	DropPeerTTL                   // below min_ttl or above max_ttl of the unicast peer
	drops             = iota
)

// String returns the stable name of the reason, for status and metrics.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "unknown"
}

var dropNames = [drops]string{
	DropNone:          "none",
	DropLength:        "length",
	DropVRID:          "vrid",
	DropOwn:           "own",
	DropAddressOwner:  "address_owner",
	DropTTL:           "ttl",
	DropVersion:       "version",
	DropAuthType:      "auth_type",
	DropAuthData:      "auth_data",
	DropInterval:      "interval",
	DropType:          "type",
	DropChecksum:      "checksum",
	DropChecksumForm:  "checksum_form",
	DropNotUnicast:    "not_unicast",
	DropNotMulticast:  "not_multicast",
	DropVRIDCollision: "vrid_collision",
	DropAddressList:   "address_list",
	DropSource:        "source",
	DropPeerTTL:       "peer_ttl",
}

// Drops returns all reasons but DropNone, in the order of the checks.
func Drops() []Drop {
	all := make([]Drop, 0, drops-1)
	for d := DropNone + 1; d < drops; d++ {
		all = append(all, d)
	}
	return all
}

// A Mismatch is a difference between an accepted packet and our configuration.
// It does not prevent an election, but should be seen by an operator.
type Mismatch uint8

// The differences. The zero Mismatch is none.
const (
	MismatchNone      Mismatch = iota
	MismatchAddresses          // the address lists differ; keepalived up to 2.3.2 drops our packets
	MismatchInterval           // version 3: another interval, which is adopted from the master
	mismatches        = iota
)

// String returns the stable name of the difference, for status and metrics.
func (m Mismatch) String() string {
	switch m {
	case MismatchNone:
		return "none"
	case MismatchAddresses:
		return "address_list"
	case MismatchInterval:
		return "interval"
	}
	return "unknown"
}

// Mismatches returns all differences but MismatchNone.
func Mismatches() []Mismatch { return []Mismatch{MismatchAddresses, MismatchInterval} }

// Counters count what became of received packets. The zero Counters are ready.
// They are not safe for concurrent use; a copy is a snapshot.
type Counters struct {
	received   uint64
	drops      [drops]uint64
	mismatches [mismatches]uint64
}

// Count records what Check said of one packet, and what Mismatch said of it if it
// was accepted.
func (c *Counters) Count(d Drop, ms ...Mismatch) {
	c.received++
	if int(d) < len(c.drops) {
		c.drops[d]++
	}
	for _, m := range ms {
		if int(m) < len(c.mismatches) {
			c.mismatches[m]++
		}
	}
}

// Received returns the number of all packets that were counted.
func (c *Counters) Received() uint64 { return c.received }

// Accepted returns the number of packets that passed all checks.
func (c *Counters) Accepted() uint64 { return c.drops[DropNone] }

// Dropped returns the number of packets that were dropped for this reason.
func (c *Counters) Dropped(d Drop) uint64 {
	if d == DropNone || int(d) >= len(c.drops) {
		return 0
	}
	return c.drops[d]
}

// Mismatched returns the number of accepted packets with this difference.
func (c *Counters) Mismatched(m Mismatch) uint64 {
	if m == MismatchNone || int(m) >= len(c.mismatches) {
		return 0
	}
	return c.mismatches[m]
}
