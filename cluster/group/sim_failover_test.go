package group

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A busyTransport is a machine that has other work: Raft gets what came in a
// moment later, and now and then much later.
type busyTransport struct {
	*leaseTransport
	mu       sync.Mutex
	rng      *rand.Rand
	consumer chan raft.RPC
}

func (b *busyTransport) work() {
	b.mu.Lock()
	d := time.Duration(b.rng.Int64N(int64(500 * time.Microsecond)))
	if b.rng.IntN(10) == 0 {
		d = time.Duration(b.rng.Int64N(int64(6 * time.Millisecond)))
	}
	b.mu.Unlock()
	time.Sleep(d)
}

func (b *busyTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	b.leaseTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		b.work()
		handle(rpc)
	})
}

func (b *busyTransport) Consumer() <-chan raft.RPC { return b.consumer }

// newBusyTransport returns a transport that takes requests in order.
func newBusyTransport(t *leaseTransport, seed uint64) raft.Transport {
	b := &busyTransport{leaseTransport: t, rng: rand.New(rand.NewPCG(seed, 2)), consumer: make(chan raft.RPC)}
	go func() {
		for {
			select {
			case rpc := <-t.Consumer():
				b.work()
				select {
				case b.consumer <- rpc:
				case <-t.done:
					return
				}
			case <-t.done:
				return
			}
		}
	}()
	return b
}

// failovers has the owner fail again and again, and returns for how long nobody
// answered each time, in heartbeat timeouts, and how often the best node won the
// first election.
func failovers(t *testing.T, nodes int, hb time.Duration, n int, fault func(*sim, *simHost)) (gaps []float64, bestFirst int) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, simOptions{seed: 1, nodes: nodes, hb: hb, busy: true})
		defer s.end()
		s.quiet()
		for range n {
			s.advance(time.Duration(s.rng.Int64N(int64(hb))))
			owner := s.owner()
			term := owner.proc.group.Standing().Term
			best := s.hosts[0]
			if best == owner {
				best = s.hosts[1]
			}
			began := owner.trueNow()
			fault(s, owner)
			var winner *simHost
			s.within(20*time.Second, "another node answers", func() bool {
				for _, h := range s.hosts {
					if h != owner && h.answers() {
						winner = h
					}
				}
				return winner != nil
			})
			gaps = append(gaps, float64(owner.trueNow()-began)/float64(hb))
			if winner == best && winner.proc.group.Standing().Term == term+1 {
				bestFirst++
			}
			s.net.healAll()
			if owner.proc == nil {
				owner.boot()
			}
			owner.thaw()
			s.quiet()
			s.advance(max(s.net.timeout, 2*hb)) // until the one that is back has the log
		}
	})
	slices.Sort(gaps)
	return gaps, bestFirst
}

// The targets of the design, in virtual time, on machines that are a little busy.
// RAFTVIP_SIM_FAILOVERS is how often each owner fails.
func TestFailoverTakesOneHeartbeatTimeout(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("RAFTVIP_SIM_FAILOVERS"))
	if err != nil {
		n = 20
	}
	faults := []struct {
		name string
		do   func(*sim, *simHost)
	}{
		{"kill", func(_ *sim, h *simHost) { h.kill() }},
		{"freeze", func(_ *sim, h *simHost) { h.freeze() }},
		{"cut", func(s *sim, h *simHost) {
			for _, o := range s.hosts {
				if o != h {
					s.net.change(h.name, o.name, func(l *simLink) { l.healed = make(chan struct{}) })
					s.net.change(o.name, h.name, func(l *simLink) { l.healed = make(chan struct{}) })
				}
			}
		}},
		{"deaf", func(s *sim, h *simHost) { // it is heard, and hears nothing
			for _, o := range s.hosts {
				if o != h {
					s.net.change(o.name, h.name, func(l *simLink) { l.healed = make(chan struct{}) })
				}
			}
		}},
	}
	for _, fault := range faults {
		for _, nodes := range []int{3, 5} {
			for _, hb := range []time.Duration{50 * time.Millisecond, 300 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s-%d-%v", fault.name, nodes, hb), func(t *testing.T) {
					gaps, bestFirst := failovers(t, nodes, hb, n, fault.do)
					median, worst := gaps[len(gaps)/2], gaps[len(gaps)-1]
					t.Logf("gap in heartbeat timeouts: median %.2f, worst %.2f; best node first: %d of %d", median, worst, bestFirst, n)
					ms := float64(time.Millisecond) / float64(hb)
					if median > 1.1+5*ms {
						t.Errorf("median gap of %.2f heartbeat timeouts", median)
					}
					if worst > 1.5+20*ms {
						t.Errorf("worst gap of %.2f heartbeat timeouts", worst)
					}
					if bestFirst < n*8/10 {
						t.Errorf("the best node won only %d of %d first elections", bestFirst, n)
					}
				})
			}
		}
	}
}
