package printable

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	for _, tt := range []struct{ in, text, line string }{
		{"lb1", "lb1", "lb1"},
		{"größe → ✓", "größe → ✓", "größe → ✓"},
		{"a\nb\tc", "a\nb\tc", `a\x0ab\x09c`},
		{"\x1b[2J", `\x1b[2J`, `\x1b[2J`},
		{"\u009b31m", `\u009b31m`, `\u009b31m`},
		{"a\rb\x00\x7f", `a\x0db\x00\x7f`, `a\x0db\x00\x7f`},
		{"\xff\xfe", `\xff\xfe`, `\xff\xfe`},
		{"\ufffd", "\ufffd", "\ufffd"},
		{"abc\u202edcba", `abc\u202edcba`, `abc\u202edcba`},
		{"\U000e0001", `\U000e0001`, `\U000e0001`},
	} {
		if got := Text(tt.in); got != tt.text {
			t.Errorf("Text(%q) = %q, want %q", tt.in, got, tt.text)
		}
		if got := Line(tt.in); got != tt.line {
			t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.line)
		}
	}
}

func TestValue(t *testing.T) {
	type part struct {
		Name  string
		Raw   []byte
		At    time.Time
		IP    netip.Addr
		inner string
	}
	type whole struct {
		Parts []part
		Next  *part
		Names map[string][]string
		Any   any
	}
	now := time.Now()
	in := whole{
		Parts: []part{{Name: "\x1b", Raw: []byte("\x1b"), At: now, IP: netip.MustParseAddr("192.0.2.1"), inner: "\x1b"}},
		Next:  &part{Name: "\x07"},
		Names: map[string][]string{"\x1b": {"\x1b", "fine"}},
	}
	Value(&in)
	want := whole{
		Parts: []part{{Name: `\x1b`, Raw: []byte("\x1b"), At: now, IP: netip.MustParseAddr("192.0.2.1"), inner: "\x1b"}},
		Next:  &part{Name: `\x07`},
		Names: map[string][]string{`\x1b`: {`\x1b`, "fine"}},
	}
	if !reflect.DeepEqual(in, want) {
		t.Errorf("got %+v, want %+v", in, want)
	}
}
