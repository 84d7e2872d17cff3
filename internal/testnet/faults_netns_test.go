package testnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// pair is an established TCP connection between two hosts that carries counters
// both ways, one every millisecond, independently of each other.
type pair struct {
	a, b     net.Conn
	atA, atB atomic.Uint64 // what has arrived
}

func connect(t *testing.T, from, to *Host, n Network) *pair {
	t.Helper()
	var ln net.Listener
	err := to.Do(func() error {
		var err error
		ln, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr4(n), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	p := &pair{}
	accepted := make(chan error, 1)
	go func() {
		var err error
		p.b, err = ln.Accept()
		accepted <- err
	}()
	err = from.Do(func() error {
		// A literal address: a name would be dialled by other goroutines, elsewhere.
		var err error
		p.a, err = net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
		return err
	})
	if err = errors.Join(err, <-accepted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.a.Close(); p.b.Close() })
	send := func(c net.Conn) {
		for i := uint64(1); ; i++ {
			if _, err := c.Write(binary.BigEndian.AppendUint64(nil, i)); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	receive := func(c net.Conn, at *atomic.Uint64) {
		var b [8]byte
		for {
			if _, err := io.ReadFull(c, b[:]); err != nil {
				return
			}
			at.Store(binary.BigEndian.Uint64(b[:]))
		}
	}
	go send(p.a)
	go send(p.b)
	go receive(p.a, &p.atA)
	go receive(p.b, &p.atB)
	p.mustFlow(t, "at the start", true, true)
	return p
}

// flows tells which directions carry data within 300 ms.
func (p *pair) flows() (aToB, bToA bool) {
	b0, a0 := p.atB.Load(), p.atA.Load()
	for range 300 {
		time.Sleep(time.Millisecond)
		aToB, bToA = p.atB.Load() > b0, p.atA.Load() > a0
		if aToB && bToA {
			return
		}
	}
	return
}

func (p *pair) mustFlow(t *testing.T, when string, aToB, bToA bool) {
	t.Helper()
	MustWait(t, 10*time.Second, "flow "+when, func() error {
		if x, y := p.flows(); x != aToB || y != bToA {
			return fmt.Errorf("flows %v and back %v, want %v and %v", x, y, aToB, bToA)
		}
		return nil
	})
}

// heard counts the datagrams that arrive in 100 ms, one sent every millisecond.
func heard(t *testing.T, from, to *Host, n Network) int {
	t.Helper()
	var rx, tx net.PacketConn
	err := errors.Join(
		to.Do(func() error {
			var err error
			rx, err = net.ListenPacket("udp4", netip.AddrPortFrom(to.Addr4(n), 0).String())
			return err
		}),
		from.Do(func() error {
			var err error
			tx, err = net.ListenPacket("udp4", netip.AddrPortFrom(from.Addr4(n), 0).String())
			return err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer rx.Close()
	defer tx.Close()
	for range 100 {
		_, _ = tx.WriteTo([]byte("x"), rx.LocalAddr())
		time.Sleep(time.Millisecond)
	}
	_ = rx.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	for got := 0; ; got++ {
		if _, _, err := rx.ReadFrom(make([]byte, 8)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return got
		}
	}
}

func TestCutIsOneWay(t *testing.T) {
	l := ForTest(t, Options{})
	n1, n2, n3, c := l.Node(0), l.Node(1), l.Node(2), l.Client(0)
	tcp := connect(t, n1, n2, Front)
	for _, h := range []*Host{n1, n2, n3} { // neighbours known, so that UDP is one-way too
		heard(t, h, c, Front)
		heard(t, c, h, Front)
	}
	heard(t, n1, n2, Front)

	if err := l.Cut(n1, n2); err != nil {
		t.Fatal(err)
	}
	if got := heard(t, n1, n2, Front); got != 0 {
		t.Errorf("n1 to n2: %d datagrams came through a cut", got)
	}
	if got := heard(t, n2, n1, Front); got != 100 {
		t.Errorf("n2 to n1: %d of 100 datagrams, the direction not cut", got)
	}
	for _, h := range []*Host{n1, n2, n3} {
		if in, out := heard(t, c, h, Front), heard(t, h, c, Front); in != 100 || out != 100 {
			t.Errorf("client and %s: %d and %d of 100", h, in, out)
		}
	}
	// TCP in progress: n1's data stops. n2's goes on to arrive, but without
	// acknowledgements only until its window is full or it backs off.
	if x, _ := tcp.flows(); x {
		t.Error("established connection carries data through a cut")
	}
	if err := l.Join(n1, n2); err != nil {
		t.Fatal(err)
	}
	tcp.mustFlow(t, "after Join", true, true)
}

func TestCutOneWayLetsTCPDataIn(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	tcp := connect(t, l.Node(0), l.Node(1), Front)
	if err := l.Cut(l.Node(0), l.Node(1)); err != nil {
		t.Fatal(err)
	}
	before := tcp.atA.Load()
	time.Sleep(5 * time.Millisecond)
	if after := tcp.atA.Load(); after <= before {
		t.Errorf("the direction not cut carried nothing: %d to %d", before, after)
	}
	stuck := tcp.atB.Load()
	time.Sleep(100 * time.Millisecond)
	if tcp.atB.Load() > stuck {
		t.Error("data passed the cut")
	}
}

func TestIsolateAndHeal(t *testing.T) {
	l := ForTest(t, Options{})
	n1, n2, n3, c := l.Node(0), l.Node(1), l.Node(2), l.Client(0)
	if err := l.Isolate(n1); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{n2, n3, c} {
		if x, y := heard(t, n1, h, Front), heard(t, h, n1, Front); x != 0 || y != 0 {
			t.Errorf("isolated n1 and %s: %d and %d datagrams", h, x, y)
		}
	}
	if got := heard(t, n2, n3, Front); got != 100 {
		t.Errorf("n2 to n3: %d of 100", got)
	}
	if h, err := l.Owner(n1.Addr4(Front)); err != nil || h != n1 {
		t.Errorf("observer does not see the isolated node: %v, %v", h, err)
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "healed network", func() error {
		if got := heard(t, n2, n1, Front); got != 100 {
			return fmt.Errorf("%d of 100", got)
		}
		return nil
	})
}

func TestPeerNetworkIsCutAlone(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2, PeerNetwork: true})
	a, b := l.Node(0), l.Node(1)
	if err := l.CutBoth(a, b, Peer); err != nil {
		t.Fatal(err)
	}
	if x, y := heard(t, a, b, Peer), heard(t, a, b, Front); x != 0 || y != 100 {
		t.Errorf("peer network %d, front %d: want 0, 100", x, y)
	}
}

func TestLinkDown(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	a, b := l.Node(0), l.Node(1)
	carrier := func(want string) {
		t.Helper()
		MustWait(t, 5*time.Second, "carrier "+want, func() error {
			var got []byte
			err := a.Do(func() error {
				link, err := a.nl.LinkByIndex(a.links[Front])
				if err == nil {
					got = []byte(link.Attrs().OperState.String())
				}
				return err
			})
			if err != nil || string(got) != want {
				return fmt.Errorf("%s, %v", got, err)
			}
			return nil
		})
	}
	carrier("up")
	start := time.Now()
	if err := l.LinkDown(a); err != nil {
		t.Fatal(err)
	}
	carrier("down")
	t.Logf("down seen after %v", time.Since(start))
	if ok, err := a.Has(a.Addr4(Front)); !ok {
		t.Errorf("address went with the carrier: %v", err)
	}
	if got := heard(t, a, b, Front); got != 0 {
		t.Errorf("%d datagrams over a link that is down", got)
	}
	start = time.Now()
	if err := l.LinkUp(a); err != nil {
		t.Fatal(err)
	}
	carrier("up")
	t.Logf("up seen after %v", time.Since(start))
	MustWait(t, 5*time.Second, "traffic", func() error {
		if got := heard(t, a, b, Front); got != 100 {
			return fmt.Errorf("%d of 100", got)
		}
		return nil
	})
}

func TestDelay(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	a, c := l.Node(0), l.Client(0)
	ctl := StartControl(0)
	defer ctl.Stop()
	cl, err := c.StartClient(ClientOptions{VIP: a.Addr4(Front), AnswerWithin: 200 * ms})
	if err != nil {
		t.Fatal(err)
	}
	var sent int
	measure := func() (float64, int) {
		time.Sleep(50 * time.Millisecond) // what is under way
		before := cl.Stats()
		time.Sleep(200 * time.Millisecond)
		after := cl.Stats()
		n := after.Answered - before.Answered
		sent = after.Sent - before.Sent
		sum := after.MeanRTT*time.Duration(after.Answered) - before.MeanRTT*time.Duration(before.Answered)
		return float64(sum) / float64(max(n, 1)) / float64(ms), n
	}
	base, _ := measure()
	for _, d := range []time.Duration{5 * ms, 20 * ms} {
		if err := l.Delay(a, c, d); err != nil {
			t.Fatal(err)
		}
		began := boottime.Now()
		rtt, n := measure()
		stall := float64(ctl.Total(began, boottime.Now())) / float64(ms)
		t.Logf("delay %v one way: round trip %.2f ms (without: %.2f), %d answers to %d requests", d, rtt, base, n, sent)
		want := float64(d) / float64(ms)
		if rtt < want || rtt > want+base+10+stall || n < sent*9/10 {
			t.Errorf("delay %v: round trip %.2f ms, %d answers", d, rtt, n)
		}
	}
	// TCP with its offloads survives, other pairs are not touched, a cut wins.
	tcp := connect(t, a, c, Front)
	tcp.mustFlow(t, "delayed", true, true)
	bulk(t, a, c, 4<<20)
	if got := heard(t, l.Node(1), c, Front); got != 100 {
		t.Errorf("n2 to client: %d of 100", got)
	}
	if err := l.Cut(a, c); err != nil {
		t.Fatal(err)
	}
	if _, n := measure(); n != 0 {
		t.Errorf("%d answers through a cut", n)
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "short round trips", func() error {
		if rtt, n := measure(); rtt > base+2 || n < sent*9/10 {
			return fmt.Errorf("round trip %.2f ms, %d answers", rtt, n)
		}
		return nil
	})
}

// bulk sends n bytes by TCP and checks that they arrive.
func bulk(t *testing.T, from, to *Host, n int) {
	t.Helper()
	var ln net.Listener
	var conn net.Conn
	err := to.Do(func() error {
		var err error
		ln, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr4(Front), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	if err := from.Do(func() error {
		var err error
		conn, err = net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer conn.Close()
		_, _ = conn.Write(make([]byte, n))
	}()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_ = in.SetReadDeadline(time.Now().Add(20 * time.Second))
	start := time.Now()
	got, err := io.Copy(io.Discard, in)
	if err != nil || got != int64(n) {
		t.Fatalf("%d of %d bytes: %v", got, n, err)
	}
	t.Logf("%d bytes through the relay in %v", n, time.Since(start))
}

func TestExecEndsWithContext(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.Node(0).Exec(ctx, "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
