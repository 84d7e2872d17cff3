package keepalived

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Bounds of expansion. They are far above any file in use, and keep
// definitions that contain each other from using up time and memory.
const (
	maxExpansions   = 1000    // in one line
	maxExpandedLine = 1 << 16 // bytes
	maxExpandDepth  = 32      // definitions of several lines inside each other
)

func isNameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// nameEnd returns the end of the name that starts at i, or i if there is none.
func nameEnd(s string, i int) int {
	if i >= len(s) || !isNameStart(s[i]) {
		return i
	}
	for i++; i < len(s) && (isNameStart(s[i]) || '0' <= s[i] && s[i] <= '9'); i++ {
	}
	return i
}

// matchName matches $NAME or ${NAME} at s[i], which is a dollar sign. For
// ${_ENV HOME} and ${_RANDOM 1 9} the name contains the parameters. Unlike
// keepalived, which wants a blank, comma, parenthesis or the end after $NAME,
// any character that cannot be part of a name ends it.
func matchName(s string, i int) (name string, end int, ok bool) {
	if i+1 < len(s) && s[i+1] == '{' {
		end = nameEnd(s, i+2)
		if end == i+2 {
			return "", 0, false
		}
		if n := s[i+2 : end]; n == "_ENV" || n == "_RANDOM" {
			if closing := strings.IndexByte(s[end:], '}'); closing >= 0 {
				end += closing
			}
		}
		if end >= len(s) || s[end] != '}' {
			return "", 0, false
		}
		return s[i+2 : end], end + 1, true
	}
	end = nameEnd(s, i+1)
	return s[i+1 : end], end, end > i+1
}

// matchDefinition matches $NAME=value at the start of a line.
func matchDefinition(line string) (name, value string, ok bool) {
	if !strings.HasPrefix(line, "$") {
		return "", "", false
	}
	end := nameEnd(line, 1)
	if end == 1 || end >= len(line) || line[end] != '=' {
		return "", "", false
	}
	return line[1:end], strings.Trim(line[end+1:], blanks), true
}

// expand replaces the definitions used in a line. Several lines are returned if
// a value has several; these are to be processed like lines of the file.
func (p *parser) expand(text string, pos Pos) (lines []string, ok bool) {
	expansions := 0
	for i := 0; ; {
		dollar := strings.IndexByte(text[i:], '$')
		if dollar < 0 {
			return []string{text}, true
		}
		i += dollar
		name, end, ok := matchName(text, i)
		if !ok {
			i++
			continue
		}
		if value, ok := p.predefined(name, pos); ok {
			text = text[:i] + value + text[end:]
			i += len(value)
			continue
		}
		value, ok := p.definitions[name]
		if !ok {
			i = end // left as typed
			continue
		}
		text = text[:i] + value + text[end:]
		if expansions++; expansions > maxExpansions || len(text) > maxExpandedLine {
			p.errorf(pos, "definition $%s grows without end: it contains itself, or too many others", name)
			return nil, false
		}
		if strings.Contains(value, "\n") {
			return strings.Split(text, "\n"), true
		}
	}
}

// predefined returns the value of a predefined name.
func (p *parser) predefined(name string, pos Pos) (string, bool) {
	switch name {
	case "_HASH":
		return "#", true
	case "_BANG":
		return "!", true
	case "_PWD":
		dir := filepath.Dir(pos.File)
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		return dir, true
	case "_INSTANCE":
		return p.instance, true
	}
	if kind, param, _ := strings.Cut(name, " "); kind == "_ENV" {
		value, ok := p.opt.Env(strings.TrimSpace(param))
		if !ok {
			p.warnf(pos, "${_ENV %s}: not set in the environment; replaced by nothing", strings.TrimSpace(param))
			return "", true
		}
		return strings.NewReplacer("\n", " ", "\x00", "").Replace(value), true
	} else if kind == "_RANDOM" {
		p.warnf(pos, "${_RANDOM}: not supported by this version; left as typed")
	}
	return "", false
}

// conditional handles a line that begins with @id or @^id. It returns the rest
// of the line, and whether the line counts.
func (p *parser) conditional(line string, pos Pos) (rest string, use bool) {
	if !strings.HasPrefix(line, "@") {
		return line, true
	}
	end := strings.IndexAny(line, blanks)
	if end < 0 {
		end = len(line)
	}
	id, negated := strings.CutPrefix(line[1:end], "^")
	if id == "" {
		p.errorf(pos, "@ without a configuration id; write @id or @^id before the rest of the line")
		return "", false
	}
	return strings.Trim(line[end:], blanks), (id == p.opt.ConfigID) != negated
}

// generator returns the list generator used in a line, if any.
func generator(text string) string {
	for _, g := range []string{"~SEQ", "~LST"} {
		if i := strings.Index(text, g); i >= 0 {
			if rest := strings.TrimLeft(text[i+len(g):], "x"); strings.HasPrefix(rest, "(") {
				return g
			}
		}
	}
	return ""
}

func (p *parser) errorf(pos Pos, format string, args ...any) {
	p.report(Problem{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

func (p *parser) warnf(pos Pos, format string, args ...any) {
	p.report(Problem{Pos: pos, Warning: true, Message: fmt.Sprintf(format, args...)})
}
