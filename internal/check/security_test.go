package check

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errorHas checks that err is nil for an empty want, and else contains it.
func errorHas(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %q, want none", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, want one with %q", err, want)
	}
}

func TestCheckScriptSecurity(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		return write(t, filepath.Join(dir, name), "#!/bin/sh\n", mode)
	}
	link := func(name, target string) string {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.Symlink(target, p))
		return p
	}
	safe := file("safe/ok.sh", 0o755)
	open := file("open/ok.sh", 0o755)
	must(t, os.Chmod(filepath.Dir(open), 0o777))
	sticky := file("sticky/ok.sh", 0o755)
	must(t, os.Chmod(filepath.Dir(sticky), 0o777|os.ModeSticky))
	foreign := file("foreign/ok.sh", 0o755)
	must(t, os.Chown(foreign, 65534, -1))
	foreignDir := file("foreigndir/ok.sh", 0o755)
	must(t, os.Chown(filepath.Dir(foreignDir), 65534, -1))
	setuid := file("open/setuid", 0o755|os.ModeSetuid)

	for _, tt := range []struct {
		name string
		path string
		uid  int
		want string
	}{
		{"owned by root, not writable", safe, 0, ""},
		{"file writable for group", file("safe/g.sh", 0o775), 0, "is insecure: is writable for group or others (mode 0775)"},
		{"file writable for others", file("safe/o.sh", 0o757), 0, "mode 0757"},
		{"directory writable", open, 0, filepath.Dir(open) + " is writable for group or others (mode 0777)"},
		{"sticky directory passes", sticky, 0, ""},
		{"sticky does not help a file", file("safe/t.sh", 0o777|os.ModeSticky), 0, "is writable"},
		{"file of another user", foreign, 0, "is owned by user 65534, not by root"},
		{"directory of another user", foreignDir, 0, filepath.Dir(foreignDir) + " is owned by user 65534"},
		{"not run as root", open, 65534, ""},
		{"setuid root counts as run as root", setuid, 65534, "is writable for group or others"},
		{"missing", filepath.Join(dir, "none"), 0, "no such file or directory"},
		{"directory", dir, 0, "is not a regular file"},
		{"relative", "ok.sh", 0, "is not an absolute path"},
		{"a link is followed", link("links/a", safe), 0, ""},
		{"relative link, with ..", link("links/b", "../safe/./ok.sh"), 0, ""},
		{"what the link leads through is checked", link("links/c", open), 0, filepath.Dir(open) + " is writable"},
		{"a link in an open directory", link("open/d", safe), 0, filepath.Dir(open) + " is writable"},
		{"a linked directory on the way", link("links/e", filepath.Dir(safe)) + "/ok.sh", 0, ""},
		{"a loop", link("links/f", "f"), 0, "too many"},
		{"merged /usr: /bin/sh is fine", "/bin/sh", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { errorHas(t, CheckScriptSecurity(tt.path, tt.uid), tt.want) })
	}
}

func TestLookupCommand(t *testing.T) {
	dir := t.TempDir()
	cmd := write(t, filepath.Join(dir, "bin/cmd"), "", 0o755)
	plain := write(t, filepath.Join(dir, "bin/plain"), "", 0o644)
	second := write(t, filepath.Join(dir, "second/plain"), "", 0o755)
	t.Setenv("PATH", strings.Join([]string{".", filepath.Join(dir, "none"), filepath.Join(dir, "bin"), filepath.Join(dir, "second")}, ":"))
	for _, tt := range []struct{ name, argv0, want, err string }{
		{"absolute", cmd, cmd, ""},
		{"bare name", "cmd", cmd, ""},
		{"bare name, the first executable one", "plain", second, ""},
		{"unknown bare name", "nothing", "", "nothing: not found in PATH"},
		{"not executable", plain, plain, "is not executable"},
		{"directory", dir, dir, "is a directory"},
		{"missing", dir + "/none", dir + "/none", "no such file or directory"},
		{"empty", "", "", "empty command"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := LookupCommand(tt.argv0)
			errorHas(t, err, tt.err)
			if got != tt.want {
				t.Errorf("path %q, want %q", got, tt.want)
			}
		})
	}
	must(t, os.Unsetenv("PATH"))
	if got, err := LookupCommand("sh"); err != nil || !strings.HasSuffix(got, "/sh") {
		t.Errorf("without PATH: %q, %v", got, err)
	}
}

func TestScriptIdentity(t *testing.T) {
	me, err := user.Current()
	must(t, err)
	for _, tt := range []struct {
		name   string
		script config.Script
		global config.Global
		uid    string
		err    string
	}{
		{name: "the script's user", script: config.Script{User: "nobody"}, global: config.Global{ScriptUser: "root"}, uid: "65534"},
		{name: "by number", script: config.Script{User: "65534"}, uid: "65534"},
		{name: "script_user", global: config.Global{ScriptUser: "nobody"}, uid: "65534"},
		{name: "the daemon's own", uid: me.Uid},
		{name: "unknown user", script: config.Script{User: "no-such-user"}, err: "look up user no-such-user: user: unknown user"},
		{name: "unknown group", script: config.Script{User: "nobody", Group: "no-such-group"}, err: "look up group no-such-group: group: unknown group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := ScriptIdentity(&tt.script, tt.global)
			errorHas(t, err, tt.err)
			if err == nil && strconv.Itoa(id.UID) != tt.uid {
				t.Errorf("identity %+v, want uid %s", id, tt.uid)
			}
		})
	}
	if _, err := user.Lookup(defaultUser); err != nil && os.Geteuid() == 0 {
		_, err := ScriptIdentity(&config.Script{}, config.Global{EnableScriptSecurity: true})
		errorHas(t, err, "enable_script_security is set")
	}
}
