package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/raftvip/raftvip/internal/config"
)

// defaultPath is where bare command names are looked up if PATH is not set.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxSymlinks is the number of symbolic links followed in a path, as in the
// kernel (path_resolution(7)).
const maxSymlinks = 40

// LookupCommand returns the absolute path of the first word of a command: a bare
// name is looked up in PATH. It is an error if no executable file is there.
func LookupCommand(argv0 string) (string, error) {
	if argv0 == "" {
		return "", errors.New("empty command")
	}
	if strings.Contains(argv0, "/") {
		path, err := filepath.Abs(argv0)
		if err != nil {
			return "", err
		}
		return path, executable(path)
	}
	dirs, set := os.LookupEnv("PATH")
	if !set {
		dirs = defaultPath
	}
	var denied error
	for _, dir := range filepath.SplitList(dirs) {
		if !filepath.IsAbs(dir) {
			continue // a relative entry would depend on the working directory
		}
		path := filepath.Join(dir, argv0)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if denied == nil && !errors.Is(err, fs.ErrNotExist) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("%s: not found in PATH (%s)", argv0, dirs)
}

// executable returns an error if path is not a file that somebody may execute.
func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, reason(err))
	case st.IsDir():
		return fmt.Errorf("%s: is a directory", path)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%s: is not executable", path)
	}
	return nil
}

// reason strips the operation and the path from an error of package os.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// checkNamed is CheckScriptSecurity for the files and directories that a program of
// root's names: its interpreters and what is in its arguments. What does not exist, and
// what is no file, is not looked at.
func checkNamed(program string, args []string, uid int) error {
	if uid != 0 {
		return nil
	}
	for _, path := range config.NamedPaths(program, args, config.Head, LookupCommand) {
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() && !st.IsDir() {
			continue
		}
		if err := checkOwners(path); err != nil {
			return err
		}
	}
	return nil
}

// CheckScriptSecurity returns an error if the file at path, an absolute path, is
// run as root (uid 0, or the file is setuid root) and anybody but root could
// change it: the file and each directory on the way to it must be owned by root
// and not be writable for group or others. A directory that is writable but
// sticky passes, for there only root can replace what is root's. Symbolic links
// are followed, and what is on their way is checked as well.
// (keepalived.conf(5), enable_script_security.)
func CheckScriptSecurity(path string, uid int) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: is not an absolute path", path)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, reason(err))
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: is not a regular file", path)
	}
	if uid != 0 && (st.Mode()&fs.ModeSetuid == 0 || owner(st) != 0) {
		return nil
	}
	return checkOwners(path)
}

// checkOwners returns an error if anybody but root could change what is at path.
func checkOwners(path string) error {
	insecure := func(at, why string) error {
		if at != path {
			return fmt.Errorf("%s is insecure: %s %s", path, at, why)
		}
		return fmt.Errorf("%s is insecure: %s", path, why)
	}
	at, links := "/", 0
	todo := strings.Split(path, "/")
	for {
		st, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("%s: %w", at, reason(err))
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxSymlinks {
				return fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			target, err := os.Readlink(at)
			if err != nil {
				return fmt.Errorf("%s: %w", at, reason(err))
			}
			todo = append(strings.Split(target, "/"), todo...)
			at = filepath.Dir(at) // which has been checked
			if filepath.IsAbs(target) {
				at = "/"
			}
		} else {
			if owner(st) != 0 {
				return insecure(at, fmt.Sprintf("is owned by user %d, not by root", owner(st)))
			}
			sticky := st.IsDir() && st.Mode()&fs.ModeSticky != 0
			if st.Mode()&0o022 != 0 && !sticky {
				return insecure(at, fmt.Sprintf("is writable for group or others (mode %04o)", st.Mode().Perm()))
			}
		}
		for len(todo) > 0 && (todo[0] == "" || todo[0] == ".") {
			todo = todo[1:]
		}
		if len(todo) == 0 {
			return nil
		}
		at = filepath.Join(at, todo[0]) // also right for "..", as at has no links
		todo = todo[1:]
	}
}

// owner returns the user ID of the owner of a file.
func owner(st fs.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }
