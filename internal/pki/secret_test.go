package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fixedSecret is one whose derived values are known.
func fixedSecret(t *testing.T) Secret {
	t.Helper()
	s, err := ParseSecret(strings.Repeat("0123456789abcdef", 4))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecretsDiffer(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b || a == (Secret{}) {
		t.Error("not random")
	}
	if a.ClusterID() == b.ClusterID() {
		t.Error("two secrets, one cluster ID")
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := NewSecret()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		for _, v := range []any{s, &s, []Secret{s}, struct{ Secret Secret }{s}, fmt.Errorf("open: "+verb, s)} {
			got := strings.ToLower(fmt.Sprintf(verb, v))
			if strings.Contains(got, s.Text()[:8]) || strings.Contains(got, fmt.Sprint(s.key[:3])[1:]) {
				t.Errorf("%s of %T shows the secret", verb, v)
			}
		}
	}
	if got := fmt.Sprint(s); got != "[secret]" {
		t.Errorf("prints %q", got)
	}
	if b, err := json.Marshal(map[string]any{"secret": s}); err != nil || string(b) != `{"secret":{}}` {
		t.Errorf("as JSON: %s, %v", b, err)
	}
}

func TestParseSecret(t *testing.T) {
	text := fixedSecret(t).Text()
	if len(text) != 64 {
		t.Fatalf("%d digits, want 64", len(text))
	}
	for name, in := range map[string]string{
		"as written":    text,
		"newline":       text + "\n",
		"windows":       text + "\r\n",
		"spaces around": "\t " + text + " \n\n",
		"upper case":    strings.ToUpper(text),
	} {
		s, err := ParseSecret(in)
		if err != nil || s.Text() != text {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string]string{
		"empty":         "",
		"white space":   " \n",
		"one short":     text[:63],
		"two short":     text[:62],
		"one too many":  text + "0",
		"two too many":  text + "00",
		"not hex":       "g" + text[1:],
		"space inside":  text[:32] + " " + text[32:],
		"two lines":     text + "\n" + text,
		"with 0x":       "0x" + text[2:],
		"raw bytes":     strings.Repeat("\xab", 32),
		"NUL inside":    text[:30] + "\x00\x00" + text[32:],
		"base64":        "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8=",
		"digits of two": strings.Repeat("٣", 64),
	} {
		s, err := ParseSecret(in)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if s != (Secret{}) {
			t.Errorf("%s: refused, and yet a secret", name)
		}
		if err.Error() != "not a cluster secret: must be 64 hexadecimal digits" {
			t.Errorf("%s: %q", name, err)
		}
	}
}

func TestSecretFile(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the mode must not depend on it
	path := filepath.Join(t.TempDir(), "secret")
	s := NewSecret()
	if err := WriteSecretFile(path, s); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if got, err := ReadSecretFile(path); err != nil || got != s {
		t.Errorf("read back: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != s.Text()+"\n" {
		t.Errorf("%d bytes, want 64 digits and a newline", len(b))
	}

	if err := WriteSecretFile(path, NewSecret()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v", err)
	}
	if got, err := ReadSecretFile(path); err != nil || got != s {
		t.Errorf("the refused write changed the file: %v", err)
	}
	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path+".elsewhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecretFile(dangling, s); !errors.Is(err, fs.ErrExist) {
		t.Errorf("through a link to nowhere: %v", err)
	}
	if err := WriteSecretFile(filepath.Join(path, "below"), s); err == nil || !strings.HasPrefix(err.Error(), "write cluster secret: ") {
		t.Errorf("below a file: %v", err)
	}
}

func TestSecretFilePermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	s := NewSecret()
	if err := WriteSecretFile(path, s); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecretFile(path); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	// Each bit that belongs to others, and the usual mistakes.
	for _, mode := range []fs.FileMode{0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o644, 0o660, 0o666, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSecretFile(path)
		if !errors.Is(err, ErrOpenPermissions) {
			t.Errorf("mode %04o: %v", mode, err)
			continue
		}
		if got := err.Error(); !strings.Contains(got, path) || !strings.Contains(got, fmt.Sprintf("%04o", mode)) {
			t.Errorf("mode %04o: %q names neither file nor mode", mode, got)
		}
	}
	// A link is as open as what it points to.
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecretFile(link); !errors.Is(err, ErrOpenPermissions) {
		t.Errorf("through a link: %v", err)
	}
}

func TestBadSecretFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadSecretFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecretFile(dir); err == nil {
		t.Error("a folder was read")
	}
	const almost = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"
	path := filepath.Join(dir, "short")
	if err := os.WriteFile(path, []byte(almost), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadSecretFile(path)
	if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), almost[:8]) {
		t.Errorf("cut off: %v", err)
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(strings.Repeat("0f", 32))
	f.Add(strings.Repeat("F0", 32) + "\n")
	f.Add("")
	f.Add(strings.Repeat("0", 63) + "x")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err != nil {
			if err.Error() != "not a cluster secret: must be 64 hexadecimal digits" {
				t.Errorf("error %q depends on the text", err)
			}
			return
		}
		if s.Text() != strings.ToLower(strings.TrimSpace(text)) {
			t.Error("is read as something else")
		}
		if again, err := ParseSecret(s.Text()); err != nil || again != s {
			t.Errorf("does not come back: %v", err)
		}
	})
}
