package group

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/lease"
	"github.com/raftvip/raftvip/cluster/state"
)

// SetTiming applies the heartbeat setting of the replicated state of a version. A
// state that is older than one that was applied before changes nothing.
//
// Voters promise the longer of the old and the new value, so that Raft's timeouts are
// the longer one too. A leader counts on the shorter: until all voters have changed
// it keeps its lease by heartbeats of its own (keepPace).
func (g *Group) SetTiming(version uint64, h state.HeartbeatSetting) {
	g.fence.setTiming(version, h.Promise(), lease.Length(h.Counted()))
	Signal(g.pace)
	g.reload <- struct{}{}
	defer func() { <-g.reload }()
	heartbeat, _ := g.fence.timing() // a later caller may have been faster
	was := g.raft.ReloadableConfig().HeartbeatTimeout
	if was == heartbeat {
		return
	}
	// Raft's heartbeats of before may be waited for up to a fifth of the old timeout, and
	// evidence for the new lease there is none.
	g.unsteady.Store(int64(g.now() + max(was, heartbeat)))
	if err := g.retime(heartbeat); err != nil {
		g.log.Warn("heartbeat_timeout takes effect at the next start", "heartbeat_timeout", heartbeat, "error", err)
	}
	if g.retimed != nil {
		g.retimed(heartbeat)
	}
	Signal(g.pace)
}

// retime gives Raft other timeouts while it runs. The caller holds a token of reload.
func (g *Group) retime(heartbeat time.Duration) error {
	rc := g.raft.ReloadableConfig()
	grows := heartbeat > rc.HeartbeatTimeout
	rc.HeartbeatTimeout, rc.ElectionTimeout = heartbeat, heartbeat
	// Raft wants its leader's lease to be the shorter one at each step.
	if grows {
		if err := g.raft.ReloadConfig(rc); err != nil {
			return err
		}
	}
	if err := setLeaderLease(g.raft, heartbeat-wakeEarly); err != nil {
		return err
	}
	if grows {
		return nil
	}
	return g.raft.ReloadConfig(rc)
}

// setLeaderLease changes Raft's LeaderLeaseTimeout while it runs. Raft v1.8.0 reads it
// anew, with all of its configuration, each time it looks at its lease, but
// ReloadConfig leaves it out. Whatever ReloadConfig changes it stores in the same
// atomic value. The callers of both take turns.
func setLeaderLease(r *raft.Raft, d time.Duration) error {
	conf, err := configOf(r)
	if err != nil {
		return err
	}
	c := conf.Load().(raft.Config)
	c.LeaderLeaseTimeout = d
	if err := raft.ValidateConfig(&c); err != nil {
		return err
	}
	conf.Store(c)
	return nil
}

// configOf finds the configuration of a running Raft. A Raft that keeps it elsewhere
// is found when a group is opened, and in tests long before.
func configOf(r *raft.Raft) (*atomic.Value, error) {
	v := reflect.ValueOf(r).Elem().FieldByName("conf")
	if !v.IsValid() || v.Type() != reflect.TypeFor[atomic.Value]() {
		return nil, fmt.Errorf("this version of Raft keeps its configuration elsewhere")
	}
	conf := (*atomic.Value)(v.Addr().UnsafePointer())
	if _, ok := conf.Load().(raft.Config); !ok {
		return nil, fmt.Errorf("this version of Raft keeps another configuration")
	}
	return conf, nil
}

// paceShare is the share of its length at which a lease is renewed, while Raft's own
// heartbeats do not suffice.
const paceShare = 7

// paceOf decides whether a leader needs heartbeats besides Raft's, and when to look
// again. Raft's leave at the pace of its own timeout, which is the longer one while a
// change is under way, and after it for a while that of before.
func paceOf(now, until, promise, length, unsteady time.Duration) (beat bool, next time.Duration) {
	if length >= lease.Length(promise) && now >= unsteady {
		return false, lookAgain
	}
	// The lease may still be one of before the timeout grew.
	return true, max(min(length, until-now)/paceShare, min(length/paceShare, 5*time.Millisecond))
}

// keepPace sends the heartbeats that paceOf asks for.
func (g *Group) keepPace(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-g.pace:
		case <-ctx.Done():
			return
		}
		next := lookAgain
		if term, until := g.fence.until(); term != 0 {
			var beat bool
			promise, length := g.fence.timing()
			if beat, next = paceOf(g.now(), until, promise, length, time.Duration(g.unsteady.Load())); beat && g.leads(term) {
				g.confirm(term)
			}
		}
		timer.Reset(due(next))
	}
}
