package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
	"github.com/raftvip/raftvip/internal/vipaddr"
)

// value returns the one value of a statement. allowed completes the message if
// it is missing: "must be ...".
func (l *loader) value(n *keepalived.Node, allowed string) (string, bool) {
	args := n.Args()
	if len(args) == 0 || args[0].Text == "" {
		l.errorf(n.Pos, "%s: missing value; must be %s", n.Keyword(), allowed)
		return "", false
	}
	l.noMore(n, 1)
	return args[0].Text, true
}

// noMore warns about values after the first count ones.
func (l *loader) noMore(n *keepalived.Node, count int) {
	if args := n.Args(); len(args) > count {
		l.warnf(args[count].Pos, "%s: %s ignored; at most %s allowed here", n.Keyword(), display(args[count].Text), counted(count, "value"))
	}
}

func counted(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun + " is"
	case 1:
		return "one " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", n, noun)
}

// integer reads a whole number.
func (l *loader) integer(n *keepalived.Node, low, high int) (int, bool) {
	s, ok := l.value(n, wholeNumber(low, high))
	if !ok {
		return 0, false
	}
	return l.integerWord(n.Pos, n.Keyword(), s, low, high)
}

func (l *loader) integerWord(pos Pos, keyword, s string, low, high int) (int, bool) {
	v, err := strconv.Atoi(s)
	if err != nil || v < low || v > high || strings.HasPrefix(s, "+") {
		l.errorf(pos, "%s %s: must be %s", keyword, shorten(s), wholeNumber(low, high))
		return 0, false
	}
	return v, true
}

func wholeNumber(low, high int) string {
	if high == low+1 {
		return fmt.Sprintf("%d or %d", low, high)
	}
	return fmt.Sprintf("a whole number between %d and %d", low, high)
}

// seconds reads a decimal number of seconds. low and high are in the form in
// which they are shown.
func (l *loader) seconds(n *keepalived.Node, low, high string) (time.Duration, bool) {
	s, ok := l.value(n, fmt.Sprintf("between %s and %s seconds", low, high))
	if !ok {
		return 0, false
	}
	d, ok := parseSeconds(s)
	lowest, _ := parseSeconds(low)
	highest, _ := parseSeconds(high)
	if !ok || d < lowest || d > highest {
		l.errorf(n.Pos, "%s %s: must be between %s and %s seconds", n.Keyword(), shorten(s), low, high)
		return 0, false
	}
	return d, true
}

// parseSeconds reads digits with at most one decimal point. Digits after the
// ninth place are dropped.
func parseSeconds(s string) (time.Duration, bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" && fraction == "" || point && strings.Contains(fraction, ".") {
		return 0, false
	}
	for _, c := range whole + fraction {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	if whole == "" {
		whole = "0"
	}
	sec, err := strconv.ParseUint(whole, 10, 33)
	if err != nil {
		return 0, false
	}
	nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(sec)*time.Second + time.Duration(nano), true
}

// flag reads a keyword that is true when alone.
func (l *loader) flag(n *keepalived.Node) (value, ok bool) {
	if len(n.Args()) == 0 {
		return true, true
	}
	s, ok := l.value(n, booleans)
	if !ok {
		return false, false
	}
	switch s {
	case "on", "true", "yes":
		return true, true
	case "off", "false", "no":
		return false, true
	}
	l.errorf(n.Pos, "%s %s: must be %s", n.Keyword(), shorten(s), booleans)
	return false, false
}

const booleans = "on, true or yes, off, false or no, or nothing (which means on)"

// setFlag returns a reader that stores a flag.
func (l *loader) setFlag(to *bool) func(*keepalived.Node) {
	return func(n *keepalived.Node) {
		if v, ok := l.flag(n); ok {
			*to = v
		}
	}
}

// name returns the name of a block: the word after its keyword.
func (l *loader) name(n *keepalived.Node) (string, bool) {
	args := n.Args()
	if len(args) == 0 || args[0].Text == "" {
		l.errorf(n.Pos, "%s: missing name; a name must stand between the keyword and {", n.Keyword())
		return "", false
	}
	l.noMore(n, 1)
	return args[0].Text, true
}

// interfaceName checks the form of an interface name; existence is checked in
// resolve, when dynamic_interfaces is known.
func (l *loader) interfaceName(pos Pos, keyword, s string) bool {
	if err := vipaddr.CheckInterface(s); err != nil {
		l.errorf(pos, "%s %s: %v", keyword, shorten(s), err)
		return false
	}
	return true
}

// path reads an absolute path.
func (l *loader) path(n *keepalived.Node) (string, bool) {
	s, ok := l.value(n, "an absolute path")
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(s) || strings.Contains(s, "\x00") {
		l.errorf(n.Pos, "%s %s: must be an absolute path", n.Keyword(), shorten(s))
		return "", false
	}
	return filepath.Clean(s), true
}

// shorten makes a bad value fit to be shown: not too long, and quoted if it
// could be misread.
func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "..."
	}
	misread := func(c rune) bool { return !strconv.IsPrint(c) || strings.ContainsRune("\" ;", c) }
	if s == "" || strings.ContainsFunc(s, misread) {
		return strconv.Quote(s)
	}
	return s
}
