package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"time"
)

// Application protocols (ALPN) that share the one TCP port.
const (
	ProtoRaft = "raftvip-raft/1"
	ProtoBeat = "raftvip-beat/1"
	ProtoAPI  = "raftvip-api/1"
	ProtoJoin = "raftvip-join/1"
)

const (
	// A certificate is good for a day and is renewed halfway. It also reaches a
	// day back: ownership never depends on wall clocks, so a node whose clock is
	// some hours off must stay in the cluster (and is warned about) rather than
	// be cut off from it.
	certBefore = 24 * time.Hour
	certAfter  = 48 * time.Hour
	certRenew  = 12 * time.Hour
)

// Errors that a failed handshake can match.
var (
	// ErrOtherCluster: the peer's certificate is of another authority.
	ErrOtherCluster = errors.New("belongs to another cluster")
	// ErrClock: the peer's certificate is not valid now by this node's clock.
	ErrClock = errors.New("clocks differ too much")
	// ErrNoCertificate: the peer showed no usable certificate.
	ErrNoCertificate = errors.New("showed no node certificate")
)

// An Authority is a cluster's certificate authority. All nodes with the same
// secret have the same one.
type Authority struct {
	clusterID string
	key       ed25519.PrivateKey
	cert      *x509.Certificate
	pin       Pin
}

// A Pin is the hash of an authority's public key.
type Pin [sha256.Size]byte

// NewAuthority derives the authority of the cluster with this secret.
func NewAuthority(s Secret) (*Authority, error) {
	key := ed25519.NewKeyFromSeed(s.derive("certificate authority", ed25519.SeedSize))
	id := s.ClusterID()
	// Every field is fixed, and so is an Ed25519 signature: all nodes make the
	// same bytes.
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "raftvip cluster " + id},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("derive certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("derive certificate authority: %w", err)
	}
	return &Authority{clusterID: id, key: key, cert: cert, pin: pinOf(cert)}, nil
}

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// ClusterID names the cluster.
func (a *Authority) ClusterID() string { return a.clusterID }

// Pin is what a join token pins.
func (a *Authority) Pin() Pin { return a.pin }

// runScheme is that of the URI by which a certificate says which run of its node's
// process made it.
const runScheme = "raftvip-run"

// mint makes a certificate that names the node and, if not "", its run, with a fresh key.
func (a *Authority) mint(nodeID, run string, now time.Time) (*tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("mint certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("mint certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: nodeID, OrganizationalUnit: []string{a.clusterID}},
		NotBefore:    now.Add(-certBefore),
		NotAfter:     now.Add(certAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if run != "" {
		template.URIs = []*url.URL{{Scheme: runScheme, Opaque: run}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("mint certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// Credentials are one node's place in its cluster: a certificate that renews
// itself and the rule by which peers are believed.
type Credentials struct {
	authority *Authority
	nodeID    string
	now       func() time.Time

	mu      sync.Mutex
	run     string
	cert    *tls.Certificate
	renewAt time.Time
}

// NewCredentials returns the credentials of a node. now is the wall clock; nil
// means time.Now.
func NewCredentials(a *Authority, nodeID string, now func() time.Time) *Credentials {
	if now == nil {
		now = time.Now
	}
	return &Credentials{authority: a, nodeID: nodeID, now: now}
}

// SetRun has every certificate from now on say which run of the node's process it is
// of: letters, digits and dots.
func (c *Credentials) SetRun(run string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run, c.cert = run, nil
}

// PeerRun returns what the peer of an established connection has set by SetRun, or "".
func PeerRun(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	for _, u := range cs.PeerCertificates[0].URIs {
		if u.Scheme == runScheme {
			return u.Opaque
		}
	}
	return ""
}

func (c *Credentials) certificate() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	// A clock that was set back by more than the renewal time renews as well, or
	// the certificate would stay one from the future.
	if c.cert != nil && now.Before(c.renewAt) && c.renewAt.Sub(now) <= certRenew {
		return c.cert, nil
	}
	cert, err := c.authority.mint(c.nodeID, c.run, now)
	if err != nil {
		return nil, err
	}
	c.cert, c.renewAt = cert, now.Add(certRenew)
	return cert, nil
}

// Server returns the TLS configuration of the listening side. authorize is asked
// for every connection with the negotiated protocol and the peer's node ID, which
// is empty for ProtoJoin; an error refuses the connection.
func (c *Credentials) Server(authorize func(proto, nodeID string) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ProtoRaft, ProtoBeat, ProtoAPI, ProtoJoin},
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.certificate()
		},
		// Session tickets would let a removed node skip authorization.
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == ProtoJoin {
				return authorize(ProtoJoin, "")
			}
			if cs.NegotiatedProtocol == "" {
				return errors.New("peer speaks none of raftvip's protocols")
			}
			id, err := c.verify(cs)
			if err != nil {
				return err
			}
			return authorize(cs.NegotiatedProtocol, id)
		},
	}
}

// Client returns the TLS configuration of the dialling side for one protocol.
// expect, if not empty, is the node ID that must answer.
func (c *Credentials) Client(proto, expect string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		// Names do not matter here, keys do: VerifyConnection checks the chain
		// against the one authority.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.certificate()
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := c.verify(cs)
			if err != nil {
				return err
			}
			if expect != "" && id != expect {
				return &WrongNodeError{Want: expect, Got: id}
			}
			if cs.NegotiatedProtocol != proto {
				return fmt.Errorf("peer does not speak %s", proto)
			}
			return nil
		},
	}
}

// WrongNodeError says that another node than the expected one answered.
type WrongNodeError struct{ Want, Got string }

func (e *WrongNodeError) Error() string {
	return fmt.Sprintf("node %s answered where %s was expected", e.Got, e.Want)
}

// verify returns the node ID in the peer's certificate if the authority signed it.
func (c *Credentials) verify(cs tls.ConnectionState) (string, error) {
	return verifyChain(cs, c.authority.cert, c.now())
}

func verifyChain(cs tls.ConnectionState, root *x509.Certificate, now time.Time) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", ErrNoCertificate
	}
	leaf := cs.PeerCertificates[0]
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "", fmt.Errorf("%w: the peer's certificate was made about %s, this node's clock says %s", ErrClock,
			leaf.NotBefore.Add(certBefore).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case err != nil:
		if len(cs.PeerCertificates) > 1 && !bytes.Equal(cs.PeerCertificates[1].Raw, root.Raw) {
			return "", ErrOtherCluster
		}
		return "", fmt.Errorf("%w: %w", ErrOtherCluster, err)
	case leaf.Subject.CommonName == "":
		return "", ErrNoCertificate
	}
	return leaf.Subject.CommonName, nil
}

// PeerID returns the node ID of an established connection of ProtoRaft,
// ProtoBeat or ProtoAPI, or "".
func PeerID(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	return cs.PeerCertificates[0].Subject.CommonName
}

// JoinClient returns the TLS configuration with which a newcomer, who has no
// certificate yet, reaches a member: the authority must have the pinned key.
// The peer's node ID is not checked.
func JoinClient(pin Pin, now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ProtoJoin},
		InsecureSkipVerify: true, // VerifyConnection checks the pinned key instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) < 2 {
				return ErrNoCertificate
			}
			root := cs.PeerCertificates[1]
			if pinOf(root) != pin {
				return ErrOtherCluster
			}
			_, err := verifyChain(cs, root, now())
			return err
		},
	}
}
