package vrrpnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/vrrpcompat"
)

// A Note is something wrong, or at least odd, with what another router sends.
type Note struct {
	// Reason is the name of a vrrpcompat.Drop or vrrpcompat.Mismatch, or one of
	// ReasonLooped and ReasonSameAddress instead of "own".
	Reason string
	// Sender is the address that it came from. Anyone on the network can write any
	// address there.
	Sender netip.Addr
	// Detail says what was received, where that helps; it never has a password.
	Detail string
	// Dropped: the packets had no effect. Otherwise they were accepted all the same.
	Dropped bool
	// Count is how often it was seen, First and Last when, by CLOCK_BOOTTIME.
	Count       uint64
	First, Last time.Duration
}

// Reasons of a Note instead of vrrpcompat.DropOwn.
const (
	// ReasonLooped: the network brought our own advertisement back.
	ReasonLooped = "looped_back"
	// ReasonSameAddress: another router advertises from our own address. Over IPv4 the
	// kernel drops such packets as it does all from an address of its own, unless they
	// come to a virtual MAC.
	ReasonSameAddress = "same_address"
)

// maxNotes bounds what forged senders can make us remember.
const maxNotes = 16

// noteAgain is the silence after which a note is worth another line in the log.
const noteAgain = 10 * time.Minute

// notes are the latest notes, one for each reason and sender.
type notes []Note

// add counts n, and tells whether it is new or was not seen for long. When there is
// no room for a new one, the one that was not seen for longest is forgotten.
func (all *notes) add(now time.Duration, n Note) (fresh bool) {
	at := slices.IndexFunc(*all, func(x Note) bool {
		return x.Reason == n.Reason && x.Sender == n.Sender && x.Dropped == n.Dropped
	})
	if at >= 0 {
		x := &(*all)[at]
		fresh = now-x.Last > noteAgain
		x.Detail, x.Last = n.Detail, now
		x.Count++
		return fresh
	}
	n.Count, n.First, n.Last = 1, now, now
	if len(*all) < maxNotes {
		*all = append(*all, n)
		return true
	}
	oldest := 0
	for i, x := range *all {
		if x.Last < (*all)[oldest].Last {
			oldest = i
		}
	}
	(*all)[oldest] = n
	return true
}

// detail says in a few words what a refused packet had in the field that it was
// refused for.
func detail(d vrrpcompat.Datagram, drop vrrpcompat.Drop) string {
	b := d.Payload
	switch drop {
	case vrrpcompat.DropLength:
		return fmt.Sprintf("%d bytes", len(b))
	case vrrpcompat.DropTTL, vrrpcompat.DropPeerTTL:
		return fmt.Sprintf("TTL %d", d.TTL)
	case vrrpcompat.DropVersion:
		return fmt.Sprintf("version %d", b[0]>>4)
	case vrrpcompat.DropType:
		return fmt.Sprintf("type %d", b[0]&0xf)
	case vrrpcompat.DropNotUnicast, vrrpcompat.DropNotMulticast:
		return fmt.Sprintf("to %v", d.Destination)
	}
	a, _, bad := vrrpcompat.Parse(b, d.Source.Is6())
	if bad != vrrpcompat.DropNone {
		return ""
	}
	switch drop {
	case vrrpcompat.DropAuthType:
		return fmt.Sprintf("authentication type %d", a.AuthType)
	case vrrpcompat.DropInterval:
		return fmt.Sprintf("interval %v", a.Interval)
	case vrrpcompat.DropVRIDCollision, vrrpcompat.DropAddressList:
		return list(a.Addresses)
	}
	return ""
}

func mismatchDetail(a vrrpcompat.Advertisement, m vrrpcompat.Mismatch) string {
	if m == vrrpcompat.MismatchInterval {
		return fmt.Sprintf("interval %v", a.Interval)
	}
	return list(a.Addresses)
}

// list names some addresses; a packet has up to 255.
func list(addrs []netip.Addr) string {
	const most = 8
	names := []string{"addresses"}
	for i, a := range addrs {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(addrs)-most))
			break
		}
		names = append(names, a.String())
	}
	if len(addrs) == 0 {
		return "no addresses"
	}
	return strings.Join(names, " ")
}
