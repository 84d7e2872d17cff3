package keepalived

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of includes.
const (
	maxIncludeDepth = 16
	maxIncludes     = 1000
)

// includeRule says what is an error for one spelling of include. A file that
// is named in full, or matched, and cannot be read is always one: keepalived
// goes on without it unless includer, includem or include_check says otherwise.
type includeRule struct {
	// match: a pattern must match something. braces: so must every alternative
	// of a {a,b}.
	match, braces bool
}

var includeRules = map[string]includeRule{
	"include":  {},
	"includer": {},
	"includem": {match: true},
	"includew": {match: true},
	"includeb": {braces: true},
	"includea": {match: true, braces: true},
}

// includeKeyword returns the include keyword a line begins with, or "".
func includeKeyword(line string) string {
	word := line
	if i := strings.IndexAny(line, blanks+`"`); i >= 0 {
		word = line[:i]
	}
	if _, ok := includeRules[word]; ok {
		return word
	}
	return ""
}

func (p *parser) include(text string, pos Pos) {
	words, terminated := splitWords(text, pos)
	keyword := words[0].Text
	switch {
	case !terminated:
		p.errorf(pos, `%s: missing closing double quote`, keyword)
		return
	case len(words) < 2:
		p.errorf(pos, "%s: missing file name", keyword)
		return
	case len(words) > 2:
		p.errorf(pos, "%s: one file name or pattern expected, found %d words", keyword, len(words)-1)
		return
	}
	rule := includeRules[keyword]
	found := 0
	patterns := expandBraces(words[1].Text)
	for _, pattern := range patterns {
		names, err := p.match(pattern, pos)
		if err != nil {
			p.errorf(pos, "%s %s: %v", keyword, pattern, err)
			continue
		}
		if len(names) == 0 && len(patterns) > 1 && rule.braces {
			p.errorf(pos, "%s %s: no such file", keyword, pattern)
		}
		found += len(names)
		for _, name := range names {
			if err := p.includeFile(name); err != nil {
				p.errorf(pos, "%s %s: %v", keyword, name, err)
			}
			if p.halted {
				return
			}
		}
	}
	if found > 0 {
		return
	}
	literal := len(patterns) == 1 && !hasMeta(patterns[0])
	if literal || rule.match {
		p.errorf(pos, "%s %s: no such file", keyword, words[1].Text)
	}
}

// match returns the files of one pattern, relative to the including file.
func (p *parser) match(pattern string, pos Pos) ([]string, error) {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(pos.File), pattern)
	}
	if hasMeta(pattern) {
		names, err := p.opt.FS.Glob(pattern)
		slices.Sort(names)
		return names, err
	}
	if _, err := p.opt.FS.Stat(pattern); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return []string{pattern}, nil
}

func (p *parser) includeFile(name string) error {
	name = filepath.Clean(name)
	if slices.Contains(p.including, name) {
		return fmt.Errorf("files include each other: %s", strings.Join(append(p.including, name), " -> "))
	}
	if len(p.including) > maxIncludeDepth {
		return fmt.Errorf("includes nested more than %d deep", maxIncludeDepth)
	}
	if p.includes++; p.includes > maxIncludes {
		p.halted = true
		return fmt.Errorf("more than %d includes", maxIncludes)
	}
	info, err := p.opt.FS.Stat(name)
	if err != nil {
		return withoutPath(err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return errors.New("is a directory")
	case !mode.IsRegular():
		return errors.New("is not a regular file")
	case mode&0o111 != 0:
		return errors.New("is executable; keepalived refuses such files, remove the execute bits")
	}
	data, err := p.opt.FS.ReadFile(name)
	if err != nil {
		return withoutPath(err)
	}
	p.file(name, data)
	return nil
}

// withoutPath removes the file name, which the message has already.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

func hasMeta(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// expandBraces expands the {a,b} alternatives of a pattern, nested ones too.
// Without a comma braces stand for themselves.
func expandBraces(s string) []string {
	const limit = 1000
	out := []string{}
	todo := []string{s}
	for len(todo) > 0 {
		s, todo = todo[0], todo[1:]
		open, alternatives, end := firstBraces(s)
		if alternatives == nil || len(out)+len(todo) > limit {
			out = append(out, s)
			continue
		}
		next := make([]string, 0, len(alternatives)+len(todo))
		for _, a := range alternatives {
			next = append(next, s[:open]+a+s[end:])
		}
		todo = append(next, todo...)
	}
	return out
}

// firstBraces finds the first balanced {...} with a comma at its own level.
func firstBraces(s string) (open int, alternatives []string, end int) {
	for open = 0; open < len(s); open++ {
		if s[open] != '{' {
			continue
		}
		depth, start := 0, open+1
		var parts []string
		for i := open; i < len(s); i++ {
			switch s[i] {
			case '{':
				depth++
			case ',':
				if depth == 1 {
					parts = append(parts, s[start:i])
					start = i + 1
				}
			case '}':
				if depth--; depth == 0 {
					if parts != nil {
						return open, append(parts, s[start:i]), i + 1
					}
					i = len(s)
				}
			}
		}
	}
	return 0, nil, 0
}
