package group

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// directed runs a script on a cluster that has an owner.
func directed(t *testing.T, nodes int, script func(s *sim, owner *simHost, others []*simHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, simOptions{seed: 1, nodes: nodes})
		defer s.end()
		s.quiet()
		owner := s.owner()
		if owner == nil {
			t.Fatal("no owner")
		}
		var others []*simHost
		for _, h := range s.hosts {
			if h != owner {
				others = append(others, h)
			}
		}
		script(s, owner, others)
		s.check()
	})
}

func (s *sim) owner() *simHost {
	for _, h := range s.hosts {
		if h.answers() {
			return h
		}
	}
	return nil
}

// within waits for a condition.
func (s *sim) within(d time.Duration, what string, cond func() bool) {
	s.t.Helper()
	for end := s.hosts[0].trueNow() + d; !cond(); s.advance(time.Millisecond) {
		if s.hosts[0].trueNow() > end {
			s.t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// handOver asks the owner to hand over, as its loop does.
func (s *sim) handOver(from, to *simHost) chan error {
	m := simMove{to: to.id, done: make(chan error, 1)}
	from.proc.moves <- m
	return m.done
}

func TestTransferWithLateReplies(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		directed(t, nodes, func(s *sim, owner *simHost, others []*simHost) {
			for _, o := range others {
				s.net.change(o.name, owner.name, func(l *simLink) { l.delay = 4 * s.hb })
			}
			for range 10 {
				s.handOver(owner, others[0])
				s.advance(6 * s.hb)
				s.handOver(others[0], owner)
				s.advance(6 * s.hb)
			}
		})
	}
}

func TestTransferTakesMilliseconds(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		began := owner.trueNow()
		done := s.handOver(owner, others[0])
		s.within(s.hb, "the target owns", others[0].answers)
		if took := owner.trueNow() - began; took > 15*time.Millisecond {
			t.Errorf("took %v, with messages of half a millisecond", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTransferWithOneVoterDown(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		others[1].kill()
		if err := <-s.handOver(owner, others[0]); err != nil {
			t.Error(err)
		}
		s.within(s.hb, "the target owns", others[0].answers)
	})
}

// The lease comes back in the same term, by the voters that are reached; the
// others are bound when they can be, so that the lease does not depend on the few
// for ever.
func TestFailedTransferBringsTheLeaseBack(t *testing.T) {
	for name, fail := range map[string]func(*simHost){"frozen": (*simHost).freeze, "dead": (*simHost).kill} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
				target, other := others[0], others[1]
				term := owner.proc.group.Standing().Term
				fail(target)
				began := owner.trueNow()
				if err := <-s.handOver(owner, target); err == nil {
					t.Error("no error")
				}
				s.within(s.hb, "the lease is back", owner.answers)
				t.Logf("not owned for %v, heartbeat %v", owner.trueNow()-began, s.hb)
				if took := owner.trueNow() - began; took > 4*s.hb+100*time.Millisecond {
					t.Errorf("it waited %v for who does not answer", took)
				}
				if now := owner.proc.group.Standing().Term; now != term {
					t.Errorf("term %d, was %d", now, term)
				}
				if target.proc == nil {
					target.boot()
				}
				target.thaw()
				// A heartbeat that went down with the dead process is given up first; until
				// then its voter is asked only when something is written.
				s.advance(s.net.timeout)
				s.within(5*time.Second, "every voter is bound again", func() bool {
					l := s.leader()
					if l == nil {
						return false
					}
					// One that was dead has nothing to take back; it has to follow again.
					g := l.proc.group
					for _, id := range g.Voters() {
						if ago, ok := g.Contact(id); id != g.self && (!ok || ago > s.hb/2) {
							return false
						}
					}
					_, _, unbound := g.fence.unbound()
					return len(unbound) == 0 && l.answers()
				})
				// So that the lease survives the loss of the one it came back by.
				l := s.leader()
				if l != other {
					other.kill()
					s.advance(3 * s.hb)
					if !l.answers() {
						t.Error("the lease depends on one voter")
					}
				}
			})
		})
	}
}

// A restarted voter knows no leader, and the frozen owner still answers.
func TestRestartsWhileTheOwnerIsFrozen(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		owner.freeze()
		for _, o := range others {
			o.kill()
			o.boot()
		}
		s.within(10*s.hb, "somebody else owns", func() bool { return s.owner() != nil && s.owner() != owner })
		owner.thaw()
		s.advance(5 * s.hb)
	})
}

// Heartbeats bypass Raft's main loop, which waits for the disk.
func TestHeartbeatsPassSlowDisks(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		term := owner.proc.raft.CurrentTerm()
		for _, o := range others {
			o.hangDisk()
		}
		owner.proc.raft.Apply([]byte("{}"), time.Second)
		for range 50 {
			s.advance(s.hb / 10)
			if !owner.answers() || owner.proc.raft.CurrentTerm() != term {
				t.Fatalf("slow disks of the followers cost the lease")
			}
		}
	})
}

// A leadership that ended is noticed late, after a later one was won.
func TestLateStepDownKeepsALaterTerm(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, _ []*simHost) {
		owner.proc.group.stepDown()
		if _, until := owner.proc.group.fence.until(); until == 0 {
			t.Error("the lease of the present term was revoked")
		}
	})
}

// Raft leaves a hand-over unanswered that it was asked for before it shut down.
func TestCloseWhileHandingOver(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		s.net.change(owner.name, others[0].name, func(l *simLink) { l.delay = s.hb })
		done := s.handOver(owner, others[0])
		s.advance(time.Millisecond)
		owner.kill()
		<-done
		if err := owner.hostlessTransfer(others[0]); err == nil {
			t.Error("a closed group handed over")
		}
	})
}

// hostlessTransfer asks the group of a process that has ended.
func (h *simHost) hostlessTransfer(to *simHost) error {
	h.gone.Wait()
	return h.last.group.Transfer(context.Background(), to.id, "test", false)
}

// Raft by itself would wait up to 20 s before it sends the log to a node that was
// away for so long, and that node could not own until then.
func TestReturningNodeHasTheLogAtOnce(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		back := others[0]
		back.kill()
		s.advance(s.hb)
		if err := owner.proc.raft.Barrier(time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		s.advance(time.Minute)
		back.boot()
		s.within(2*s.hb, "the node that is back has the whole log", func() bool {
			return back.proc.raft.LastIndex() == owner.proc.raft.LastIndex()
		})
	})
}
