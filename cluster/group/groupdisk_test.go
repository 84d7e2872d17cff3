package group

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestFaultyNodeDoesNotStand(t *testing.T) {
	r := newRig(t, 1).awake()
	fault := "cannot write the log in /data: no space left on device"
	r.trans.diskFault = func() string { return fault }
	ask := func() error {
		return r.trans.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{RPCHeader: from("a"), Term: 2}, &raft.RequestPreVoteResponse{})
	}
	if err := ask(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), fault) || len(r.net.sent) != 0 {
		t.Errorf("%v, sent %v", err, r.net.sent)
	}
	fault = ""
	if err := ask(); err != nil || len(r.net.sent) != 1 {
		t.Errorf("%v, sent %v", err, r.net.sent)
	}
}

// A leader whose disk hangs keeps its lease as long as voters answer: a heartbeat
// writes nothing. Cut off as well, its lease ends by the evidence alone, as Raft
// cannot step down before its disk goes on.
func TestOwnersDiskHangs(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		p := owner.proc
		term := p.raft.CurrentTerm()
		deadline := func() time.Duration { p.mu.Lock(); defer p.mu.Unlock(); return p.deadline }
		owner.hangDisk()
		p.raft.Apply([]byte("{}"), time.Second)
		for range 50 {
			before := deadline()
			s.advance(s.hb / 2)
			if !owner.answers() || deadline() <= before {
				t.Fatal("the lease is not renewed while the disk hangs")
			}
		}
		for _, o := range others {
			s.net.change(owner.name, o.name, func(l *simLink) { l.cut(false) })
			s.net.change(o.name, owner.name, func(l *simLink) { l.cut(false) })
		}
		s.advance(2 * time.Millisecond) // what was under way arrives
		last := deadline()
		moved := func() bool { return deadline() > last }
		s.within(2*s.hb, "the lease ends", func() bool { return !owner.answers() })
		s.within(20*s.hb, "another owns", func() bool { return s.owner() != nil })
		if p.raft.State() != raft.Leader || p.raft.CurrentTerm() != term {
			t.Fatal("Raft has stepped down while its disk hangs: this test shows nothing")
		}
		if moved() {
			t.Error("the lease was renewed without evidence")
		}
		// It thinks that it leads, and is heard again, and asks for its lease.
		s.net.healAll()
		for range 50 {
			s.advance(s.hb / 5)
			p.group.RefreshLease()
			if moved() || owner.answers() {
				t.Fatal("the old term's lease came back")
			}
		}
		owner.freeDisk()
		s.within(20*s.hb, "it steps down", func() bool { return p.raft.CurrentTerm() > term })
		s.advance(5 * s.hb)
		if s.owner() == nil {
			t.Error("nobody owns")
		}
	})
}
