package config

import (
	"strings"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// scriptBlock is a script with what is needed until all blocks are read.
type scriptBlock struct {
	*Script
	seq     int // its place in the order of statements
	command *keepalived.Node
	user    *keepalived.Node
	used    bool
}

func (l *loader) vrrpScript(n *keepalived.Node) {
	name, ok := l.name(n)
	if !ok {
		return
	}
	if first, ok := l.scripts[name]; ok {
		l.errorf(n.Pos, "vrrp_script %s: defined before, at %s; names must be unique", shorten(name), first.Pos)
		return
	}
	s := &scriptBlock{
		Script: &Script{Pos: n.Pos, Name: name, Interval: defaultScriptInterval, Rise: 1, Fall: 1},
		seq:    l.seq,
	}
	timeoutWritten := false
	l.statements(ctxScript, n.Block, map[string]statement{
		"script": {read: func(n *keepalived.Node) {
			s.command = n
			s.Argv = l.command(n)
		}},
		"interval": {read: l.setSeconds(&s.Interval, "0.001", "4294")},
		"timeout": {read: func(n *keepalived.Node) {
			timeoutWritten = true
			l.setSeconds(&s.Timeout, "0.001", "4294")(n)
		}},
		"weight": {read: func(n *keepalived.Node) {
			args := n.Args()
			if len(args) == 0 {
				l.errorf(n.Pos, "weight: missing value; must be a whole number between -253 and 253, and reverse if wanted")
				return
			}
			if v, ok := l.integerWord(n.Pos, "weight", args[0].Text, -253, 253); ok {
				s.Weight = v
			}
			if len(args) > 1 {
				if s.Reverse = args[1].Text == "reverse"; !s.Reverse && args[1].Text != "noreverse" {
					l.errorf(n.Pos, "weight: unknown word %s; only reverse or noreverse may follow the number", display(args[1].Text))
				}
				l.noMore(n, 2)
			}
		}},
		"rise": {read: func(n *keepalived.Node) {
			if v, ok := l.integer(n, 1, 1000000); ok {
				s.Rise = v
			}
		}},
		"fall": {read: func(n *keepalived.Node) {
			if v, ok := l.integer(n, 1, 1000000); ok {
				s.Fall = v
			}
		}},
		"user": {read: func(n *keepalived.Node) {
			if user, group, ok := l.userAndGroup(n); ok {
				s.User, s.Group, s.user = user, group, n
			}
		}},
	})
	if !timeoutWritten {
		s.Timeout = s.Interval
	}
	if s.command == nil {
		l.errorf(n.Pos, `vrrp_script %s: no script; a line script "COMMAND" is required`, shorten(name))
	}
	l.scripts[name] = s
	l.cfg.Scripts = append(l.cfg.Scripts, s.Script)
}

// command reads the command of a script line. Arguments are never shown in
// messages: they may hold passwords.
func (l *loader) command(n *keepalived.Node) []string {
	keyword := n.Keyword()
	words, err := keepalived.SplitCommand(n.Raw)
	if err != nil {
		l.errorf(n.Pos, "%s: %v", keyword, err)
		return nil
	}
	if len(words) < 2 || strings.TrimSpace(words[1]) == "" {
		l.errorf(n.Pos, `%s: missing command; must be a command in double quotes`, keyword)
		return nil
	}
	if len(words) > 2 {
		l.errorf(n.Pos, `%s: more than one word; a command with arguments must be in double quotes as a whole (keepalived would run it without the arguments)`, keyword)
		return nil
	}
	argv, err := keepalived.SplitCommand(words[1])
	switch {
	case err != nil:
		l.errorf(n.Pos, "%s: in the command: %v", keyword, err)
		return nil
	case len(argv) == 0 || argv[0] == "":
		l.errorf(n.Pos, `%s: missing command; must be a command in double quotes`, keyword)
		return nil
	case strings.HasPrefix(argv[0], "<"):
		l.errorf(n.Pos, `%s: a file to open (<PATH) is not supported by this version; use "/usr/bin/test -r PATH"`, keyword)
		return nil
	case strings.Contains(argv[0], "/") && !strings.HasPrefix(argv[0], "/"):
		l.errorf(n.Pos, "%s %s: must be an absolute path, or a bare name that is found in PATH", keyword, shorten(argv[0]))
		return nil
	}
	return argv
}

// userAndGroup reads USER [GROUP].
func (l *loader) userAndGroup(n *keepalived.Node) (user, group string, ok bool) {
	args := n.Args()
	if len(args) == 0 || args[0].Text == "" {
		l.errorf(n.Pos, "%s: missing value; must be a user, and a group if wanted", n.Keyword())
		return "", "", false
	}
	l.noMore(n, 2)
	user = args[0].Text
	if l.opt.LookupUser != nil {
		if _, err := l.opt.LookupUser(user); err != nil {
			l.errorf(n.Pos, "%s %s: no such user", n.Keyword(), shorten(user))
			return "", "", false
		}
	}
	if len(args) > 1 {
		group = args[1].Text
		if l.opt.LookupGroup != nil {
			if _, err := l.opt.LookupGroup(group); err != nil {
				l.errorf(n.Pos, "%s %s %s: no such group", n.Keyword(), shorten(user), shorten(group))
				return "", "", false
			}
		}
	}
	return user, group, true
}
