package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/internal/testnet"
)

// show is the demonstration in its scenes.
type show struct {
	*e2e.Cluster
	vip    netip.Addr
	prober *testnet.Prober
	client *testnet.Client
}

func (s *show) play(ctx context.Context) error {
	for _, scene := range []func(context.Context) error{s.found, s.kill, s.move, s.judge} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

// found founds the cluster with the commands that an operator types.
func (s *show) found(ctx context.Context) error {
	var err error
	if s.prober, err = s.Lab.StartProber(testnet.ProberOptions{VIPs: []netip.Addr{s.vip}}); err != nil {
		return err
	}
	address := s.vip.String() + "/24@eth0"
	say("\n1. Found a cluster")
	for i, n := range s.Nodes {
		if i == 0 {
			say("   %s (%v)  $ raftvip init --vip %s; raftvip run", n.Name, n.Host.Addr4(testnet.Front), address)
		} else {
			say("   %s (%v)  $ raftvip join %v --token ...; raftvip run", n.Name, n.Host.Addr4(testnet.Front), s.Nodes[0].Host.Addr4(testnet.Front))
		}
	}
	if err := s.Found(ctx, "--vip", address); err != nil {
		return err
	}
	owner, err := s.answering(ctx, nil)
	if err != nil {
		return err
	}
	say("   %s owns %v: %v answers for it.", owner.Name, s.vip, owner.Host.MAC(testnet.Front))
	s.client, err = s.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: s.vip})
	if err != nil {
		return err
	}
	return s.served(ctx)
}

// kill kills the owner, and brings it back.
func (s *show) kill(ctx context.Context) error {
	old, err := s.answering(ctx, nil)
	if err != nil {
		return err
	}
	say("\n2. Kill the owner")
	say("   %s  $ kill -9 %d", old.Name, old.Daemon().Pid())
	since := s.client.Mark("kill")
	if err := old.Kill(); err != nil {
		return err
	}
	owner, err := s.answering(ctx, s.Others(old))
	if err != nil {
		return err
	}
	gap, err := s.gap(ctx, since)
	if err != nil {
		return err
	}
	if gap.Lost == 0 {
		return errors.New("the client has not noticed that the owner was killed")
	}
	st, err := owner.Status(ctx)
	if err != nil {
		return err
	}
	say("   %s owns it now: %v answers.", owner.Name, owner.Host.MAC(testnet.Front))
	say("   The client was without an answer for %s.", milliseconds(gap))
	say("   (heartbeat_timeout is %v. The dead node's kernel goes on answering until its", time.Duration(st.Cluster.HeartbeatTimeout*float64(time.Second)))
	say("   lease ends, and then drops everything; only after that does another answer.)")
	say("   %s  $ raftvip run        # it comes back, and follows", old.Name)
	if err := old.Start(); err != nil {
		return err
	}
	if err := s.WaitFormed(ctx); err != nil {
		return err
	}
	after, err := s.answering(ctx, nil)
	if err != nil {
		return err
	}
	if after != owner {
		return fmt.Errorf("the address has moved from %s to %s though nobody asked", owner.Name, after.Name)
	}
	say("   All three vote again; the address stays on %s.", owner.Name)
	return nil
}

// move moves the address as for maintenance.
func (s *show) move(ctx context.Context) error {
	owner, err := s.answering(ctx, nil)
	if err != nil {
		return err
	}
	to := s.Others(owner)[0]
	say("\n3. Move the address")
	say("   %s  $ raftvip transfer %s", owner.Name, to.Name)
	since := s.client.Mark("transfer")
	if _, err := owner.Must(ctx, "transfer", to.Name); err != nil {
		return err
	}
	if _, err := s.answering(ctx, []*e2e.Node{to}); err != nil {
		return err
	}
	gap, err := s.gap(ctx, since)
	if err != nil {
		return err
	}
	say("   %s owns it now: %v answers.", to.Name, to.Host.MAC(testnet.Front))
	say("   The client was without an answer for %s.", milliseconds(gap))
	if _, err := s.WaitAgreed(ctx, to.Name); err != nil {
		return err
	}
	r, err := owner.Must(ctx, "history")
	if err != nil {
		return err
	}
	say("\n   %s  $ raftvip history\n%s", owner.Name, indent(r.Stdout))
	return nil
}

// judge says whether two machines ever answered at once.
func (s *show) judge(context.Context) error {
	s.client.Stop()
	s.prober.Stop()
	report, stats := s.prober.Check(), s.prober.Stats()
	say("4. Did two machines ever answer at the same time?")
	if err := report.Err(); err != nil {
		return err
	}
	if stats.Answers == 0 || stats.Dropped > 0 {
		return fmt.Errorf("the observer was too slow to tell: %d answers, %d packets lost", stats.Answers, stats.Dropped)
	}
	say("   Never. An observer asked everyone, every millisecond from before the first")
	say("   daemon ran: %d answers, from one MAC address at any instant.", stats.Answers)
	return nil
}

// answering waits until exactly one node answers for the address, one of these if
// any are given.
func (s *show) answering(ctx context.Context, among []*e2e.Node) (*e2e.Node, error) {
	var hosts []*testnet.Host
	for _, n := range among {
		hosts = append(hosts, n.Host)
	}
	h, err := s.Lab.WaitOwner(ctx, s.vip, hosts...)
	if err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		if n.Host == h {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%s answers, which is no node", h)
}

// served waits until the client has been answered for a while.
func (s *show) served(ctx context.Context) error {
	before := s.client.Stats().Answered
	return testnet.WaitFor(ctx, "answers to the client", func() error {
		if n := s.client.Stats().Answered - before; n < 200 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
}

// gap returns the longest outage since a moment, when it is over.
func (s *show) gap(ctx context.Context, since time.Duration) (testnet.Outage, error) {
	if err := s.served(ctx); err != nil {
		return testnet.Outage{}, err
	}
	var longest testnet.Outage
	for _, o := range s.client.Outages(since) {
		if o.Gap > longest.Gap {
			longest = o
		}
	}
	if longest.Open {
		return longest, errors.New("the client is still without an answer")
	}
	return longest, nil
}

func milliseconds(o testnet.Outage) string {
	if o.Lost == 0 {
		return "less than a millisecond"
	}
	text := fmt.Sprintf("%.0f ms", float64(o.Gap)/float64(time.Millisecond))
	if o.Blind > 5*time.Millisecond {
		text += fmt.Sprintf(" (for %.0f ms of it this machine stalled)", float64(o.Blind)/float64(time.Millisecond))
	}
	return text
}

func indent(s string) string {
	return "   " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n   ") + "\n"
}

// blame prints what the daemons said last, when something did not happen.
func (s *show) blame() {
	for _, n := range s.Nodes {
		if n.Daemon() != nil {
			fmt.Fprintf(os.Stderr, "--- the log of %s:\n%s\n", n.Name, n.Daemon().Tail(3000))
		}
	}
}
