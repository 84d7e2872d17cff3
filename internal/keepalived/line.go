package keepalived

import "strings"

// uncomment removes the comment of a line and turns \# and \! outside double
// quotes into the plain character. A backslash makes the character after it
// lose its meaning as quote. continued reports (and removes) a backslash that
// ends the line.
func uncomment(line string) (text string, continued bool) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 == len(line):
			return strings.TrimRight(b.String(), blanks), true
		case c == '\\':
			i++
			if quoted || line[i] != '#' && line[i] != '!' {
				b.WriteByte(c)
			}
			b.WriteByte(line[i])
			continue
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '#' || c == '!'):
			return uncontinue(b.String())
		}
		b.WriteByte(c)
	}
	return uncontinue(b.String())
}

// uncontinue handles a continuation backslash followed by blanks or a comment.
func uncontinue(s string) (string, bool) {
	s = strings.TrimRight(s, blanks)
	if t, ok := strings.CutSuffix(s, " \\"); ok {
		return strings.TrimRight(t, blanks), true
	}
	return s, false
}

// blanks are the characters between words.
const blanks = " \t\v\f"

func isBlank(c byte) bool { return strings.IndexByte(blanks, c) >= 0 }

type fragmentKind int

const (
	fragmentText fragmentKind = iota
	fragmentOpen
	fragmentClose
)

type fragment struct {
	kind fragmentKind
	text string // of fragmentText, without blanks around it
}

// splitBraces splits a line at its unquoted braces. The braces of an
// undefined ${NAME}, which is left as typed, do not count.
func splitBraces(text string) []fragment {
	var out []fragment
	start := 0
	flush := func(end int) {
		if t := strings.Trim(text[start:end], blanks); t != "" {
			out = append(out, fragment{fragmentText, t})
		}
		start = end + 1
	}
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '$':
			if _, end, ok := matchName(text, i); ok {
				i = end - 1
			}
		case c == '{':
			flush(i)
			out = append(out, fragment{kind: fragmentOpen})
		case c == '}':
			flush(i)
			out = append(out, fragment{kind: fragmentClose})
		}
	}
	flush(len(text))
	return out
}

// splitWords splits a statement into words. terminated is false if a double
// quote is missing; the last word then has the rest of the line.
func splitWords(text string, pos Pos) (words []Word, terminated bool) {
	for i := 0; i < len(text); {
		if isBlank(text[i]) {
			i++
			continue
		}
		if text[i] == '"' {
			end := skipTo(text, i+1, func(c byte) bool { return c == '"' })
			words = append(words, Word{Pos: pos, Text: text[i+1 : end], Quoted: true})
			if end == len(text) {
				return words, false
			}
			i = end + 1
			continue
		}
		end := skipTo(text, i, func(c byte) bool { return c == '"' || isBlank(c) })
		words = append(words, Word{Pos: pos, Text: text[i:end]})
		i = end
	}
	return words, true
}

// skipTo returns the index of the first byte from i on that satisfies stop and
// has no backslash before it, or len(s).
func skipTo(s string, i int, stop func(byte) bool) int {
	for ; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		} else if stop(s[i]) {
			return i
		}
	}
	return len(s)
}

// lookAlikes are characters, common in files copied from web pages, that look
// like the punctuation of the language but are letters to it.
var lookAlikes = map[rune]string{
	'\u00a0': "a blank (it is a no-break space)",
	'\u2003': "a blank (it is an em space)",
	'\u200b': "nothing (it is a zero-width space)",
	'\u3000': "a blank (it is an ideographic space)",
	'｛':      "{",
	'｝':      "}",
	'“':      `"`,
	'”':      `"`,
	'＂':      `"`,
	'＃':      "#",
	'！':      "!",
}

// lookAlike finds such a character outside double quotes. serious is true for
// blanks and braces, which decide what a line says; the others at worst spoil
// a value, which is then reported.
func lookAlike(text string) (r rune, meant string, serious bool) {
	quoted := false
	for _, c := range text {
		if c == '"' {
			quoted = !quoted
		}
		m, ok := lookAlikes[c]
		if !ok || quoted {
			continue
		}
		if !strings.Contains("#!\"", m) {
			return c, m, true
		}
		if r == 0 {
			r, meant = c, m
		}
	}
	return r, meant, false
}
