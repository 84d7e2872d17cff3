package group

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// assume makes leadership usable: everything committed before must be applied
// here first, so that the owner acts on the newest address list. A log that is
// applied to its end has it all; else the first commit of this term is waited for,
// which takes a write to the disks of a majority.
func (g *Group) assume(ctx context.Context) {
	term := g.raft.CurrentTerm()
	// Else it could be another leader's, of a term before the one that this node has
	// won meanwhile, and voters would take a heartbeat of it for that leader's.
	if !g.leads(term) {
		return
	}
	g.confirm(term)
	within := g.assumeBound()
	began := g.now()
	if !g.await(ctx, term, within, "its log is not applied to the end", g.waitApplied) {
		return
	}
	if left := within - (g.now() - began); left > 0 {
		within = left // both together
	}
	g.log.Info("leader", "term", term)
	if s := g.members(); s.Founded() {
		g.SetTiming(s.Version, s.Heartbeat) // before a lease is counted by it
	}
	g.fence.lead(term)
	Signal(g.led)
	Signal(g.pace)
	Signal(g.hear)
	Signal(g.unbound) // if it was given away before
	g.changed.Notify()
	if !g.await(ctx, term, within, "no majority of the voters confirms that they follow it", g.awaitLease) {
		return
	}
	g.gaveUp.Store(false)
	g.setObstacle("")
}

const (
	// appliedPoll is how often a new leader looks whether everything is applied.
	appliedPoll = time.Millisecond
	// appliedLate is the time after which it says that it still waits.
	appliedLate = time.Second
)

// waitApplied returns true when everything committed before is applied here, and
// false if the leadership ends first. Raft's own barrier is not used: in v1.8.0 it
// may stay unanswered for ever when leadership is lost.
func (g *Group) waitApplied(ctx context.Context, term uint64) bool {
	began, said := g.now(), false
	for {
		done := g.appliedAll()
		if ctx.Err() != nil || !g.leads(term) {
			return false
		}
		if done {
			return true
		}
		if !said && g.now()-began > appliedLate {
			said = true
			g.log.Warn("leader, but cannot commit yet: no majority has written the log", "term", term)
		}
		select {
		case <-time.After(appliedPoll):
		case <-ctx.Done():
		}
	}
}

// confirm asks the voters at once whether they follow: Raft's own first heartbeat
// comes up to a fifth of the timeout later, or behind a write to its disk. What is
// sent is just such a heartbeat, of a leader that has won its term. A voter that has
// not answered the last one of that term is not asked again.
func (g *Group) confirm(term uint64) {
	self := g.trans.EncodePeer(raft.ServerID(g.self), g.trans.LocalAddr())
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == g.self || !g.beating.begin(s.ID, term) {
			continue
		}
		g.calls.Go(func() {
			defer g.beating.end(s.ID, term)
			req := &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.self), Addr: self},
				Term:      term,
			}
			// An error is a voter that does not answer; Raft will go on asking it.
			_ = g.trans.append(s.ID, s.Address, req, &raft.AppendEntriesResponse{})
		})
	}
}

// beats are the heartbeats of confirm that are under way: the newest term of each voter.
type beats struct {
	mu   sync.Mutex
	term map[raft.ServerID]uint64
}

func (b *beats) begin(id raft.ServerID, term uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.term[id] >= term {
		return false
	}
	if b.term == nil {
		b.term = make(map[raft.ServerID]uint64)
	}
	b.term[id] = term
	return true
}

func (b *beats) end(id raft.ServerID, term uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.term[id] == term {
		delete(b.term, id)
	}
}

// appliedAll tells whether the log holds no command that is not applied here.
// What the leaders before have committed is in the log of whoever is elected
// (Raft thesis, 3.5 Leader Completeness), so nothing is missing then. What the log
// does not hold any more is in a snapshot, and that is applied.
func (g *Group) appliedAll() bool {
	first, err := g.logs.FirstIndex()
	if err != nil {
		return false
	}
	last := g.raft.LastIndex()
	for i := max(g.machine.applied.Load()+1, first); i <= last; i++ {
		var entry raft.Log
		if err := g.logs.GetLog(i, &entry); err != nil || entry.Type == raft.LogCommand {
			return false
		}
	}
	return true
}

// termAt returns the term of an entry of the log, 0 for one that is not in it.
func (g *Group) termAt(index uint64) uint64 {
	var entry raft.Log
	if err := g.logs.GetLog(index, &entry); err != nil {
		return 0
	}
	return entry.Term
}
