package keepalived

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of a file. keepalived ignores lines of more than 1023 characters.
const (
	maxLineLength = 1023
	maxLines      = 200_000 // of all files, after expansion
	maxDepth      = 64      // blocks inside each other
	maxProblems   = 200
)

// Options are what a file's meaning depends on besides its text.
type Options struct {
	// ConfigID selects @id lines.
	ConfigID string
	// Instance is the value of ${_INSTANCE} until an `instance NAME` line.
	Instance string
	// FS is where files are read from. Default: OS().
	FS FileSystem
	// Env looks up ${_ENV NAME}. Default: os.LookupEnv.
	Env func(name string) (string, bool)
}

// Parse reads a file and the files it includes. The tree is never nil; it is
// fit for use if no problem is an error. Problems are in order of discovery.
func Parse(path string, opt Options) (*Tree, []Problem) {
	p := newParser(opt)
	data, err := p.opt.FS.ReadFile(path)
	if err != nil {
		p.errorf(Pos{File: path}, "cannot read the file: %v", withoutPath(err))
		return p.tree, p.problems
	}
	p.file(path, data)
	return p.tree, p.problems
}

// ParseBytes is Parse for a file of which the content is known. Includes are
// relative to the directory of name.
func ParseBytes(name string, data []byte, opt Options) (*Tree, []Problem) {
	p := newParser(opt)
	p.file(name, data)
	return p.tree, p.problems
}

type parser struct {
	opt         Options
	tree        *Tree
	problems    []Problem
	definitions map[string]string
	instance    string
	including   []string // files being read, the main one first
	includes    int
	lines       int
	halted      bool // a bound was passed; read no more
	// open are the blocks the parser is in, the file's top level first.
	open []*Node
	// last is, for each of open, the last statement if a `{` may still follow it.
	last []*Node
}

func newParser(opt Options) *parser {
	if opt.FS == nil {
		opt.FS = OS()
	}
	if opt.Env == nil {
		opt.Env = os.LookupEnv
	}
	return &parser{
		opt:         opt,
		tree:        &Tree{},
		definitions: map[string]string{},
		instance:    opt.Instance,
		open:        []*Node{{}},
		last:        []*Node{nil},
	}
}

func (p *parser) report(problem Problem) {
	switch {
	case len(p.problems) < maxProblems:
		p.problems = append(p.problems, problem)
	case !p.halted:
		p.halted = true
		p.problems = append(p.problems, Problem{Pos: problem.Pos, Message: "too many problems; the rest is not read"})
	}
}

// file parses one file in the current block.
func (p *parser) file(name string, data []byte) {
	if !slices.Contains(p.tree.Files, name) {
		p.tree.Files = append(p.tree.Files, name)
	}
	p.including = append(p.including, filepath.Clean(name))
	base := len(p.open)

	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	lines := bytes.Split(data, []byte("\n"))
	nul := false
	for i := 0; i < len(lines) && !p.halted; i++ {
		pos := Pos{File: name, Line: i + 1}
		text, continued := p.physical(lines[i], pos, &nul)
		if continued {
			if isDefinition(text) {
				for continued && i+1 < len(lines) {
					i++
					var next string
					next, continued = p.physical(lines[i], Pos{File: name, Line: i + 1}, &nul)
					text += "\n" + strings.Trim(next, blanks)
				}
			} else {
				p.warnf(pos, "a backslash at the end of the line has no meaning; only $NAME= definitions may go on in the next line")
			}
		}
		p.line(text, pos, base, 0)
	}

	for len(p.open) > base {
		node := p.open[len(p.open)-1]
		p.errorf(node.Pos, "the block that starts here has no closing }")
		p.pop(Pos{File: name, Line: len(lines)})
	}
	p.last[len(p.last)-1] = nil
	p.including = p.including[:len(p.including)-1]
}

// isDefinition reports whether a line is a definition, after any @id.
func isDefinition(line string) bool {
	line = strings.Trim(line, blanks)
	if strings.HasPrefix(line, "@") {
		if i := strings.IndexAny(line, blanks); i >= 0 {
			line = strings.Trim(line[i:], blanks)
		}
	}
	_, _, ok := matchDefinition(line)
	return ok
}

// physical checks one line as it stands in the file and removes its comment.
func (p *parser) physical(line []byte, pos Pos, nul *bool) (text string, continued bool) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	text, continued = uncomment(string(line))
	switch {
	case strings.Contains(text, "\x00"):
		if !*nul {
			p.errorf(pos, "the line contains a NUL byte; the file must be plain text (UTF-8, not UTF-16)")
		}
		*nul = true
		return "", false
	case len(text) > maxLineLength:
		p.errorf(pos, "line of %d bytes; at most %d are allowed", len(text), maxLineLength)
		return "", false
	}
	return text, continued
}

// line processes a line without comment: conditions, definitions, expansion,
// then statements. base is the number of open blocks at the file's start,
// depth the number of definitions of several lines it comes from.
func (p *parser) line(text string, pos Pos, base, depth int) {
	if p.lines++; p.lines > maxLines && !p.halted {
		p.errorf(pos, "more than %d lines, after expansion of definitions", maxLines)
		p.halted = true
	}
	text, use := p.conditional(strings.Trim(text, blanks), pos)
	if p.halted || !use || text == "" {
		return
	}
	if name, value, ok := matchDefinition(text); ok {
		p.definitions[name] = value
		return
	}
	lines, ok := p.expand(text, pos)
	if !ok {
		return
	}
	if len(lines) > 1 {
		if depth >= maxExpandDepth {
			p.errorf(pos, "definitions of several lines nested more than %d deep; does one contain itself?", maxExpandDepth)
			p.halted = true
			return
		}
		for _, l := range lines {
			p.line(l, pos, base, depth+1)
		}
		return
	}
	p.statements(strings.Trim(lines[0], blanks), pos, base)
}

// statements processes a line that is ready for the tree.
func (p *parser) statements(text string, pos Pos, base int) {
	if g := generator(text); g != "" {
		p.errorf(pos, "%s is not supported by this version; write the lines out", g)
		return
	}
	if r, meant, serious := lookAlike(text); r != 0 {
		p.report(Problem{
			Pos:     pos,
			Warning: !serious,
			Message: fmt.Sprintf("the character U+%04X looks like punctuation but is none; write %s", r, meant),
		})
	}
	if includeKeyword(text) != "" {
		p.include(text, pos)
		return
	}
	for _, f := range splitBraces(text) {
		switch f.kind {
		case fragmentOpen:
			p.openBlock(pos)
		case fragmentClose:
			if len(p.open) <= base {
				p.errorf(pos, "} without a block to close; is a { missing above?")
				continue
			}
			p.pop(pos)
		case fragmentText:
			if includeKeyword(f.text) != "" {
				p.include(f.text, pos)
			} else {
				p.statement(f.text, pos)
			}
		}
		if p.halted {
			return
		}
	}
}

func (p *parser) statement(text string, pos Pos) {
	words, terminated := splitWords(text, pos)
	if !terminated {
		p.errorf(pos, "missing closing double quote")
	}
	node := &Node{Pos: pos, Words: words, Raw: text}
	top := len(p.open) - 1
	p.open[top].Block = append(p.open[top].Block, node)
	p.last[top] = node
	if top == 0 {
		p.tree.Nodes = p.open[0].Block
		if node.Keyword() == "instance" && len(words) > 1 {
			p.instance = words[1].Text
		}
	}
}

func (p *parser) openBlock(pos Pos) {
	if len(p.open) > maxDepth {
		p.errorf(pos, "blocks nested more than %d deep", maxDepth)
		p.halted = true
		return
	}
	top := len(p.open) - 1
	node := p.last[top]
	p.last[top] = nil
	if node == nil {
		p.errorf(pos, "{ without a keyword before it")
		node = &Node{Pos: pos} // not part of the tree
	}
	node.HasBlock = true
	p.open = append(p.open, node)
	p.last = append(p.last, nil)
}

func (p *parser) pop(pos Pos) {
	top := len(p.open) - 1
	p.open[top].End = pos
	p.open, p.last = p.open[:top], p.last[:top]
}
