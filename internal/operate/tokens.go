package operate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/pki"
)

// Limits of join tokens.
const (
	MaxTokenTTL  = 30 * 24 * time.Hour
	MaxTokenUses = 100
)

func (srv *Server) tokenCreate(ctx context.Context, in api.TokenRequest) (api.Token, error) {
	if in.TTL <= 0 || in.TTL > MaxTokenTTL {
		return api.Token{}, state.Refuse(state.CodeBadRequest, "give it with --ttl, such as --ttl 1h", "token lifetime %s: must be over 0 and at most %s", in.TTL, MaxTokenTTL)
	}
	if in.Uses < 1 || in.Uses > MaxTokenUses {
		return api.Token{}, state.Refuse(state.CodeBadRequest, "give them with --uses", "token uses %d: must be 1 to %d", in.Uses, MaxTokenUses)
	}
	token, record, err := srv.newToken(in)
	if err != nil {
		return api.Token{}, err
	}
	if err := srv.Node.Apply(ctx, state.Command{PutToken: &record}); err != nil {
		return api.Token{}, err
	}
	return api.Token{
		ID: token.ID, Text: token.Text(), Expires: record.Expires, Uses: record.Uses,
		Join: JoinCommand(srv.Node.Advertise(), token.Text()),
	}, nil
}

func (srv *Server) newToken(in api.TokenRequest) (pki.Token, state.TokenRecord, error) {
	secret, err := srv.Data.Secret()
	if err != nil {
		return pki.Token{}, state.TokenRecord{}, err
	}
	return NewToken(secret, in.TTL, in.Uses)
}

// JoinCommand is what to run on a new node. echo is the shell's own: the token is in no
// command line that other users of the machine can see.
func JoinCommand(address, token string) string {
	return fmt.Sprintf("echo %s | raftvip join %s --token-file -", token, address)
}

// NewToken makes a token of the cluster with this secret, and its record.
func NewToken(secret pki.Secret, ttl time.Duration, uses int) (pki.Token, state.TokenRecord, error) {
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		return pki.Token{}, state.TokenRecord{}, err
	}
	now := time.Now()
	token := pki.NewToken(authority)
	return token, state.TokenRecord{ID: token.ID, Hash: token.Hash(), Created: now, Expires: now.Add(ttl), Uses: uses}, nil
}

func (srv *Server) tokenRevoke(ctx context.Context, in api.TokenRevoke) (api.Done, error) {
	return api.Done{}, srv.Node.Apply(ctx, state.Command{DropToken: &in.ID})
}

func (srv *Server) tokens() []api.Token {
	var out []api.Token
	for _, t := range srv.Node.State().Tokens {
		out = append(out, api.Token{ID: t.ID, Expires: t.Expires, Uses: t.Uses})
	}
	slices.SortFunc(out, func(a, b api.Token) int { return a.Expires.Compare(b.Expires) })
	return out
}

// ReadSecretFile reads the secret_file of a configuration; its errors say what to do.
func ReadSecretFile(path string) (pki.Secret, error) {
	secret, err := pki.ReadSecretFile(path)
	switch {
	case err == nil:
		return secret, nil
	case errors.Is(err, pki.ErrOpenPermissions):
		return secret, api.WithHint(err, "chmod 600 "+path)
	case errors.Is(err, fs.ErrPermission):
		return secret, err
	}
	return secret, api.WithHint(err, "copy the file of another node or, for the first one, make it with: (umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' > "+path+")")
}
