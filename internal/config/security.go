package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// A FileStat is what the checks of scripts need to know of a file.
type FileStat struct {
	Mode   fs.FileMode
	UID    uint32
	Target string // of a symbolic link
}

// defaultScriptUser is the user that scripts run as if none is named and the
// user exists (keepalived.conf(5), script_user).
const defaultScriptUser = "keepalived_script"

// checkScript checks that a script can run, and that it is safe to if
// enable_script_security is set. It is called for scripts in use only.
func (l *loader) checkScript(s *scriptBlock) {
	if len(s.Argv) == 0 {
		return
	}
	pos, path := s.command.Pos, s.Argv[0]
	if !strings.Contains(path, "/") {
		if l.opt.LookPath == nil {
			return
		}
		found, err := l.opt.LookPath(path)
		if err != nil {
			l.errorf(pos, "script %s: command not found in PATH; must exist and be executable", shorten(path))
			return
		}
		path = found
	}
	root, ok := l.runsAsRoot(s)
	if !ok || l.opt.Lstat == nil {
		return
	}
	final, unsafe, err := l.walk(path)
	switch {
	case err != nil:
		l.errorf(pos, "script %s: %v; must exist and be executable", shorten(path), err)
	case !final.Mode.IsRegular():
		l.errorf(pos, "script %s: not a regular file; must be an executable file", shorten(path))
	case final.Mode&0o111 == 0:
		l.errorf(pos, "script %s: not executable; must have an execute permission", shorten(path))
	case root || final.Mode&fs.ModeSetuid != 0 && final.UID == 0:
		if unsafe == "" && root {
			unsafe = l.unsafeNamed(path, s.Argv[1:])
		}
		switch {
		case unsafe == "":
		case l.cfg.Global.EnableScriptSecurity:
			l.errorf(pos, "script %s: refused by enable_script_security: %s; every part of the path must be owned by root and not writable by group or others", shorten(path), unsafe)
		default:
			l.warnf(pos, "script %s runs as root, and others can change what it does: %s; run it as another user (user, script_user) or take their permission away", shorten(path), unsafe)
		}
	}
}

// unsafeNamed returns what others than root could change of the files and directories
// that a program of root's names, or "". What does not exist, and what is no file, such
// as a socket or a device, is not looked at.
func (l *loader) unsafeNamed(program string, args []string) string {
	for _, path := range NamedPaths(program, args, l.opt.Head, l.opt.LookPath) {
		final, unsafe, err := l.walk(path)
		if err == nil && unsafe != "" && (final.Mode.IsRegular() || final.Mode.IsDir()) {
			return unsafe
		}
	}
	return ""
}

// maxInterpreters is how many scripts may interpret one another, as in the kernel
// (execve(2)).
const maxInterpreters = 4

// NamedPaths returns the absolute paths that a command names beside its program: the
// interpreters of the program, their arguments, and what looks like a path in its own
// arguments, such as the script in "/bin/sh /etc/check.sh" or in sh -c "/etc/check.sh 1".
// Whoever can change one of these files decides what the command does. head returns the
// first bytes of a file and lookPath finds a command in PATH; either may be nil.
func NamedPaths(program string, args []string, head func(string) ([]byte, error), lookPath func(string) (string, error)) []string {
	var paths []string
	for range maxInterpreters {
		if head == nil {
			break
		}
		first, err := head(program)
		line, found := strings.CutPrefix(string(first), "#!")
		if err != nil || !found {
			break
		}
		line, _, _ = strings.Cut(line, "\n")
		words := strings.Fields(line)
		if len(words) == 0 {
			break
		}
		program = words[0]
		paths = append(paths, program)
		for _, word := range words[1:] {
			paths = append(paths, pathsIn(word)...)
			// The first that is neither an option nor a variable is env's command.
			if filepath.Base(words[0]) == "env" && lookPath != nil && !strings.ContainsAny(word, "-=/") {
				if found, err := lookPath(word); err == nil {
					program = found
					paths = append(paths, found)
				}
				break
			}
		}
	}
	for _, arg := range args {
		paths = append(paths, pathsIn(arg)...)
	}
	return paths
}

// pathsIn returns what looks like an absolute path in one argument.
func pathsIn(arg string) []string {
	var paths []string
	for _, word := range append(strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(" \t\n\"'`;|&()<>=$,", r) }), arg) {
		if filepath.IsAbs(word) && !slices.Contains(paths, word) {
			paths = append(paths, word)
		}
	}
	return paths
}

// runsAsRoot tells who a script runs as. ok is false if that is not known or an
// error was reported.
func (l *loader) runsAsRoot(s *scriptBlock) (root, ok bool) {
	user := s.User
	if user == "" {
		user = l.cfg.Global.ScriptUser
	}
	if l.opt.LookupUser == nil {
		return user == "" || user == "root" || user == "0", true
	}
	if user == "" {
		if _, err := l.opt.LookupUser(defaultScriptUser); err == nil {
			return false, true
		}
		if l.cfg.Global.EnableScriptSecurity {
			l.errorf(s.command.Pos, "script %s: no user to run as: enable_script_security forbids to fall back to root, and there is no user %s; script_user or user must name one", shorten(s.Argv[0]), defaultScriptUser)
			return false, false
		}
		return true, true
	}
	uid, err := l.opt.LookupUser(user)
	if err != nil {
		return false, false // reported where the user is named
	}
	return uid == 0, true
}

// walk follows an absolute path from the root, through symbolic links, and
// returns the file at its end and the first part that others than root could
// change. A directory with the sticky bit is safe: others cannot replace what
// is in it.
func (l *loader) walk(path string) (final FileStat, unsafe string, err error) {
	const maxLinks = 40
	links := 0
	at := "/"
	parts := append([]string{""}, split(path)...)
	for len(parts) > 0 {
		next := filepath.Join(at, parts[0])
		parts = parts[1:]
		st, err := l.opt.Lstat(next)
		if err != nil {
			return FileStat{}, "", fmt.Errorf("%s does not exist or cannot be examined", shorten(next))
		}
		link := st.Mode&fs.ModeSymlink != 0
		if unsafe == "" {
			switch {
			case st.UID != 0:
				unsafe = next + " is not owned by root"
			case !link && st.Mode&0o022 != 0 && (!st.Mode.IsDir() || st.Mode&fs.ModeSticky == 0):
				unsafe = next + " is writable by group or others"
			}
		}
		if link {
			if links++; links > maxLinks {
				return FileStat{}, "", fmt.Errorf("%s: too many symbolic links", shorten(path))
			}
			if filepath.IsAbs(st.Target) {
				at = "/"
			}
			parts = append(split(st.Target), parts...)
			continue
		}
		if len(parts) > 0 && !st.Mode.IsDir() {
			return FileStat{}, "", fmt.Errorf("%s is not a directory", shorten(next))
		}
		at, final = next, st
	}
	return final, unsafe, nil
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}
