package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	tokenPrefix     = "rvt1."
	tokenIDSize     = 5
	tokenSecretSize = 16
)

// A Token is a join token: it names itself, proves itself by a secret of its
// own, and pins the authority of the cluster that made it.
type Token struct {
	ID     string // 10 hexadecimal digits
	secret [tokenSecretSize]byte
	Pin    Pin
}

// ErrNotToken is returned for text that is not a join token.
var ErrNotToken = errors.New("not a raftvip join token")

// NewToken returns a random token for the authority's cluster.
func NewToken(a *Authority) Token {
	var id [tokenIDSize]byte
	t := Token{Pin: a.pin}
	rand.Read(id[:])
	rand.Read(t.secret[:])
	t.ID = hex.EncodeToString(id[:])
	return t
}

// Text is the token as the operator sees it.
func (t Token) Text() string {
	id, _ := hex.DecodeString(t.ID)
	b := append(append(append([]byte{}, id...), t.secret[:]...), t.Pin[:]...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// Format prints the token's name only, so that no log line can hold its secret.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[token %s]", t.ID) }

// ParseToken reads the text form. Errors match ErrNotToken and never contain the text.
func ParseToken(text string) (Token, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("%w: it must begin with %q", ErrNotToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(b) != tokenIDSize+tokenSecretSize+len(Pin{}) {
		return Token{}, fmt.Errorf("%w: it is cut off or mistyped", ErrNotToken)
	}
	t := Token{ID: hex.EncodeToString(b[:tokenIDSize])}
	copy(t.secret[:], b[tokenIDSize:])
	copy(t.Pin[:], b[tokenIDSize+tokenSecretSize:])
	return t, nil
}

// Proof is what a newcomer sends to show that it holds the token.
func (t Token) Proof() string { return hex.EncodeToString(t.secret[:]) }

// Hash is what the cluster keeps of the token.
func (t Token) Hash() string { return hashProof(t.Proof()) }

// ProofMatches tells whether a proof belongs to the token with this hash.
func ProofMatches(proof, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(hashProof(proof)), []byte(hash)) == 1
}

func hashProof(proof string) string {
	h := sha256.Sum256([]byte("raftvip join token v1 " + proof))
	return hex.EncodeToString(h[:])
}
