package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

// An attacker speaks to running nodes with a member's certificate.
// The kinds of messages on a Raft connection (hashicorp/raft net_transport.go).
const (
	kindAppend byte = iota
	kindVote
	kindSnapshot
	kindTimeoutNow
)

func messageOf(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type attacker struct {
	t      *testing.T
	id     string
	creds  *pki.Credentials
	client *port.Client
}

func attackAs(t *testing.T, secret pki.Secret, id string) *attacker {
	t.Helper()
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, id: id, creds: pki.NewCredentials(authority, id, nil)}
	a.client = port.NewClient(func(ctx context.Context, proto, address string) (net.Conn, error) {
		d := tls.Dialer{Config: a.creds.Client(proto, "")}
		return d.DialContext(ctx, "tcp", address)
	})
	t.Cleanup(a.client.Close)
	return a
}

func (a *attacker) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(a.id), Addr: []byte("127.0.0.1:1")}
}

// connect opens a Raft connection to a node.
func (a *attacker) connect(to *member) net.Conn {
	a.t.Helper()
	conn, err := tls.Dial("tcp", to.Advertise(), a.creds.Client(pki.ProtoRaft, ""))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	if err := port.WriteGroup(conn, state.DefaultGroup); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// say sends one message on a new connection and returns the node's error, "" for
// none; io.EOF's text if the node closed the connection.
func (a *attacker) say(to *member, kind byte, body []byte) string {
	a.t.Helper()
	conn := a.connect(to)
	defer conn.Close()
	go conn.Write(append([]byte{kind}, body...)) // the node may close it before it has all
	conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	dec := codec.NewDecoder(conn, &codec.MsgpackHandle{})
	var text string
	var answer any
	err := dec.Decode(&text)
	if err == nil {
		err = dec.Decode(&answer)
	}
	switch {
	case err != nil && (errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset")):
		return io.EOF.Error()
	case err != nil:
		a.t.Fatalf("kind %d: %v", kind, err)
	}
	return text
}

func (a *attacker) append(term uint64, entries ...*raft.Log) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: a.header(), Term: term, Entries: entries}
}

// What one member may do with one message. Before messages were examined each of
// these ended the process, the cluster's elections, or the next start.
func TestHostileMemberIsContained(t *testing.T) {
	all, secret := threeNodes(t)
	var leader *member
	eventually(t, "a leader with a lease", func() bool { leader = leading(all[:]...); return leader != nil })
	var victim, other *member
	for _, m := range all {
		switch {
		case m == leader:
		case victim == nil:
			victim = m
		default:
			other = m
		}
	}
	a := attackAs(t, secret, other.Self().NodeID)
	term := func() uint64 { return victim.group.Position().Term }
	servers := func(s ...raft.Server) []byte { return raft.EncodeConfiguration(raft.Configuration{Servers: s}) }
	one := raft.Server{ID: "x-1", Address: "127.0.0.1:7"}
	next := victim.group.Position().Index + 1
	entry := func(kind raft.LogType, data []byte) *raft.Log {
		return &raft.Log{Index: 1, Term: term(), Type: kind, Data: data}
	}
	snapshot := func(conf []byte) []byte {
		return messageOf(t, &raft.InstallSnapshotRequest{RPCHeader: a.header(), SnapshotVersion: 1, Term: term(), LastLogIndex: next, LastLogTerm: term(), ConfigurationIndex: 1, Configuration: conf, Size: 4})
	}
	forged := a.append(term())
	forged.ID = []byte(leader.Self().NodeID)
	gap := a.append(term(), &raft.Log{Index: next + 9, Term: term(), Type: raft.LogNoop})
	nils := append([]byte{0x81, 0xa7}, "Entries"...)
	nils = append(append(nils, 0xdd, 0x02, 0, 0, 0), bytes.Repeat([]byte{0xc0}, 1<<20)...)
	for _, tt := range []struct {
		name string
		kind byte
		body []byte
	}{
		{"append of the last term", kindAppend, messageOf(t, a.append(1<<64-1))},
		{"append of a term out of reach", kindAppend, messageOf(t, a.append(1<<40))},
		{"vote in the last term", kindVote, messageOf(t, &raft.RequestVoteRequest{RPCHeader: a.header(), Term: 1<<64 - 1, LastLogIndex: 1 << 40, LastLogTerm: 1 << 40})},
		{"nil entry", kindAppend, messageOf(t, a.append(term(), nil))},
		{"entries with a gap", kindAppend, messageOf(t, gap)},
		{"committed entries of another term", kindAppend, messageOf(t, a.append(term(), &raft.Log{Index: 1, Term: term() + 0, Type: raft.LogNoop}, &raft.Log{Index: 2, Term: term(), Type: raft.LogType(9)}))},
		{"configuration of noise", kindAppend, messageOf(t, a.append(term(), entry(raft.LogConfiguration, []byte("noise"))))},
		{"configuration with two nodes at one address", kindAppend, messageOf(t, a.append(term(), entry(raft.LogConfiguration, servers(one, raft.Server{ID: "x-2", Address: one.Address}))))},
		{"peers of an old protocol", kindAppend, messageOf(t, a.append(term(), entry(raft.LogAddPeerDeprecated, []byte("x"))))},
		{"snapshot with a configuration of noise", kindSnapshot, append(snapshot([]byte{0xc1}), "null"...)},
		{"snapshot that is none", kindSnapshot, append(snapshot(servers(one)), "{{{{"...)},
		{"list of nils", kindAppend, nils},
		{"TimeoutNow", kindTimeoutNow, messageOf(t, &raft.TimeoutNowRequest{RPCHeader: a.header()})},
		{"another member's name", kindAppend, messageOf(t, forged)},
		{"unknown kind", 200, []byte{0xc0}},
	} {
		before := victim.group.Position().Index
		if text := a.say(victim, tt.kind, tt.body); text == "" {
			t.Errorf("%s: not refused", tt.name)
		} else {
			t.Logf("%s: %s", tt.name, text)
		}
		if now := term(); now > 1<<20 {
			t.Fatalf("%s: the term is %d now", tt.name, now)
		}
		if after := victim.group.Position().Index; after > before+5 {
			t.Errorf("%s: the log reaches to %d", tt.name, after)
		}
	}

	// A voter is bound to its leader, whoever else says that it is free.
	eventually(t, "the victim follows", func() bool {
		leader = leading(all[:]...)
		return leader != nil && leader != victim && victim.group.Bound("nobody") > 0
	})
	for _, r := range []group.Release{
		{Group: state.DefaultGroup, Term: term(), Seq: 1e6, From: a.id, To: a.id},
		{Group: state.DefaultGroup, Term: term() + 3, Seq: 1e6, From: a.id, To: a.id},
		{Group: state.DefaultGroup, Term: 1<<64 - 2, Seq: 1, From: a.id, To: a.id},
	} {
		if leader == other {
			break // it speaks for itself
		}
		for _, path := range []string{pathRelease, pathRebind, pathPrepare} {
			err := a.client.Call(context.Background(), victim.Advertise(), path, r, nil)
			refusedWith(t, err, state.CodeNotLeader)
		}
	}
	if holder, _, _ := victim.group.Holder(); holder == "" {
		t.Error("a forged release freed the voter")
	}

	// A snapshot that does not come holds up its own connection.
	conn := a.connect(victim)
	stalled := messageOf(t, &raft.InstallSnapshotRequest{RPCHeader: a.header(), SnapshotVersion: 1, Term: term(), LastLogIndex: next + 50, LastLogTerm: term(), ConfigurationIndex: 1, Configuration: servers(one), Size: 1 << 20})
	if _, err := conn.Write(append([]byte{kindSnapshot}, stalled...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commands are applied at the victim", func() bool {
		l := leading(all[:]...)
		if l == nil {
			return false
		}
		drained := !l.State().Nodes[victim.Self().NodeID].Drained
		err := l.Apply(context.Background(), state.Command{Drain: &state.DrainCommand{NodeID: victim.Self().NodeID, Drained: drained}})
		if err != nil {
			return false
		}
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if victim.State().Nodes[victim.Self().NodeID].Drained == drained {
				return true
			}
		}
		return false
	})

	// And the node starts again.
	victim.stop()
	again, err := openMember(t, victim.dir, victim.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the victim follows again", func() bool { return again.LeaderAddress() != "" })
}

// Members may swap their addresses, and one of them be asked for the other.
func TestOnlyTheNodeThatWasAskedAnswers(t *testing.T) {
	all, _ := threeNodes(t)
	eventually(t, "all have answered for themselves", func() bool {
		leader := leading(all[:]...)
		if leader == nil {
			return false
		}
		g, calls := leader.group, memberCalls{leader.client}
		var others []*member
		for _, m := range all {
			if m != leader {
				others = append(others, m)
			}
		}
		r := group.Release{Group: state.DefaultGroup, Term: g.Standing().Term, From: leader.Self().NodeID}
		for i, m := range others {
			id, at := m.Self().NodeID, m.Advertise()
			if calls.CallRebind(context.Background(), id, at, r) != nil || g.Warm(id, at) != nil {
				return false // the leader has changed, or one does not know it yet
			}
			absent := others[1-i].Self().NodeID
			if err := calls.CallRebind(context.Background(), absent, at, r); err == nil {
				t.Errorf("%s has promised for %s", id, absent)
			}
			if err := g.Warm(absent, at); err == nil {
				t.Errorf("%s has answered for %s on a Raft connection", id, absent)
			}
		}
		return true
	})
}
