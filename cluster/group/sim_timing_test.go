package group

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// retime changes the heartbeat timeout and waits until all have changed, watching that
// the owner answers all the while. It returns how long nobody answered.
func (s *sim) retime(owner *simHost, d time.Duration) (gap time.Duration) {
	s.t.Helper()
	s.mu.Lock()
	s.wantHB = d
	s.mu.Unlock()
	look := func(what string, bound time.Duration, done func() bool) {
		s.t.Helper()
		for end := owner.trueNow() + bound; !done(); {
			if owner.trueNow() > end {
				s.t.Fatalf("not within %v: %s", bound, what)
			}
			s.advance(time.Millisecond)
			if !owner.answers() {
				gap += time.Millisecond
			}
		}
	}
	look(fmt.Sprintf("heartbeat timeout %v everywhere", d), 20*time.Second, func() bool {
		for _, h := range s.hosts {
			st := h.proc.group.machine.state.Load().Heartbeat
			if st.Current != d || st.Previous != d || h.proc.raft.ReloadableConfig().HeartbeatTimeout != d {
				return false
			}
		}
		return true
	})
	end := owner.trueNow() + max(3*d, 3*time.Second)
	look("time passes", time.Minute, func() bool { return owner.trueNow() >= end })
	return gap
}

// The owner answers without a pause while the heartbeat timeout changes, up and down,
// by any step.
func TestChangeOfHeartbeatKeepsTheLease(t *testing.T) {
	ms := time.Millisecond
	for _, nodes := range []int{1, 3, 5} {
		for _, steps := range [][]time.Duration{
			{300 * ms, 2 * time.Second, 300 * ms},
			{300 * ms, 6667 * ms, 300 * ms},
			{2 * time.Second, 200 * ms, 2 * time.Second},
			{20 * ms, 10 * time.Second, 20 * ms, 300 * ms, 100 * ms, 101 * ms},
			{10 * time.Second, 20 * ms},
		} {
			t.Run(fmt.Sprintf("%d-nodes-%v", nodes, steps), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSim(t, simOptions{seed: 1, nodes: nodes, hb: steps[0], busy: true})
					defer s.end()
					s.quiet()
					owner := s.owner()
					term := owner.proc.raft.CurrentTerm()
					for _, d := range steps[1:] {
						if gap := s.retime(owner, d); gap > 0 {
							t.Errorf("to %v: nobody answered for %v", d, gap)
						}
					}
					if now := owner.proc.raft.CurrentTerm(); now != term {
						t.Errorf("term %d became %d", term, now)
					}
					if nodes == 1 {
						return
					}
					// And it counts: the owner fails, and another answers after the new timeout,
					// once the promises of before have run out.
					last := steps[len(steps)-1]
					s.advance(10 * time.Second)
					owner.kill()
					s.within(last*3/2+20*ms, "another answers", func() bool { o := s.owner(); return o != nil && o != owner })
				})
			})
		}
	}
}
