package beat

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// MaxGroups bounds the groups in one beat.
	MaxGroups = 128
	// maxName is the longest name of a group, maxWhy the longest reason, in bytes.
	maxName = 255
	maxWhy  = 200
	// maxMessage bounds a message in bytes.
	maxMessage = 1 << 16
)

// A Beat lists the groups that its sender leads.
type Beat struct {
	// Seq counts the beats of a connection; one that is repeated keeps its number.
	Seq    uint64
	Groups []Led
}

// A Led is one group that the sender leads in a term.
type Led struct {
	Group string
	Term  uint64
}

// An Answer is the word of the node that a beat was sent to, on each group in its order.
type Answer struct {
	Seq     uint64
	Results []Result
}

// A Verdict is what a node answers about one group.
type Verdict byte

const (
	// Agreed: it follows the sender in that term.
	Agreed Verdict = iota
	// Refused: it has moved on to the Term of the result, or follows nobody any more.
	Refused
	// Unheard: its Raft has not accepted the sender as leader yet. An ordinary heartbeat
	// has to come first.
	Unheard
	// Failed: it could not deal with it, see Why.
	Failed
	verdicts
)

// A Result is the answer about one group.
type Result struct {
	Verdict Verdict
	// Term is the newest that the node has taken part in, LastLog the last index of its log.
	Term, LastLog uint64
	// Why is the reason of Failed.
	Why string
}

// ErrFormat is the error of a message that is none.
var ErrFormat = errors.New("not a beat that this version understands")

// The first byte of a message.
const (
	kindBeat   = 0x01
	kindAnswer = 0x02
)

// AppendBeat appends the encoding of a beat.
func AppendBeat(b []byte, m Beat) []byte {
	b = append(b, kindBeat)
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.AppendUvarint(b, uint64(len(m.Groups)))
	for _, g := range m.Groups {
		b = appendText(b, g.Group, maxName)
		b = binary.AppendUvarint(b, g.Term)
	}
	return b
}

// AppendAnswer appends the encoding of an answer.
func AppendAnswer(b []byte, m Answer) []byte {
	b = append(b, kindAnswer)
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.AppendUvarint(b, uint64(len(m.Results)))
	for _, r := range m.Results {
		b = append(b, byte(r.Verdict))
		b = binary.AppendUvarint(b, r.Term)
		b = binary.AppendUvarint(b, r.LastLog)
		if r.Verdict == Failed {
			b = appendText(b, r.Why, maxWhy)
		}
	}
	return b
}

func appendText(b []byte, s string, most int) []byte {
	s = s[:min(len(s), most)]
	return append(append(b, byte(len(s))), s...)
}

// ParseBeat reads a beat into m, whose slices it uses again.
func ParseBeat(b []byte, m *Beat) error {
	p := parser{b}
	m.Groups = m.Groups[:0]
	if p.byte() != kindBeat {
		return fmt.Errorf("%w: kind", ErrFormat)
	}
	m.Seq = p.uvarint()
	n := p.uvarint()
	if n > MaxGroups {
		return fmt.Errorf("%w: %d groups", ErrFormat, n)
	}
	last := m.Groups[:cap(m.Groups)]
	for i := range int(n) {
		name := "" // mostly that of the last beat, which is not allocated again
		if i < len(last) {
			name = last[i].Group
		}
		m.Groups = append(m.Groups, Led{Group: p.text(name), Term: p.uvarint()})
		if p.rest == nil {
			break
		}
	}
	return p.end()
}

// ParseAnswer reads an answer into m, whose slices it uses again.
func ParseAnswer(b []byte, m *Answer) error {
	p := parser{b}
	m.Results = m.Results[:0]
	if p.byte() != kindAnswer {
		return fmt.Errorf("%w: kind", ErrFormat)
	}
	m.Seq = p.uvarint()
	n := p.uvarint()
	if n > MaxGroups {
		return fmt.Errorf("%w: %d groups", ErrFormat, n)
	}
	for range n {
		r := Result{Verdict: Verdict(p.byte()), Term: p.uvarint(), LastLog: p.uvarint()}
		if r.Verdict >= verdicts {
			return fmt.Errorf("%w: verdict %d", ErrFormat, r.Verdict)
		}
		if r.Verdict == Failed {
			r.Why = p.text("")
		}
		m.Results = append(m.Results, r)
		if p.rest == nil {
			break
		}
	}
	return p.end()
}

// A parser reads a message; rest is nil after an error.
type parser struct{ rest []byte }

func (p *parser) byte() byte {
	if len(p.rest) == 0 {
		p.rest = nil
		return 0
	}
	c := p.rest[0]
	p.rest = p.rest[1:]
	return c
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.rest = nil
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// text reads a text, for which last is used if it is the same.
func (p *parser) text(last string) string {
	n := int(p.byte())
	if len(p.rest) < n {
		p.rest = nil
		return ""
	}
	if string(p.rest[:n]) != last {
		last = string(p.rest[:n])
	}
	p.rest = p.rest[n:]
	return last
}

// end tells whether all was read and nothing more is there.
func (p *parser) end() error {
	switch {
	case p.rest == nil:
		return fmt.Errorf("%w: it is cut off", ErrFormat)
	case len(p.rest) > 0:
		return fmt.Errorf("%w: %d bytes more than it should have", ErrFormat, len(p.rest))
	}
	return nil
}
