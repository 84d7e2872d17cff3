package guard

import (
	"fmt"
	"math"
	"time"
)

// A Kind names a mechanism, or a choice among mechanisms.
type Kind string

// Kinds. Auto tries BPFTCX, BPFClsact, NFT and Lifetime in this order; BPF tries
// the first two. The others are exactly what they say or an error.
const (
	Auto      Kind = "auto"
	BPF       Kind = "bpf"
	BPFTCX    Kind = "bpf-tcx"
	BPFClsact Kind = "bpf-clsact"
	NFT       Kind = "nft"
	Lifetime  Kind = "lifetime"
	Off       Kind = "off"
)

// Unbounded is the lateness of a guard that never stops anything (Off). Do not
// calculate with it.
const Unbounded = time.Duration(math.MaxInt64)

const (
	// underLifetime is the address lifetime used beneath a packet guard: the
	// address itself goes when the daemon has been dead this long.
	underLifetime = 30 * time.Second
	// soleLifetime is the address lifetime where it is the only guard. The unit of
	// the kernel is the second; 1 s would leave no time to refresh.
	soleLifetime = 2 * time.Second
	// lifetimeSlack is the time the kernel may take to remove an expired address
	// (net/ipv4/devinet.c check_lifetime; up to 0.39 s seen on Linux 6.18).
	lifetimeSlack = time.Second
	// packetLateness is claimed of the packet guards: the check is made for each
	// packet when it passes, so only packets already past it can still leave.
	packetLateness = time.Millisecond
)

// ParseKind reads a kind as written in the configuration file. The empty string
// is Auto.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case "":
		return Auto, nil
	case Auto, BPF, BPFTCX, BPFClsact, NFT, Lifetime, Off:
		return k, nil
	}
	return "", fmt.Errorf("guard %q is unknown; allowed are auto, bpf, bpf-tcx, bpf-clsact, nft, lifetime, off", s)
}

// rungs returns the mechanisms to try for k, best first.
func (k Kind) rungs() []Kind {
	switch k {
	case "", Auto:
		return []Kind{BPFTCX, BPFClsact, NFT, Lifetime}
	case BPF:
		return []Kind{BPFTCX, BPFClsact}
	default:
		return []Kind{k}
	}
}

// lateness returns the longest time for which the kernel may go on answering
// after a deadline.
func (k Kind) lateness() time.Duration {
	switch k {
	case BPFTCX, BPFClsact, NFT:
		return packetLateness
	case Lifetime:
		return soleLifetime + lifetimeSlack
	default:
		return Unbounded
	}
}

// addressLifetime returns the valid lifetime that addresses must be given;
// 0 means none.
func (k Kind) addressLifetime() time.Duration {
	switch k {
	case BPFTCX, BPFClsact, NFT:
		return underLifetime
	case Lifetime:
		return soleLifetime
	default:
		return 0
	}
}

// guarantee says in words what k does.
func (k Kind) guarantee() string {
	switch k {
	case BPFTCX, BPFClsact:
		return "after the lease deadline the kernel drops every frame to the address and every frame claiming it, whatever the state of the daemon; frames queued before may still leave"
	case NFT:
		return "the kernel drops frames to and from the address some milliseconds before the lease deadline, whatever the state of the daemon, as long as nobody flushes the nftables ruleset; suspend of the machine is not counted"
	case Lifetime:
		return "the kernel removes the address within seconds after the lease deadline; until then two nodes may answer"
	default:
		return "none: a stopped or dead daemon leaves its addresses answering"
	}
}
