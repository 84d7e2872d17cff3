package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

func proofMatches(proof, hash string) bool { return pki.ProofMatches(proof, hash) }

// ErrOtherToken says that a token was made by another cluster than the one that
// answered.
var ErrOtherToken = errors.New("the token is of another cluster")

// Join exchanges a token for membership: it asks the member at address, which
// must prove that it belongs to the token's cluster, to admit a node, and
// returns what to put into the data directory.
func Join(ctx context.Context, address string, token pki.Token, req JoinRequest) (got JoinAnswer, secret pki.Secret, err error) {
	req.TokenID, req.Proof, req.Level = token.ID, token.Proof(), state.FeatureLevel
	client := &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			d := tls.Dialer{Config: pki.JoinClient(token.Pin, time.Now)}
			return d.DialContext(ctx, "tcp", address)
		},
		DisableKeepAlives: true,
	}}
	if err := port.PostJSON(ctx, client, address, pathJoin, req, &got); err != nil {
		if errors.Is(err, pki.ErrOtherCluster) {
			return JoinAnswer{}, pki.Secret{}, fmt.Errorf("join %s: %w", address, ErrOtherToken)
		}
		return JoinAnswer{}, pki.Secret{}, err
	}
	secret, err = pki.ParseSecret(got.Secret)
	if err != nil {
		return JoinAnswer{}, pki.Secret{}, fmt.Errorf("join %s: %w", address, err)
	}
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		return JoinAnswer{}, pki.Secret{}, err
	}
	if authority.Pin() != token.Pin || secret.ClusterID() != got.ClusterID {
		return JoinAnswer{}, pki.Secret{}, fmt.Errorf("join %s: the secret it sent is not that of the token's cluster", address)
	}
	return got, secret, nil
}

// Ask asks the member at address who it is, as a node with this secret would that does
// not run. The node need not be a member.
func Ask(ctx context.Context, address string, secret pki.Secret, nodeID string) (Hello, error) {
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		return Hello{}, err
	}
	creds := pki.NewCredentials(authority, nodeID, nil)
	client := port.NewClient(func(ctx context.Context, proto, address string) (net.Conn, error) {
		d := tls.Dialer{Config: creds.Client(proto, "")}
		return d.DialContext(ctx, "tcp", address)
	})
	defer client.Close()
	var h Hello
	err = client.Call(ctx, address, pathHello, struct{}{}, &h)
	return h, err
}

// Reach tells whether anything listens at a member's address, so that a join that
// fails for want of a connection can say so.
func Reach(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("reach %s: %w", address, err)
	}
	return conn.Close()
}
