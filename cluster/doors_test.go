package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/pki"
)

// dialFrom connects from one of the loopback interface's addresses.
func dialFrom(source, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: time.Second}
	return d.Dial("tcp", address)
}

// stallHandshakes keeps connections to an address open that say nothing, and opens
// another one for each that is closed, until the test ends.
func stallHandshakes(t *testing.T, address string, source func(i int) string) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for k := range 80 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c, err := dialFrom(source(80*i+k), address)
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				began := time.Now()
				c.Read(make([]byte, 1)) // ends when the server closes it
				stop()
				c.Close()
				if time.Since(began) < 20*time.Millisecond {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
}

// Connections that are opened and never say anything keep no member out: a voter that
// is restarted in the midst of them is heard.
func TestStalledHandshakesKeepNoMemberOut(t *testing.T) {
	for name, source := range map[string]func(int) string{
		"from one address":     func(int) string { return "127.0.0.66" },
		"from many":            func(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250%250, i%250+1) },
		"from a member's host": func(int) string { return "127.0.0.1" },
	} {
		t.Run(name, func(t *testing.T) {
			all, _ := threeNodes(t)
			for _, m := range all {
				stallHandshakes(t, m.Advertise(), source)
			}
			time.Sleep(500 * time.Millisecond)
			dir, address := all[2].dir, all[2].Advertise()
			all[2].stop()
			began := time.Now()
			m, err := openMember(t, dir, address)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the restarted voter follows and has reported", func() bool {
				leader := leading(append(all[:2:2], m)...)
				return leader != nil && m.Group(state.DefaultGroup).Standing().LeaderID != "" && slices.ContainsFunc(leader.Reports(), func(r SeenReport) bool {
					return r.NodeID == m.Self().NodeID && r.Age < time.Since(began)
				})
			})
			took := time.Since(began)
			t.Logf("back after %s", took)
			// All places filled, as they were, it took until the stalled ones timed out,
			// and with new ones for ever.
			if took > port.HandshakeTimeout {
				t.Errorf("back after %s", took)
			}
		})
	}
}

// joinTLS opens a join connection.
func joinTLS(source, address string) (net.Conn, error) {
	raw, err := dialFrom(source, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{pki.ProtoJoin}, MinVersion: tls.VersionTLS13})
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// Newcomers' connections are few, short, and hold little.
func TestJoinConnectionsAreBounded(t *testing.T) {
	var token pki.Token
	lb1, _ := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	const header = "POST /peer/join HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n"
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := range 200 {
		c, err := joinTLS(fmt.Sprintf("127.1.0.%d", i%50+1), lb1.Advertise())
		if err != nil {
			continue // too many at once
		}
		open = append(open, c)
		fmt.Fprint(c, header, `{"name":"`)
		if count := lb1.port.JoinsOpen(); count > port.JoinConns {
			t.Fatalf("%d join connections", count)
		}
	}
	if len(open) < port.JoinConns {
		t.Fatalf("only %d connections could be made", len(open))
	}
	eventually(t, "those that had to go are forgotten", func() bool {
		return lb1.port.Connections() <= port.JoinConns+10
	})
	// A newcomer is admitted meanwhile.
	id := store.NewNodeID("lb2")
	if _, _, err := Join(context.Background(), lb1.Advertise(), token, JoinRequest{NodeID: id, Name: "lb2", Address: "127.0.0.1:1", Clock: time.Now()}); err != nil {
		t.Errorf("join: %v", err)
	}
	eventually(t, "idle ones are closed", func() bool {
		return lb1.port.JoinsOpen() == 0
	})

	// What is too large is not read.
	c, err := joinTLS("127.0.0.77", lb1.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, header, `{"name":"`)
	go io.WriteString(c, strings.Repeat("x", 2*port.MaxJoinBody)) // an error is that it was closed
	answer, _ := io.ReadAll(c)
	if !strings.Contains(string(answer), "request body too large") {
		t.Errorf("answer %q", answer)
	}
}

// Wrong tokens are counted, and slowed down, but not for others.
func TestGuessesAreFew(t *testing.T) {
	var token pki.Token
	lb1, secret := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	wrong := pki.NewToken(authority)
	began, checked := time.Now(), 0
	for range 100 {
		_, _, err := Join(context.Background(), lb1.Advertise(), wrong, JoinRequest{NodeID: store.NewNodeID("lb2"), Name: "lb2", Address: "127.0.0.1:1", Clock: time.Now()})
		if r, ok := err.(*state.Refusal); ok && r.Code == state.CodeWrongToken {
			checked++
		}
	}
	if most := port.GuessBurst + 1 + int(time.Since(began).Seconds()*port.GuessRate); checked == 0 || checked > most {
		t.Errorf("%d guesses were looked at in %s, want %d at most", checked, time.Since(began), most)
	}
	c, err := joinTLS("127.0.0.88", lb1.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /peer/join HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	answer, _ := io.ReadAll(c)
	if strings.Contains(string(answer), state.CodeTooMany) {
		t.Error("another newcomer is held to the first one's guesses")
	}
}

// A follower does not bother the leader with a token that it can see is wrong.
func TestFollowerLooksAtTheToken(t *testing.T) {
	var token pki.Token
	lb1, secret := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	lb2 := joinMember(t, "lb2", lb1, token)
	eventually(t, "both vote", func() bool { return voters(lb2) == 2 && len(lb2.State().Tokens) == 1 })
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	lb1.stop()
	eventually(t, "no leader", func() bool { return lb2.LeaderAddress() == "" })
	ask := func(id, proof string) error {
		_, err := lb2.handleJoin(context.Background(), JoinRequest{
			NodeID: store.NewNodeID("lb3"), Name: "lb3", Address: "127.0.0.1:1", Clock: time.Now(), TokenID: id, Proof: proof,
		})
		return err
	}
	// With nobody to ask, only what is answered here can be wrong_token.
	refusedWith(t, ask(token.ID, pki.NewToken(authority).Proof()), state.CodeWrongToken)
	refusedWith(t, ask(token.ID, token.Proof()), state.CodeNoLeader)
	refusedWith(t, ask("0123456789", token.Proof()), state.CodeNoLeader)
}

// Who takes a lost member's place is decided by the entry that uses the token, and
// nobody takes a living one's.
func TestReplaceIsDecidedInTheLog(t *testing.T) {
	all, secret := threeNodes(t)
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	newToken := func(m *member, ttl time.Duration) pki.Token {
		token := pki.NewToken(authority)
		record := state.TokenRecord{ID: token.ID, Hash: token.Hash(), Expires: time.Now().Add(ttl), Uses: 1}
		eventually(t, "token made", func() bool {
			leader := leading(all[:]...)
			return leader != nil && leader.Apply(context.Background(), state.Command{PutToken: &record}) == nil
		})
		return token
	}
	replace := func(name string, token pki.Token) error {
		for {
			_, _, err := Join(context.Background(), all[0].Advertise(), token, JoinRequest{
				NodeID: store.NewNodeID(name), Name: name, Address: "127.0.0.1:1", Clock: time.Now(), Replace: true,
			})
			r, ok := err.(*state.Refusal)
			if err != nil && (!ok || r.Code == state.CodeNoLeader || r.Code == state.CodeNotLeader || r.Code == state.CodeNotReady) {
				time.Sleep(20 * time.Millisecond)
				continue // the leader changes, or was stopped
			}
			return err
		}
	}
	good := newToken(all[0], time.Hour)

	// All are restarted: no leader has heard of anybody yet.
	var dirs, addresses []string
	for _, m := range all {
		dirs, addresses = append(dirs, m.dir), append(addresses, m.Advertise())
		m.stop()
	}
	for i := range all {
		if all[i], err = openMember(t, dirs[i], addresses[i]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a leader", func() bool { return leading(all[:]...) != nil })
	for _, name := range []string{"lb2", "lb3"} {
		if r := refusedWith(t, replace(name, good), state.CodeNameTaken); !strings.Contains(r.Message, "alive") {
			t.Errorf("%s: %s", name, r.Message)
		}
	}

	old := all[2].Self().NodeID
	expired := newToken(all[0], -time.Minute)
	all[2].stop()
	refusedWith(t, replace("lb3", expired), state.CodeExpiredToken)
	for _, m := range all[:2] { // one of them may not have applied its log yet
		if _, gone := m.State().Removed[old]; gone {
			t.Fatal("an expired token has removed a member")
		}
	}
	eventually(t, "its silence is noticed", func() bool {
		err := replace("lb3", good)
		if err != nil {
			refusedWith(t, err, state.CodeNameTaken)
		}
		return err == nil
	})
	eventually(t, "replaced everywhere", func() bool {
		_, gone := all[0].State().Removed[old]
		n, ok := all[1].State().NodeByName("lb3")
		return gone && ok && n.ID != old
	})
}

// After a restart of all a new leader has heard of nobody, and a member that is alive may
// not be where it was.
func TestLeaderListensBeforeItTakesAMemberForLost(t *testing.T) {
	all, _ := threeNodes(t)
	absent := all[2].Self().NodeID
	for _, m := range all {
		m.stop()
	}
	for i, m := range all[:2] {
		again, err := openMember(t, m.dir, m.Advertise())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = again
	}
	eventually(t, "a leader takes the third one for lost", func() bool {
		leader := leading(all[:2]...)
		if leader == nil || leader.lost(context.Background(), leader.State().Nodes[absent]) != nil {
			return false
		}
		if led := leader.ledFor(); led > 0 && led < reportFresh {
			t.Errorf("after %v", led)
		}
		return true
	})
}
