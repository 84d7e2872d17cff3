package keepalived

import "strconv"

// A Pos is a place in a configuration file. The zero Pos means unknown.
type Pos struct {
	File string
	Line int // from 1
}

// String returns "file:line", or "-" if the place is unknown.
func (p Pos) String() string {
	if p.File == "" {
		return "-"
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}
