package keepalived

import "strconv"

// A Pos is a place in a configuration file. The zero Pos means unknown.
type Pos struct {
	File string
	Line int // from 1; 0: the file as a whole
}

// String returns "file:line", "file" if the line is unknown, or "-" if the
// place is unknown.
func (p Pos) String() string {
	switch {
	case p.File == "":
		return "-"
	case p.Line == 0:
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}
