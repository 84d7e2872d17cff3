package keepalived

import (
	"errors"
	"strings"
)

// SplitCommand splits the text of a keyword that takes a command, by rules
// like a shell's but without running one. Blanks separate words. Single quotes
// take everything as it is; in double quotes and outside quotes a backslash
// starts an escape: \a \b \E \f \n \r \t \v, \ooo (octal), \xHH (hexadecimal),
// \cX (control), and before any other character that character itself.
//
// The command is the second word of the line and is split again into
// arguments:
//
//	words, err := SplitCommand(node.Raw)
//	argv, err := SplitCommand(words[1])
func SplitCommand(s string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  byte
	)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			word.WriteByte(c)
		case c == '\\':
			b, n := unescape(s[i+1:])
			if n == 0 {
				return nil, errors.New("nothing follows the last backslash")
			}
			if b == 0 {
				return nil, errors.New("an escape that stands for a NUL byte is not allowed")
			}
			word.WriteByte(b)
			inWord = true
			i += n
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case isBlank(c):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	switch quote {
	case '\'':
		return nil, errors.New("missing closing single quote")
	case '"':
		return nil, errors.New("missing closing double quote")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

var simpleEscapes = map[byte]byte{
	'a': '\a', 'b': '\b', 'E': 0x1b, 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// unescape returns the byte that the text after a backslash stands for, and
// how many bytes of the text it takes: 0 if there is no text.
func unescape(s string) (b byte, n int) {
	if s == "" {
		return 0, 0
	}
	if b, ok := simpleEscapes[s[0]]; ok {
		return b, 1
	}
	switch {
	case s[0] == 'x':
		if v, n := number(s[1:], 16, 2); n > 0 {
			return v, n + 1
		}
	case s[0] == 'c' && len(s) > 1:
		return s[1] & 0x1f, 2
	default:
		if v, n := number(s, 8, 3); n > 0 {
			return v, n
		}
	}
	return s[0], 1
}

// number reads up to max digits.
func number(s string, base, max int) (v byte, n int) {
	total := 0
	for n < len(s) && n < max {
		c := s[n]
		if 'A' <= c && c <= 'F' {
			c += 'a' - 'A'
		}
		d := strings.IndexByte("0123456789abcdef", c)
		if d < 0 || d >= base || total*base+d > 255 {
			break
		}
		total = total*base + d
		n++
	}
	return byte(total), n
}
