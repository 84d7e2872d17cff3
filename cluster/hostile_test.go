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

	"github.com/raftvip/raftvip/internal/pki"
)

// An attacker speaks to running nodes with a member's certificate.
type attacker struct {
	t      *testing.T
	id     string
	creds  *pki.Credentials
	client *peerClient
}

func attackAs(t *testing.T, secret pki.Secret, id string) *attacker {
	t.Helper()
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, id: id, creds: pki.NewCredentials(authority, id, nil)}
	a.client = newPeerClient(func(ctx context.Context, proto, address string) (net.Conn, error) {
		d := tls.Dialer{Config: a.creds.Client(proto, "")}
		return d.DialContext(ctx, "tcp", address)
	})
	t.Cleanup(a.client.close)
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
	if err := writeGroup(conn, DefaultGroup); err != nil {
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
	term := func() uint64 { return victim.group.raft.CurrentTerm() }
	servers := func(s ...raft.Server) []byte { return raft.EncodeConfiguration(raft.Configuration{Servers: s}) }
	one := raft.Server{ID: "x-1", Address: "127.0.0.1:7"}
	next := victim.group.raft.LastIndex() + 1
	entry := func(kind raft.LogType, data []byte) *raft.Log {
		return &raft.Log{Index: 1, Term: term(), Type: kind, Data: data}
	}
	snapshot := func(conf []byte) []byte {
		return packed(t, &raft.InstallSnapshotRequest{RPCHeader: a.header(), SnapshotVersion: 1, Term: term(), LastLogIndex: next, LastLogTerm: term(), ConfigurationIndex: 1, Configuration: conf, Size: 4})
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
		{"append of the last term", wireAppendEntries, packed(t, a.append(1<<64-1))},
		{"append of a term out of reach", wireAppendEntries, packed(t, a.append(1<<40))},
		{"vote in the last term", wireRequestVote, packed(t, &raft.RequestVoteRequest{RPCHeader: a.header(), Term: 1<<64 - 1, LastLogIndex: 1 << 40, LastLogTerm: 1 << 40})},
		{"nil entry", wireAppendEntries, packed(t, a.append(term(), nil))},
		{"entries with a gap", wireAppendEntries, packed(t, gap)},
		{"committed entries of another term", wireAppendEntries, packed(t, a.append(term(), &raft.Log{Index: 1, Term: term() + 0, Type: raft.LogNoop}, &raft.Log{Index: 2, Term: term(), Type: raft.LogType(9)}))},
		{"configuration of noise", wireAppendEntries, packed(t, a.append(term(), entry(raft.LogConfiguration, []byte("noise"))))},
		{"configuration with two nodes at one address", wireAppendEntries, packed(t, a.append(term(), entry(raft.LogConfiguration, servers(one, raft.Server{ID: "x-2", Address: one.Address}))))},
		{"peers of an old protocol", wireAppendEntries, packed(t, a.append(term(), entry(raft.LogAddPeerDeprecated, []byte("x"))))},
		{"snapshot with a configuration of noise", wireInstallSnapshot, append(snapshot([]byte{0xc1}), "null"...)},
		{"snapshot that is none", wireInstallSnapshot, append(snapshot(servers(one)), "{{{{"...)},
		{"list of nils", wireAppendEntries, nils},
		{"TimeoutNow", wireTimeoutNow, packed(t, &raft.TimeoutNowRequest{RPCHeader: a.header()})},
		{"another member's name", wireAppendEntries, packed(t, forged)},
		{"unknown kind", 200, []byte{0xc0}},
	} {
		before := victim.group.raft.LastIndex()
		if text := a.say(victim, tt.kind, tt.body); text == "" {
			t.Errorf("%s: not refused", tt.name)
		} else {
			t.Logf("%s: %s", tt.name, text)
		}
		if now := term(); now > 1<<20 {
			t.Fatalf("%s: the term is %d now", tt.name, now)
		}
		if after := victim.group.raft.LastIndex(); after > before+5 {
			t.Errorf("%s: the log reaches to %d", tt.name, after)
		}
	}

	// A voter is bound to its leader, whoever else says that it is free.
	eventually(t, "the victim follows", func() bool {
		leader = leading(all[:]...)
		return leader != nil && leader != victim && victim.group.fence.bound("nobody") > 0
	})
	for _, r := range []Release{
		{Group: DefaultGroup, Term: term(), Seq: 1e6, From: a.id, To: a.id},
		{Group: DefaultGroup, Term: term() + 3, Seq: 1e6, From: a.id, To: a.id},
		{Group: DefaultGroup, Term: 1<<64 - 2, Seq: 1, From: a.id, To: a.id},
	} {
		if leader == other {
			break // it speaks for itself
		}
		for _, path := range []string{pathRelease, pathRebind, pathPrepare} {
			err := a.client.call(context.Background(), victim.Advertise(), path, r, nil)
			refusedWith(t, err, CodeNotLeader)
		}
	}
	if holder, _, _ := victim.group.Holder(); holder == "" {
		t.Error("a forged release freed the voter")
	}

	// A snapshot that does not come holds up its own connection.
	conn := a.connect(victim)
	stalled := packed(t, &raft.InstallSnapshotRequest{RPCHeader: a.header(), SnapshotVersion: 1, Term: term(), LastLogIndex: next + 50, LastLogTerm: term(), ConfigurationIndex: 1, Configuration: servers(one), Size: 1 << 20})
	if _, err := conn.Write(append([]byte{wireInstallSnapshot}, stalled...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commands are applied at the victim", func() bool {
		l := leading(all[:]...)
		if l == nil {
			return false
		}
		drained := !l.State().Nodes[victim.Self().NodeID].Drained
		err := l.Apply(context.Background(), Command{Drain: &DrainCommand{NodeID: victim.Self().NodeID, Drained: drained}})
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

func TestSnapshotWithNullMapsCanBeWrittenTo(t *testing.T) {
	s, err := readState(strings.NewReader(`{"format":1,"cluster_id":"c","nodes":null,"removed":null,"tokens":null}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Command{
		{PutNode: &NodeRecord{ID: "n1-1", Name: "n1", Address: "h:1"}},
		{PutToken: &TokenRecord{ID: "t"}},
		{RemoveNode: new("n1-1")},
	} {
		if s, err = s.apply(c, 2); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExamine(t *testing.T) {
	own := logView{term: 7, commit: 3, termAt: func(i uint64) uint64 { return min(i, 5) }}
	log := func(index, term uint64) *raft.Log { return &raft.Log{Index: index, Term: term} }
	conf := func(s ...raft.Server) *raft.Log {
		return &raft.Log{Index: 5, Term: 7, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: s})}
	}
	request := func(f func(*raft.AppendEntriesRequest)) *raft.AppendEntriesRequest {
		r := &raft.AppendEntriesRequest{RPCHeader: from("b"), Term: 7, PrevLogEntry: 4, PrevLogTerm: 4}
		f(r)
		return r
	}
	for _, tt := range []struct {
		name string
		req  any
		ok   bool
	}{
		{"heartbeat", entries(7, "b"), true},
		{"of an older term", entries(3, "b"), true},
		{"as far as it reaches", entries(7+termReach, "b"), true},
		{"a term further", entries(8+termReach, "b"), false},
		{"entries", request(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{log(5, 4), log(6, 7)} }), true},
		{"entry of a newer term than the leader's", request(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{log(5, 8)} }), false},
		{"terms that fall", request(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{log(5, 6), log(6, 5)} }), false},
		{"committed entry of its term", request(func(r *raft.AppendEntriesRequest) {
			r.PrevLogEntry, r.PrevLogTerm, r.Entries = 2, 2, []*raft.Log{log(3, 3)}
		}), true},
		{"committed entry of another term", request(func(r *raft.AppendEntriesRequest) {
			r.PrevLogEntry, r.PrevLogTerm, r.Entries = 2, 2, []*raft.Log{log(3, 4)}
		}), false},
		{"uncommitted entry of another term", request(func(r *raft.AppendEntriesRequest) {
			r.PrevLogEntry, r.PrevLogTerm, r.Entries = 3, 3, []*raft.Log{log(4, 7)}
		}), true},
		{"configuration", request(func(r *raft.AppendEntriesRequest) {
			r.Entries = []*raft.Log{conf(raft.Server{ID: "b", Address: "h:1"})}
		}), true},
		{"configuration without voters", request(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{conf()} }), false},
		{"address with a line in it", &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("b"), Addr: []byte("a\nb")}, Term: 7}, false},
		{"no name", &raft.RequestVoteRequest{Term: 7}, false},
		{"snapshot", snapshotOf(7, "b"), true},
		{"snapshot of a later term than its leader's", &raft.InstallSnapshotRequest{RPCHeader: from("b"), SnapshotVersion: 1, Term: 7, LastLogIndex: 3, LastLogTerm: 8, Configuration: snapshotOf(1, "b").Configuration}, false},
	} {
		if err := examine(tt.req, own); (err == nil) != tt.ok || err != nil && !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := examine(entries(1<<40, "b"), logView{}); err != nil {
		t.Errorf("a node that knows no term refuses the cluster's: %v", err)
	}
}

// Members may swap their addresses, and one of them be asked for the other.
func TestOnlyTheNodeThatWasAskedAnswers(t *testing.T) {
	all, _ := threeNodes(t)
	eventually(t, "all have answered for themselves", func() bool {
		leader := leading(all[:]...)
		if leader == nil {
			return false
		}
		g := leader.group
		var others []*member
		for _, m := range all {
			if m != leader {
				others = append(others, m)
			}
		}
		r := Release{Group: DefaultGroup, Term: g.Standing().Term, From: leader.Self().NodeID}
		for i, m := range others {
			id, at := m.Self().NodeID, m.Advertise()
			if g.peers.callRebind(context.Background(), id, at, r) != nil || g.trans.warm(raft.ServerID(id), raft.ServerAddress(at)) != nil {
				return false // the leader has changed, or one does not know it yet
			}
			absent := others[1-i].Self().NodeID
			if err := g.peers.callRebind(context.Background(), absent, at, r); err == nil {
				t.Errorf("%s has promised for %s", id, absent)
			}
			if err := g.trans.warm(raft.ServerID(absent), raft.ServerAddress(at)); err == nil {
				t.Errorf("%s has answered for %s on a Raft connection", id, absent)
			}
		}
		return true
	})
}

// An answer of another node than the one that was asked is nobody's: a host that was
// installed anew under another name would acknowledge for the dead voter.
func TestAnswerOfAnotherNodeIsNoEvidence(t *testing.T) {
	r := newRig(t, 1).awake()
	r.net.answer = from("d")
	if err := r.send(2); !errors.Is(err, errMessage) {
		t.Errorf("sent: %v", err)
	}
	r.fence.lead(2)
	if _, until := r.fence.until(); until != 0 {
		t.Error("another node's answer gave a lease")
	}
}
