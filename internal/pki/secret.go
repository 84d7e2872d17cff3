package pki

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

// SecretSize is the size of a cluster secret in bytes.
const SecretSize = 32

// A Secret is the cluster secret. It has no String method on purpose: printing
// one shows nothing.
type Secret struct {
	key [SecretSize]byte
}

// NewSecret returns a random secret.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.key[:]) // never fails: crypto/rand.Read
	return s
}

// Format prints a placeholder, so that no log line or error can hold the secret.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[secret]") }

// Text is the secret as it stands in a secret file: 64 hexadecimal digits.
func (s Secret) Text() string { return hex.EncodeToString(s.key[:]) }

// ParseSecret reads the text form; white space around it is ignored.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	b, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != SecretSize {
		return Secret{}, fmt.Errorf("not a cluster secret: must be %d hexadecimal digits", 2*SecretSize)
	}
	copy(s.key[:], b)
	return s, nil
}

// ErrOpenPermissions is returned for a secret file that others may read.
var ErrOpenPermissions = errors.New("the file may be read by others than its owner")

// ReadSecretFile reads a secret file, which only its owner may read.
func ReadSecretFile(path string) (Secret, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read cluster secret: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Secret{}, fmt.Errorf("read cluster secret %s (mode %04o): %w", path, info.Mode().Perm(), ErrOpenPermissions)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read cluster secret: %w", err)
	}
	s, err := ParseSecret(string(b))
	if err != nil {
		return Secret{}, fmt.Errorf("read cluster secret %s: %w", path, err)
	}
	return s, nil
}

// WriteSecretFile makes a new secret file, readable by its owner only. It fails
// with an error matching fs.ErrExist if the file is there already.
func WriteSecretFile(path string, s Secret) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write cluster secret: %w", err)
	}
	if _, err := f.WriteString(s.Text() + "\n"); err != nil {
		f.Close()
		return fmt.Errorf("write cluster secret: %w", err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return fmt.Errorf("write cluster secret: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write cluster secret: %w", err)
	}
	return nil
}

// derive returns n bytes that belong to the secret and to purpose (RFC 5869).
func (s Secret) derive(purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, s.key[:], nil, "raftvip "+purpose+" v1", n)
	if err != nil {
		// Only a length over 255 hashes can fail.
		panic("pki: " + err.Error())
	}
	return b
}

// ClusterID names the cluster that has this secret: 16 hexadecimal digits that
// tell nothing about the secret.
func (s Secret) ClusterID() string { return hex.EncodeToString(s.derive("cluster id", 8)) }
