//go:build linux

package vip_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An asker asks for one IPv4 address each millisecond from the other side, each time
// from another hardware address, so that it is known which question was answered.
type asker struct {
	addr netip.Addr
	stop func()

	mu       sync.Mutex
	asked    []time.Duration // boottime, before the question was sent
	answered map[int]bool
}

func (l *lab) ask(addr netip.Addr) *asker {
	l.t.Helper()
	a := &asker{addr: addr, answered: map[int]bool{}}
	var fd int
	var to unix.SockaddrLinklayer
	l.atPeer(func() {
		link, err := netlink.LinkByName("p0")
		l.must(err)
		l.must(netlink.SetPromiscOn(link))
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ARP)))
		l.must(err)
		l.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
		to = unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: htons(unix.ETH_P_ARP), Halen: 6}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			a.mu.Lock()
			a.asked = append(a.asked, boottime.Now())
			a.mu.Unlock()
			mac := binary.BigEndian.AppendUint32([]byte{2, 0x77}, uint32(i))
			_ = unix.Sendto(fd, question(mac, addr), 0, &to)
			<-tick.C
		}
	})
	wg.Go(func() {
		buf := make([]byte, 2048)
		for ctx.Err() == nil {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == nil && isAnswer(buf[:n], addr) && buf[0] == 2 && buf[1] == 0x77 {
				a.mu.Lock()
				a.answered[int(binary.BigEndian.Uint32(buf[2:]))] = true
				a.mu.Unlock()
			}
		}
	})
	a.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = unix.Close(fd)
	})
	l.atClose(a.stop)
	return a
}

// between returns the answers to what was asked in that time, and how many questions
// were not answered.
func (a *asker) between(from, to time.Duration) (answers []testnet.Answer, not int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, at := range a.asked {
		switch {
		case at < from || at >= to:
		case a.answered[i]:
			answers = append(answers, testnet.Answer{At: at, VIP: a.addr, Holder: "this node", Probe: uint64(i + 1)})
		default:
			not++
		}
	}
	return answers, not
}

// as returns the answers of a node that answered all questions from then on.
func (a *asker) as(holder string, from time.Duration) (answers []testnet.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, at := range a.asked {
		if at >= from {
			answers = append(answers, testnet.Answer{At: at, VIP: a.addr, Holder: holder, Probe: uint64(i + 1)})
		}
	}
	return answers
}

// stuckHost is a kernel that deletes nothing while stuck.
type stuckHost struct {
	vip.Host
	stuck func() bool
}

func (h stuckHost) Change(changes []vip.Change) []error {
	if !h.stuck() || changes[0].Kind != vip.DeleteAddress {
		return h.Host.Change(changes)
	}
	errs := make([]error, len(changes))
	for i := range errs {
		errs[i] = errors.New("it is stuck")
	}
	return errs
}

// TestMoveOnKernel: an address that becomes another group's obeys that one's gate from
// the moment on from which the one before has it no more: it answers without a break
// where that gate is open, and not once where it is shut, as another node may answer,
// though the kernel does not delete it.
func TestMoveOnKernel(t *testing.T) {
	x := netip.MustParseAddr("10.0.0.5")
	for _, kind := range []guard.Kind{guard.BPFClsact, guard.NFT} {
		for _, tt := range []struct {
			name               string
			before, after, own bool
		}{
			{"valid to valid", true, true, true},
			{"valid to shut", true, false, true},
			{"valid to not owned", true, false, false},
			{"shut to valid", false, true, true},
			{"shut to shut", false, false, true},
			{"shut to not owned", false, false, false},
		} {
			t.Run(string(kind)+" "+tt.name, func(t *testing.T) {
				l := newLab(t)
				g, err := guard.Open(guard.Options{Kind: kind, Instance: "moves"})
				l.must(err)
				l.atClose(func() { _ = g.Close() })
				ann := vip.NewAnnouncer()
				l.must(ann.Prepare())
				stuck := make(chan struct{})
				k := vip.NewKeeper(vip.KeeperConfig{Announcer: ann, Guard: g, Lifetime: 30 * time.Second, Host: stuckHost{l.host, func() bool {
					select {
					case <-stuck:
						return false
					default:
						return true
					}
				}}})
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error)
				go func() { done <- k.Run(ctx) }()
				l.atClose(func() {
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
					_ = ann.Close()
				})
				gates := []*vip.Gate{vip.NewGate(g, 1, nil), vip.NewGate(g, 2, nil)}
				one, two := k.Hold(gates[0]), k.Hold(gates[1])
				open := func(i int, open bool) {
					if !open {
						gates[i].Shut()
						return
					}
					gates[i].Open(1)
					gates[i].Renew(1, boottime.Now()+time.Hour)
				}
				open(0, true)
				open(1, tt.after)
				one.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24"), Schedule: quick})
				// The other one's gate is in the kernel before, as that of a group that has
				// addresses is.
				two.Set(vip.Wanted{Own: tt.own, Term: 1, Addresses: v0("10.0.0.6/24"), Schedule: quick})
				up := func(h *vip.Holding) func() bool {
					return func() bool {
						st := h.Status()
						return st.Applied && st.Addresses[0].Up()
					}
				}
				l.eventually("up", up(one))
				if tt.own && tt.after {
					l.eventually("the other's up", up(two))
				}
				open(0, tt.before)
				a := l.ask(x)
				time.Sleep(20 * time.Millisecond)

				began := boottime.Now()
				vip.SetAll(vip.Want{Holding: one, Wanted: vip.Wanted{Own: true, Term: 1, Schedule: quick}},
					vip.Want{Holding: two, Wanted: vip.Wanted{Own: tt.own, Term: 1, Addresses: v0("10.0.0.6/24", "10.0.0.5/24"), Schedule: quick}})
				l.eventually("moved", func() bool {
					st := one.Status()
					return st.Applied && len(st.Addresses) == 0
				})
				moved := boottime.Now()
				open(0, true) // which is nothing to it
				time.Sleep(100 * time.Millisecond)
				end := boottime.Now()
				a.stop()

				before, unanswered := a.between(0, began)
				if tt.before && len(before) == 0 || !tt.before && len(before) > 0 {
					t.Errorf("%d answers before it was moved", len(before))
				}
				after, not := a.between(moved, end)
				switch {
				case tt.after:
					if _, lost := a.between(began, moved); tt.before && lost+not+unanswered > 0 {
						t.Errorf("not answered: %d before, %d while it was moved, %d after", unanswered, lost, not)
					}
					if len(after) == 0 {
						t.Error("no answer after it was moved")
					}
				default:
					during, _ := a.between(began, moved)
					report := testnet.CheckP1(slices.Concat(before, during, after, a.as("another node", moved)), time.Millisecond)
					if err := report.Err(); err != nil {
						t.Error(err)
					}
				}
				if st := two.Status(); st.Added+st.Removed > 1 || !l.has("v0", "10.0.0.5/32") {
					t.Errorf("it was not on the kernel all the time: %d added, %d removed", st.Added, st.Removed)
				}
				close(stuck)
				if !tt.own {
					l.eventually("off the kernel", func() bool { return !l.has("v0", "10.0.0.5/32") })
				}
			})
		}
	}
}
