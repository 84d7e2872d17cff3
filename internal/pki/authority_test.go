package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// All nodes of a cluster derive the same authority, also after an upgrade: these
// values must never change.
func TestAuthorityIsTheSameEverywhere(t *testing.T) {
	s := fixedSecret(t)
	a, b := newAuthority(t, s), newAuthority(t, s)
	if !bytes.Equal(a.cert.Raw, b.cert.Raw) {
		t.Error("two nodes made different certificates")
	}
	if got, want := a.ClusterID(), "917e5715f9981550"; got != want || s.ClusterID() != want {
		t.Errorf("cluster ID %s, want %s", got, want)
	}
	pin := a.Pin()
	if got, want := hex.EncodeToString(pin[:]), "f459f2191d42047781133fe1015ddae1fdc16d755af88369b0c37a60095e13b1"; got != want {
		t.Errorf("pin %s, want %s", got, want)
	}
	if !a.cert.IsCA || a.cert.KeyUsage != x509.KeyUsageCertSign {
		t.Error("not an authority")
	}
	other := newAuthority(t, NewSecret())
	if other.Pin() == a.Pin() || other.ClusterID() == a.ClusterID() {
		t.Error("another secret has the same authority")
	}
	if strings.Contains(s.Text(), a.ClusterID()) {
		t.Error("the cluster ID shows a part of the secret")
	}
}

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

// A handshake is what both sides made of a connection.
type handshake struct {
	client, server           tls.ConnectionState
	clientErr, serverErr     error
	authorizedAs, authorized string // protocol and node ID that authorize was asked for
}

// connect connects the two sides over the loopback interface. The server greets
// once it has accepted: a client of TLS 1.3 learns only then that it is in.
func connect(t *testing.T, server *Credentials, client *tls.Config, authorize func(proto, nodeID string) error) handshake {
	t.Helper()
	var h handshake
	return connectTo(t, server.Server(func(proto, nodeID string) error {
		h.authorizedAs, h.authorized = proto, nodeID
		if authorize != nil {
			return authorize(proto, nodeID)
		}
		return nil
	}), client, &h)
}

func connectTo(t *testing.T, server, client *tls.Config, h *handshake) handshake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	deadline := time.Now().Add(10 * time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := ln.Accept()
		if err != nil {
			h.serverErr = err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		conn.SetDeadline(deadline)
		if h.serverErr = conn.Handshake(); h.serverErr == nil {
			h.server = conn.ConnectionState()
			_, h.serverErr = conn.Write([]byte{1})
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	defer conn.Close()
	conn.SetDeadline(deadline)
	if h.clientErr = conn.Handshake(); h.clientErr == nil {
		h.client = conn.ConnectionState()
		_, h.clientErr = conn.Read(make([]byte, 1))
	}
	conn.Close()
	<-done
	return *h
}

func TestSameCluster(t *testing.T) {
	secret := NewSecret()
	// Each node derives the authority for itself.
	lb1 := NewCredentials(newAuthority(t, secret), "lb1-id", nil)
	lb2 := NewCredentials(newAuthority(t, secret), "lb2-id", nil)
	for _, proto := range []string{ProtoRaft, ProtoAPI, ProtoJoin} {
		for _, expect := range []string{"", "lb1-id"} {
			h := connect(t, lb1, lb2.Client(proto, expect), nil)
			if h.clientErr != nil || h.serverErr != nil {
				t.Fatalf("%s: client %v, server %v", proto, h.clientErr, h.serverErr)
			}
			if h.client.NegotiatedProtocol != proto || h.server.NegotiatedProtocol != proto || h.client.Version != tls.VersionTLS13 {
				t.Errorf("%s: speaks %q, version %x", proto, h.client.NegotiatedProtocol, h.client.Version)
			}
			if got := PeerID(h.client); got != "lb1-id" {
				t.Errorf("%s: client sees %q", proto, got)
			}
			if h.authorizedAs != proto {
				t.Errorf("%s: authorized for %q", proto, h.authorizedAs)
			}
			want := "lb2-id"
			if proto == ProtoJoin {
				want = "" // not verified there, so not believed either
			} else if got := PeerID(h.server); got != want {
				t.Errorf("%s: server sees %q", proto, got)
			}
			if h.authorized != want {
				t.Errorf("%s: authorized %q, want %q", proto, h.authorized, want)
			}
		}
	}
	if got := PeerID(tls.ConnectionState{}); got != "" {
		t.Errorf("nobody is %q", got)
	}
}

func TestOtherCluster(t *testing.T) {
	ours := NewCredentials(newAuthority(t, NewSecret()), "lb1-id", nil)
	theirs := NewCredentials(newAuthority(t, NewSecret()), "lb1-id", nil)
	for _, proto := range []string{ProtoRaft, ProtoAPI, ProtoJoin} {
		h := connect(t, theirs, ours.Client(proto, "lb1-id"), nil)
		if !errors.Is(h.clientErr, ErrOtherCluster) {
			t.Errorf("%s: client got %v", proto, h.clientErr)
		}
		if h.serverErr == nil {
			t.Errorf("%s: the server accepted", proto)
		}
	}
	// A client that does not mind is refused by the server.
	careless := ours.Client(ProtoRaft, "")
	careless.VerifyConnection = nil
	h := connect(t, theirs, careless, nil)
	if !errors.Is(h.serverErr, ErrOtherCluster) || h.clientErr == nil || h.authorizedAs != "" {
		t.Errorf("server got %v, client %v, authorize asked for %q", h.serverErr, h.clientErr, h.authorizedAs)
	}
	// Our authority's certificate is no secret; showing it proves nothing.
	leaf, err := theirs.certificate()
	if err != nil {
		t.Fatal(err)
	}
	forged := *leaf
	forged.Certificate = [][]byte{leaf.Certificate[0], ours.authority.cert.Raw}
	server := &tls.Config{Certificates: []tls.Certificate{forged}, NextProtos: []string{ProtoRaft, ProtoJoin}}
	for name, client := range map[string]*tls.Config{
		"member": ours.Client(ProtoRaft, "lb1-id"),
		"join":   JoinClient(ours.authority.Pin(), nil),
	} {
		if h := connectTo(t, server, client, &handshake{}); !errors.Is(h.clientErr, ErrOtherCluster) {
			t.Errorf("%s, forged chain: client got %v", name, h.clientErr)
		}
	}
	client := ours.Client(ProtoAPI, "")
	client.VerifyConnection = nil
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forged, nil }
	if h := connect(t, ours, client, nil); !errors.Is(h.serverErr, ErrOtherCluster) {
		t.Errorf("forged chain: server got %v", h.serverErr)
	}
}

func TestClocks(t *testing.T) {
	a := newAuthority(t, NewSecret())
	for _, tc := range []struct {
		name           string
		server, client time.Time
		refusedBy      string // or "" for accepted
	}{
		{"same", noon, noon, ""},
		{"client 23 h behind", noon, noon.Add(-23 * time.Hour), ""},
		{"client 23 h ahead", noon, noon.Add(23 * time.Hour), ""},
		{"client 25 h behind", noon, noon.Add(-25 * time.Hour), "client"},
		{"client 25 h ahead", noon, noon.Add(25 * time.Hour), "server"},
		{"client 49 h ahead", noon, noon.Add(49 * time.Hour), "client"},
		{"client without a clock", noon, time.Unix(0, 0), "client"},
	} {
		h := connect(t, NewCredentials(a, "lb1-id", at(tc.server)), NewCredentials(a, "lb2-id", at(tc.client)).Client(ProtoRaft, ""), nil)
		err, made, now := h.clientErr, tc.server, tc.client
		switch tc.refusedBy {
		case "":
			if h.clientErr != nil || h.serverErr != nil {
				t.Errorf("%s: client %v, server %v", tc.name, h.clientErr, h.serverErr)
			}
			continue
		case "server":
			err, made, now = h.serverErr, tc.client, tc.server
		}
		if !errors.Is(err, ErrClock) || errors.Is(err, ErrOtherCluster) {
			t.Errorf("%s: %s got %v", tc.name, tc.refusedBy, err)
			continue
		}
		for _, clock := range []time.Time{made, now} {
			if text := clock.UTC().Format(time.RFC3339); !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q does not give the time %s", tc.name, err, text)
			}
		}
	}
	// A node that joins has no certificate, but a clock.
	server := NewCredentials(a, "lb1-id", at(noon))
	if h := connect(t, server, JoinClient(a.Pin(), at(noon.Add(72*time.Hour))), nil); !errors.Is(h.clientErr, ErrClock) {
		t.Errorf("join: client got %v", h.clientErr)
	}
}

func TestWrongNode(t *testing.T) {
	a := newAuthority(t, NewSecret())
	h := connect(t, NewCredentials(a, "lb3-id", nil), NewCredentials(a, "lb2-id", nil).Client(ProtoRaft, "lb1-id"), nil)
	var wrong *WrongNodeError
	if !errors.As(h.clientErr, &wrong) || wrong.Want != "lb1-id" || wrong.Got != "lb3-id" {
		t.Fatalf("client got %v", h.clientErr)
	}
	if got := wrong.Error(); got != "node lb3-id answered where lb1-id was expected" {
		t.Errorf("%q", got)
	}
}

func TestNoClientCertificate(t *testing.T) {
	a := newAuthority(t, NewSecret())
	server := NewCredentials(a, "lb1-id", nil)
	for _, proto := range []string{ProtoRaft, ProtoAPI} {
		h := connect(t, server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}, nil)
		if !errors.Is(h.serverErr, ErrNoCertificate) || h.clientErr == nil || h.authorizedAs != "" {
			t.Errorf("%s: server got %v, client %v, authorize asked for %q", proto, h.serverErr, h.clientErr, h.authorizedAs)
		}
	}
	// Neither does a certificate without a name do.
	h := connect(t, server, NewCredentials(a, "", nil).Client(ProtoRaft, ""), nil)
	if !errors.Is(h.serverErr, ErrNoCertificate) {
		t.Errorf("certificate without a name: server got %v", h.serverErr)
	}
	// Asking for no protocol at all is no way around, not even for a member.
	member := NewCredentials(a, "lb2-id", nil).Client(ProtoRaft, "")
	member.NextProtos, member.VerifyConnection = nil, nil
	for _, client := range []*tls.Config{{InsecureSkipVerify: true}, member} {
		asked := false
		h = connect(t, server, client, func(string, string) error { asked = true; return nil })
		if h.serverErr == nil || h.clientErr == nil || asked {
			t.Errorf("no protocol: server %v, client %v, authorize asked %t", h.serverErr, h.clientErr, asked)
		}
	}
	h = connect(t, server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, nil)
	if h.serverErr == nil || h.clientErr == nil {
		t.Errorf("another protocol: server %v, client %v", h.serverErr, h.clientErr)
	}
	// Nor is an older TLS.
	h = connect(t, server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtoJoin}, MaxVersion: tls.VersionTLS12}, nil)
	if h.serverErr == nil || h.clientErr == nil {
		t.Errorf("TLS 1.2: server %v, client %v", h.serverErr, h.clientErr)
	}
}

func TestJoin(t *testing.T) {
	a := newAuthority(t, NewSecret())
	server := NewCredentials(a, "lb1-id", nil)
	h := connect(t, server, JoinClient(a.Pin(), nil), nil)
	if h.clientErr != nil || h.serverErr != nil {
		t.Fatalf("client %v, server %v", h.clientErr, h.serverErr)
	}
	if h.authorizedAs != ProtoJoin || h.authorized != "" || len(h.server.PeerCertificates) != 0 {
		t.Errorf("authorized %q as %q", h.authorized, h.authorizedAs)
	}
	other := newAuthority(t, NewSecret())
	if h := connect(t, server, JoinClient(other.Pin(), nil), nil); !errors.Is(h.clientErr, ErrOtherCluster) || h.serverErr == nil {
		t.Errorf("token of another cluster: client %v, server %v", h.clientErr, h.serverErr)
	}
	// A server that shows its own certificate only has not shown the pinned key.
	cert, err := server.certificate()
	if err != nil {
		t.Fatal(err)
	}
	alone := *cert
	alone.Certificate = alone.Certificate[:1]
	config := &tls.Config{Certificates: []tls.Certificate{alone}, NextProtos: []string{ProtoJoin}}
	if h := connectTo(t, config, JoinClient(a.Pin(), nil), &handshake{}); !errors.Is(h.clientErr, ErrNoCertificate) {
		t.Errorf("no authority shown: client got %v", h.clientErr)
	}
	// Who may still join is for the caller to say.
	closed := errors.New("no tokens")
	if h := connect(t, server, JoinClient(a.Pin(), nil), func(string, string) error { return closed }); !errors.Is(h.serverErr, closed) || h.clientErr == nil {
		t.Errorf("refused join: server %v, client %v", h.serverErr, h.clientErr)
	}
}

func TestRemovedNode(t *testing.T) {
	a := newAuthority(t, NewSecret())
	server := NewCredentials(a, "lb1-id", nil)
	removed := errors.New("node was removed")
	members := []string{"lb2-id", "lb3-id"}
	authorize := func(_, id string) error {
		if !slices.Contains(members, id) {
			return removed
		}
		return nil
	}
	// One session cache for both connections: a ticket of the first must not get
	// the second one in.
	client := NewCredentials(a, "lb3-id", nil).Client(ProtoAPI, "lb1-id")
	client.ServerName, client.ClientSessionCache = "lb1", tls.NewLRUClientSessionCache(4)
	if h := connect(t, server, client, authorize); h.serverErr != nil || h.clientErr != nil {
		t.Fatalf("member: server %v, client %v", h.serverErr, h.clientErr)
	}
	members = members[:1]
	h := connect(t, server, client, authorize)
	if !errors.Is(h.serverErr, removed) || h.clientErr == nil {
		t.Errorf("removed: server %v, client %v", h.serverErr, h.clientErr)
	}
	if h.authorized != "lb3-id" || h.authorizedAs != ProtoAPI {
		t.Errorf("authorize was asked for %q, %q", h.authorizedAs, h.authorized)
	}
}

func TestRenewal(t *testing.T) {
	now := noon
	c := NewCredentials(newAuthority(t, NewSecret()), "lb1-id", func() time.Time { return now })
	certificate := func() *tls.Certificate {
		t.Helper()
		cert, err := c.certificate()
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := certificate()
	for _, tc := range []struct {
		name string
		now  time.Time
		same bool
	}{
		{"a moment later", noon.Add(time.Second), true},
		{"just before 12 h", noon.Add(12*time.Hour - time.Second), true},
		{"set back, but not before it was made", noon, true},
		{"after 12 h", noon.Add(12 * time.Hour), false},
		{"weeks later", noon.Add(21 * 24 * time.Hour), false},
		{"set back by a minute", noon.Add(-time.Minute), false},
		{"set back by years", time.Unix(0, 0), false},
	} {
		c.cert, c.renewAt = first, noon.Add(certRenew)
		now = tc.now
		cert := certificate()
		if (cert == first) != tc.same {
			t.Errorf("%s: same %t, want %t", tc.name, cert == first, tc.same)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			t.Errorf("%s: shows a certificate that is not valid now", tc.name)
		}
		if !tc.same && (leaf.NotBefore != now.Add(-24*time.Hour).UTC() || leaf.NotAfter != now.Add(48*time.Hour).UTC()) {
			t.Errorf("%s: valid from %s to %s", tc.name, leaf.NotBefore, leaf.NotAfter)
		}
		if again := certificate(); again != cert {
			t.Errorf("%s: renewed twice", tc.name)
		}
	}
	// A config made long ago shows the renewed certificate.
	now = noon
	server, client := c.Server(func(string, string) error { return nil }), c.Client(ProtoRaft, "lb1-id")
	now = noon.Add(30 * 24 * time.Hour)
	if h := connectTo(t, server, client, &handshake{}); h.clientErr != nil || h.serverErr != nil {
		t.Errorf("a month later: client %v, server %v", h.clientErr, h.serverErr)
	}
}

func TestCertificateNamesTheRun(t *testing.T) {
	a, err := NewAuthority(NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	c := NewCredentials(a, "n1", nil)
	run := func() string {
		cert, err := c.certificate()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		if _, err := c.verify(cs); err != nil {
			t.Errorf("with a run: %v", err)
		}
		return PeerRun(cs)
	}
	if got := run(); got != "" {
		t.Errorf("no run: got %q", got)
	}
	for _, want := range []string{"0123456789abcdef.1.2.3", "fedcba9876543210.0.0.0"} {
		c.SetRun(want)
		if got := run(); got != want {
			t.Errorf("got run %q, want %q", got, want)
		}
	}
}
