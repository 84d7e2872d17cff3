package check

import (
	"strings"
	"unicode"
)

// maxLine is the greatest length in bytes of a line of output in a reason.
const maxLine = 120

// printable makes output of a script fit to be shown: valid UTF-8 without
// control characters other than line ends, and without space around it.
func printable(b []byte) string {
	s := strings.ToValidUTF8(string(b), "?")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// lastLine returns the last line of s, shortened to maxLine bytes.
func lastLine(s string) string {
	s = strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
	if len(s) <= maxLine {
		return s
	}
	return strings.ToValidUTF8(s[:maxLine], "") + "..."
}
