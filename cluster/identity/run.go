package identity

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Run is one process that holds a node's identity. It is in the certificate that
// the process has made for itself, so that every connection shows it.
type Run struct {
	// Boot is random: no other process has it, unless it is a copy of this one's memory.
	Boot string `json:"boot"`
	// Claim counts how often an operator has said that the identity lives on another
	// machine now. Whoever has a lower one than is known is not the node any more.
	Claim uint64 `json:"claim,omitempty"`
	// Start is what the process found on its disk.
	Start Position `json:"start"`
}

// MaxTerm is the newest term and the last index that a node may speak of: there must be
// another one after it.
const MaxTerm = 1 << 60

// A Position is how far a node has come: the newest term that it may have voted in,
// and the end of its log.
type Position struct {
	Term  uint64 `json:"term,omitempty"`
	Index uint64 `json:"index,omitempty"`
}

// behind tells whether a node at p lacks some of what was acknowledged up to q.
func (p Position) behind(q Position) bool { return p.Term < q.Term || p.Index < q.Index }

func (p Position) Sane() bool { return p.Term <= MaxTerm && p.Index <= MaxTerm }

func (p Position) or(q Position) Position {
	return Position{max(p.Term, q.Term), max(p.Index, q.Index)}
}

func NewBoot() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var bootText = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Text is a run as the certificate has it; ParseRun reads it. A program from before
// there were runs has none, and is not told apart from others of its name.
func (r Run) Text() string {
	return fmt.Sprintf("%s.%d.%d.%d", r.Boot, r.Claim, r.Start.Term, r.Start.Index)
}

func ParseRun(text string) (Run, bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 || !bootText.MatchString(parts[0]) {
		return Run{}, false
	}
	var n [3]uint64
	for i := range n {
		v, err := strconv.ParseUint(parts[i+1], 10, 64)
		if err != nil || v > MaxTerm {
			return Run{}, false
		}
		n[i] = v
	}
	return Run{Boot: parts[0], Claim: n[0], Start: Position{n[1], n[2]}}, true
}

// A Past is how far one run of a node had come, as others remember it on disk.
type Past struct {
	Run
	Acknowledged Position `json:"acknowledged"`
}
