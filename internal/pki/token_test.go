package pki

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func newAuthority(t *testing.T, s Secret) *Authority {
	t.Helper()
	a, err := NewAuthority(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestToken(t *testing.T) {
	a := newAuthority(t, NewSecret())
	token, other := NewToken(a), NewToken(a)
	if token.ID == other.ID || token.Proof() == other.Proof() {
		t.Error("not random")
	}
	if token.Pin != a.Pin() {
		t.Error("does not pin the authority")
	}
	text := token.Text()
	if !regexp.MustCompile(`^rvt1\.[A-Za-z0-9_-]{71}$`).MatchString(text) {
		t.Errorf("not safe to paste: %q", text)
	}
	for _, in := range []string{text, text + "\n", "  " + text + "\r\n"} {
		if got, err := ParseToken(in); err != nil || got != token {
			t.Errorf("parsed as %v, %v", got, err)
		}
	}
	if !ProofMatches(token.Proof(), token.Hash()) {
		t.Error("its own proof does not match")
	}
	for _, proof := range []string{"", other.Proof(), token.Proof() + "0", strings.ToUpper(token.Proof() + "a"), token.Hash(), token.ID} {
		if ProofMatches(proof, token.Hash()) {
			t.Errorf("proof %q matches", proof)
		}
	}
	if ProofMatches(token.Proof(), "") || ProofMatches("", "") {
		t.Error("an empty hash matches")
	}
	if strings.Contains(token.Hash(), token.Proof()) {
		t.Error("what the cluster keeps shows the proof")
	}
}

func TestTokenSecretIsNeverPrinted(t *testing.T) {
	token := NewToken(newAuthority(t, NewSecret()))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{token, &token, []Token{token}, struct{ Token Token }{token}} {
			got := strings.ToLower(fmt.Sprintf(verb, v))
			if strings.Contains(got, token.Proof()[:8]) || strings.Contains(got, fmt.Sprint(token.secret[:3])[1:]) {
				t.Errorf("%s of %T shows the secret", verb, v)
			}
			if !strings.Contains(got, token.ID) {
				t.Errorf("%s of %T does not say which token: %s", verb, v, got)
			}
		}
	}
}

func TestBadToken(t *testing.T) {
	text := NewToken(newAuthority(t, NewSecret())).Text()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, tokenPrefix))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{
		"empty":             "",
		"white space":       " \n",
		"prefix alone":      tokenPrefix,
		"no prefix":         strings.TrimPrefix(text, tokenPrefix),
		"later version":     "rvt2." + strings.TrimPrefix(text, tokenPrefix),
		"upper case prefix": strings.ToUpper(tokenPrefix) + strings.TrimPrefix(text, tokenPrefix),
		"cut off":           text[:len(text)-1],
		"half":              text[:len(text)/2],
		"one too many":      text + "A",
		"padded":            text + "=",
		"two":               text + text,
		"space inside":      text[:20] + " " + text[20:],
		"other alphabet":    text[:20] + "+" + text[21:],
		"quoted":            `"` + text + `"`,
		"hexadecimal":       tokenPrefix + hex.EncodeToString(raw),
		"control character": text[:20] + "\x1b" + text[21:],
	} {
		got, err := ParseToken(in)
		if !errors.Is(err, ErrNotToken) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got != (Token{}) {
			t.Errorf("%s: refused, and yet a token", name)
		}
		checkEcho(t, in, err)
	}
}

// checkEcho fails if an error shows a part of a secret text.
func checkEcho(t *testing.T, text string, err error) {
	t.Helper()
	allowed := fmt.Sprintf("%v: it must begin with %q / it is cut off or mistyped", ErrNotToken, tokenPrefix)
	const part = 6
	for i := 0; i+part <= len(text); i++ {
		if p := text[i : i+part]; strings.Contains(err.Error(), p) && !strings.Contains(allowed, p) {
			t.Fatalf("error %q shows %q of the text", err, p)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	a, err := NewAuthority(Secret{})
	if err != nil {
		f.Fatal(err)
	}
	text := NewToken(a).Text()
	f.Add(text)
	f.Add(text[:40] + "\n" + text[40:])
	f.Add(text[:len(text)-1] + "_")
	f.Add(tokenPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrNotToken) {
				t.Errorf("error %v", err)
			}
			checkEcho(t, text, err)
			return
		}
		again, err := ParseToken(token.Text())
		if err != nil || again != token {
			t.Errorf("does not come back: %v", err)
		}
		if !ProofMatches(token.Proof(), token.Hash()) {
			t.Error("its own proof does not match")
		}
	})
}
