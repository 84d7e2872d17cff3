package config

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// System returns opt with all hooks set to check against this machine.
func System(opt Options) Options {
	opt.LookPath = exec.LookPath
	opt.Lstat = lstat
	opt.Head = Head
	opt.InterfaceExists = func(name string) bool {
		_, err := net.InterfaceByName(name)
		return err == nil
	}
	opt.LookupUser = func(name string) (uint32, error) {
		return lookupID(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
	}
	opt.LookupGroup = func(name string) (uint32, error) {
		return lookupID(name, func() (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	return opt
}

// lookupID returns a numeric name as it is, else the id that lookup finds.
func lookupID(name string, lookup func() (string, error)) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	s, err := lookup()
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("id of %s: %w", name, err)
	}
	return uint32(id), nil
}

// Head returns the first bytes of a regular file, up to 256.
func Head(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 256))
}

func lstat(path string) (FileStat, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return FileStat{}, err
	}
	st := FileStat{Mode: info.Mode(), UID: ownerUID(info)}
	if info.Mode()&os.ModeSymlink != 0 {
		if st.Target, err = os.Readlink(path); err != nil {
			return FileStat{}, err
		}
	}
	return st, nil
}
