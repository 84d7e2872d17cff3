package config_test

import (
	"errors"
	"io/fs"
	"testing/fstest"

	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/keepalived"
)

// machine returns the options of an imaginary machine lb1: interfaces eth0 and
// eth1, users root, nobody and haproxy, and the files below.
func machine() config.Options {
	const dir, link = fs.ModeDir | 0o755, fs.ModeSymlink | 0o777
	files := map[string]config.FileStat{
		"/":                     {Mode: dir},
		"/bin":                  {Mode: link, Target: "usr/bin"},
		"/usr":                  {Mode: dir},
		"/usr/bin":              {Mode: dir},
		"/usr/bin/pgrep":        {Mode: 0o755},
		"/usr/bin/pkill":        {Mode: 0o755},
		"/usr/bin/plain":        {Mode: 0o644},
		"/usr/bin/suid":         {Mode: 0o755 | fs.ModeSetuid},
		"/usr/bin/up":           {Mode: link, Target: "../../opt/check"},
		"/usr/bin/loop":         {Mode: link, Target: "loop"},
		"/usr/bin/dangling":     {Mode: link, Target: "/nothing"},
		"/opt":                  {Mode: dir},
		"/opt/check":            {Mode: 0o755},
		"/opt/writable":         {Mode: 0o775},
		"/tmp":                  {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"/tmp/check":            {Mode: 0o755},
		"/opt/by-env":           {Mode: 0o755},
		"/opt/by-home":          {Mode: 0o755},
		"/usr/bin/sh":           {Mode: 0o755},
		"/usr/bin/env":          {Mode: 0o755},
		"/usr/bin/open":         {Mode: 0o777},
		"/home/user/sock":       {Mode: fs.ModeSocket | 0o777, UID: 1000},
		"/home":                 {Mode: dir},
		"/home/user":            {Mode: dir, UID: 1000},
		"/home/user/check":      {Mode: 0o755},
		"/usr/bin/link-to-home": {Mode: link, Target: "/home/user/check"},
	}
	ids := func(known map[string]uint32) func(string) (uint32, error) {
		return func(name string) (uint32, error) {
			if id, ok := known[name]; ok {
				return id, nil
			}
			return 0, errors.New("unknown")
		}
	}
	return config.Options{
		HostName: "lb1.example.net",
		FS:       keepalived.Rooted(fstest.MapFS{}),
		Env:      func(string) (string, bool) { return "", false },
		LookPath: func(name string) (string, error) {
			if _, ok := files["/usr/bin/"+name]; ok {
				return "/usr/bin/" + name, nil
			}
			return "", errors.New("not found")
		},
		Lstat: func(path string) (config.FileStat, error) {
			if st, ok := files[path]; ok {
				return st, nil
			}
			return config.FileStat{}, fs.ErrNotExist
		},
		Head: func(path string) ([]byte, error) {
			return []byte(map[string]string{
				"/opt/check": "#! /bin/sh -e\nexit 0\n", "/opt/by-env": "#!/usr/bin/env -S X=1 open\n", "/opt/by-home": "#!/home/user/check\n",
			}[path]), nil
		},
		InterfaceExists: func(name string) bool { return name == "eth0" || name == "eth1" },
		LookupUser:      ids(map[string]uint32{"root": 0, "0": 0, "nobody": 65534, "haproxy": 99}),
		LookupGroup:     ids(map[string]uint32{"root": 0, "haproxy": 99}),
	}
}
