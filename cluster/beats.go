package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// maxBeatConns is how many connections for beats one member may have here: the one
	// in use, and one that it has not yet given up.
	maxBeatConns = 2
	// beatHello bounds how long the first message of such a connection may take.
	beatHello = 5 * time.Second
)

// dialBeat opens a connection for beats. The first message on it is where this node is
// reached.
func (n *Node) dialBeat(ctx context.Context, node, address string) (beat.Conn, error) {
	conn, err := n.port.DialNode(ctx, pki.ProtoBeat, address, node)
	if err != nil {
		if strings.Contains(err.Error(), "no application protocol") { // crypto/tls has no name for it
			err = fmt.Errorf("%w: %w", beat.ErrUnsupported, err)
		}
		return nil, err
	}
	c := beat.NewConn(conn)
	if err := c.Send([]byte(n.opts.Advertise)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// keepBeats keeps a connection for beats to every member.
func (n *Node) keepBeats(ctx context.Context) {
	ticks := tick.New(membershipInterval)
	defer ticks.Stop()
	for {
		members := n.State().Nodes
		for id, node := range members {
			if id != n.opts.Identity.NodeID {
				n.beats.Warm(id, node.Address)
			}
		}
		n.beats.Forget(func(id string) bool { _, ok := members[id]; return ok })
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// answerBeats answers members' beats until ctx ends.
func (n *Node) answerBeats(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { n.port.Beats.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	var mu sync.Mutex
	open := make(map[string][]*port.Conn) // by node ID, oldest first
	for {
		accepted, err := n.port.Beats.Accept()
		if err != nil {
			return // the port is closed
		}
		conn, ok := accepted.(*port.Conn)
		if !ok {
			accepted.Close()
			continue
		}
		mu.Lock()
		open[conn.Peer] = append(open[conn.Peer], conn)
		if all := open[conn.Peer]; len(all) > maxBeatConns {
			all[0].Close()
		}
		mu.Unlock()
		conns.Go(func() {
			err := n.answerBeatsOf(conn)
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			kept := open[conn.Peer][:0]
			for _, c := range open[conn.Peer] {
				if c != conn {
					kept = append(kept, c)
				}
			}
			if open[conn.Peer] = kept; len(kept) == 0 {
				delete(open, conn.Peer)
			}
			if errors.Is(err, beat.ErrFormat) && n.port.Refusals.News(conn.Peer+err.Error(), time.Now()) {
				n.log.Warn("closed a connection", "member", n.nameOf(conn.Peer), "reason", err)
			}
		})
	}
}

func (n *Node) answerBeatsOf(conn *port.Conn) error {
	from := group.Speaker{ID: conn.Peer}
	if run, ok := identity.ParseRun(conn.Run); ok {
		from.Boot = run.Boot
	}
	conn.SetReadDeadline(time.Now().Add(beatHello))
	c := beat.NewConn(conn)
	hello, err := c.Receive()
	if err != nil {
		return err
	}
	address := string(hello)
	if err := state.CheckAddress(address); err != nil {
		return fmt.Errorf("%w: %.80q for an address", beat.ErrFormat, address)
	}
	conn.SetReadDeadline(time.Time{})
	return beat.Serve(c, func(l beat.Led) beat.Result {
		g := n.Group(l.Group)
		if g == nil {
			return beat.Result{Verdict: beat.Failed, Why: "no such group here"}
		}
		return g.Beaten(from, address, l.Term)
	})
}
