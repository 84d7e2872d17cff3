package group

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

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
