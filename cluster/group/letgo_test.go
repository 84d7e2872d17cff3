package group

import (
	"strings"
	"testing"
	"time"
)

func TestHearing(t *testing.T) {
	const ms = time.Millisecond
	const promise = 300 * ms
	type look struct {
		now, until time.Duration
		term       uint64
		ask, deaf  bool
	}
	for _, c := range []struct {
		name  string
		looks []look
	}{
		{"the lease goes on", []look{{1000, 1270, 2, false, false}, {1270, 1500, 2, false, false}, {1500, 1730, 2, false, false}}},
		{"it ends", []look{{1270, 1270, 2, false, false}, {1275, 1270, 2, false, false}, {1280, 1270, 2, false, false}, {1285, 1270, 2, false, true}}},
		{"once in a term", []look{{1270, 1270, 2, false, false}, {1275, 1270, 2, false, false}, {1280, 1270, 2, false, false}, {1285, 1270, 2, false, true},
			{1290, 1270, 2, false, false}, {1295, 1270, 2, false, false}, {1300, 1270, 2, false, false}, {1305, 1270, 2, false, false}}},
		{"and in the next", []look{{1270, 1270, 2, false, false}, {1275, 1270, 2, false, false}, {1280, 1270, 2, false, false}, {1285, 1270, 2, false, true},
			{1290, 1290, 3, false, false}, {1295, 1290, 3, false, false}, {1300, 1290, 3, false, false}, {1305, 1290, 3, false, true}}},
		{"it comes back", []look{{1270, 1270, 2, false, false}, {1275, 1270, 2, false, false}, {1280, 1540, 2, false, false}, {1540, 1540, 2, false, false}, {1545, 1540, 2, false, false}}},
		{"the machine stood still, and asks first", []look{{1400, 1270, 2, true, false}, {1420, 1270, 2, false, false}, {1440, 1270, 2, false, false}, {1460, 1270, 2, false, true}}},
		{"it stood still between two looks", []look{{1270, 1270, 2, false, false}, {1275, 1270, 2, false, false}, {1340, 1270, 2, true, false}, {1360, 1270, 2, false, false}, {1380, 1650, 2, false, false}}},
		{"a hand-over, or no lease yet", []look{{1270, 0, 2, false, false}, {1400, 0, 2, false, false}, {1500, 0, 2, false, false}, {1600, 0, 2, false, false}}},
		{"no leader", []look{{1270, 0, 0, false, false}, {1400, 1270, 0, false, false}, {1500, 1270, 0, false, false}}},
	} {
		var h hearing
		for i, l := range c.looks {
			ask, deaf, next := h.look(l.now*ms, l.term, l.until*ms, promise)
			if ask != l.ask || deaf != l.deaf || next <= 0 {
				t.Errorf("%s: look %d: ask %v, deaf %v, next after %v; want %v, %v", c.name, i+1, ask, deaf, next, l.ask, l.deaf)
			}
		}
	}
}

// The others own as soon as its lease has ended: what they hear of it does not bind them.
// It is measured in TestFailoverTakesOneHeartbeatTimeout.
func TestDeafOwnerGivesUp(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		directed(t, nodes, func(s *sim, owner *simHost, others []*simHost) {
			term := owner.proc.raft.CurrentTerm()
			for _, o := range others {
				s.net.change(o.name, owner.name, func(l *simLink) { l.cut(false) })
			}
			var next *simHost
			s.within(s.hb+5*time.Millisecond, "another owns", func() bool {
				next = s.owner()
				return next != nil && next != owner
			})
			if r, _ := next.proc.group.LastRelease(); r.Term != term || !strings.Contains(r.Reason, "did not hear") {
				t.Errorf("the new owner knows of %+v", r)
			}
			s.net.healAll()
			s.advance(time.Second)
			if now := s.owner(); now != next {
				t.Errorf("and then another one owns: %v", now)
			}
		})
	}
}

// A leader that will never own does not stay leader, and where nobody can own the nodes do
// not pass leadership round for ever.
func TestLeaderThatCannotOwnGivesUp(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		unable := others[0]
		unable.store.unreadable.Store(true)
		s.handOver(owner, unable)
		s.within(time.Second, "it leads", func() bool { return s.leader() == unable })
		s.within(assumeMin+time.Second, "another owns", func() bool { return s.owner() != nil && s.owner() != unable })
		now := s.owner()
		if r, _ := now.proc.group.LastRelease(); r.From != unable.id || !strings.Contains(r.Reason, "could not own: its log is not applied") {
			t.Errorf("the new owner knows of %+v", r)
		}
		for _, h := range s.hosts {
			h.store.unreadable.Store(true)
		}
		now.kill()
		now.boot()
		s.advance(20 * time.Second)
		if s.owner() != nil {
			t.Fatal("somebody owns whose log cannot be read")
		}
		leader := s.leader()
		if leader == nil || leader.proc.group.Standing().Obstacle == "" {
			t.Error("nobody leads, or whoever leads does not say why it does not own")
		}
		term := leader.proc.raft.CurrentTerm()
		s.advance(time.Minute)
		if after := leader.proc.raft.CurrentTerm(); after > term {
			t.Errorf("leadership goes round: term %d became %d in a minute", term, after)
		}
		for _, h := range s.hosts {
			h.store.unreadable.Store(false)
		}
		s.within(time.Second, "it owns when it can", func() bool { return s.owner() == leader })
		if o := leader.proc.group.Standing().Obstacle; o != "" {
			t.Errorf("owns, and says %q", o)
		}
	})
}

// That it gave up once, long ago, is no reason to keep what it cannot use.
func TestLeaderThatCannotOwnGivesUpAnotherTime(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		unable := others[0]
		unable.store.unreadable.Store(true)
		for range 3 {
			s.within(5*time.Second, "the owner hands over to it", func() bool {
				if now := s.owner(); now != nil && now != unable {
					s.handOver(now, unable)
				}
				s.advance(100 * time.Millisecond)
				return s.leader() == unable
			})
			s.within(assumeMin+time.Second, "another owns", func() bool { return s.owner() != nil && s.owner() != unable })
			s.advance(3 * assumeMin)
		}

		// Nobody can. Then all but the one that leads can.
		for _, h := range s.hosts {
			h.store.unreadable.Store(true)
		}
		now := s.owner()
		now.kill()
		now.boot()
		s.advance(20 * time.Second)
		leader := s.leader()
		if leader == nil || s.owner() != nil {
			t.Fatal("nobody leads, or somebody owns whose log cannot be read")
		}
		for _, h := range s.hosts {
			h.store.unreadable.Store(h == leader)
		}
		s.within(giveUpAgain, "another owns", func() bool { return s.owner() != nil && s.owner() != leader })
	})
}
