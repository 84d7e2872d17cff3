package beat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/internal/testlog"
)

const pace = 100 * time.Millisecond

// A voter is a node that beats are sent to. It answers at once, unless told otherwise.
type voter struct {
	mu     sync.Mutex
	silent bool     // it answers nothing
	kept   [][]byte // what it got and has not answered
	conns  []*voterConn
	beats  []Beat
	at     []time.Duration // when they came
	result func(Led) Result
	dial   error
}

type voterConn struct {
	v      *voter
	now    func() time.Duration
	in     chan []byte
	closed chan struct{}
	once   sync.Once
}

func (c *voterConn) Send(b []byte) error {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	var m Beat
	if err := ParseBeat(b, &m); err != nil {
		return err
	}
	c.v.beats, c.v.at = append(c.v.beats, m), append(c.v.at, c.now())
	if c.v.silent {
		c.v.kept = append(c.v.kept, bytes.Clone(b))
		return nil
	}
	c.reply(b)
	return nil
}

func (c *voterConn) reply(b []byte) {
	var r Replier
	answer, err := r.Reply(b, c.v.result)
	if err != nil {
		panic(err)
	}
	c.in <- bytes.Clone(answer)
}

func (c *voterConn) Receive() ([]byte, error) {
	select {
	case b := <-c.in:
		return b, nil
	case <-c.closed:
		return nil, io.EOF
	}
}

func (c *voterConn) Close() error { c.once.Do(func() { close(c.closed) }); return nil }

// took returns the beats that have come since the last call, and when.
func (v *voter) took() ([]Beat, []time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, at := v.beats, v.at
	v.beats, v.at = nil, nil
	return b, at
}

// A leader is a group whose Raft asks for heartbeats as hashicorp/raft does.
type leader struct {
	mu       sync.Mutex
	term     uint64 // 0: it does not lead
	mark     uint64
	evidence []evidence
}

type evidence struct {
	node string
	term uint64
	sent time.Duration
	mark uint64
	r    Result
}

func (l *leader) Pace() time.Duration { return pace }
func (l *leader) Leads(term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return term == l.term
}

func (l *leader) Mark(string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark++
	return l.mark
}

func (l *leader) Answered(node string, term uint64, sent time.Duration, mark uint64, r Result) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evidence = append(l.evidence, evidence{node, term, sent, mark, r})
	if r.Verdict == Failed {
		return errors.New(r.Why)
	}
	return nil
}

func (l *leader) took() []evidence {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.evidence
	l.evidence = nil
	return e
}

// A lab is one sender and the nodes around it, in virtual time.
type lab struct {
	t      *testing.T
	start  time.Time
	sender *Sender
	voters map[string]*voter
	ctx    context.Context
	stop   context.CancelFunc
	ended  chan error
	rafts  sync.WaitGroup
}

func newLab(t *testing.T, voters ...string) *lab {
	l := &lab{t: t, start: time.Now(), voters: make(map[string]*voter), ended: make(chan error, 1)}
	for _, v := range voters {
		l.voters[v] = &voter{result: func(g Led) Result { return Result{Verdict: Agreed, Term: g.Term, LastLog: 5} }}
	}
	l.sender = NewSender(Options{Now: l.now, Log: testlog.New(t, "a"), Dial: func(_ context.Context, node, _ string) (Conn, error) {
		v := l.voters[node]
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.dial != nil {
			return nil, v.dial
		}
		c := &voterConn{v: v, now: l.now, in: make(chan []byte, 64), closed: make(chan struct{})}
		v.conns = append(v.conns, c)
		return c, nil
	}})
	l.ctx, l.stop = context.WithCancel(context.Background())
	go func() { l.ended <- l.sender.Run(l.ctx) }()
	l.warm()
	return l
}

func (l *lab) now() time.Duration { return time.Hour + time.Since(l.start) }

// warm opens a connection to every node.
func (l *lab) warm() {
	for node := range l.voters {
		l.sender.Warm(node, node)
	}
	synctest.Wait()
}

// end stops the sender, which leaves nothing behind.
func (l *lab) end() {
	l.stop()
	if err := <-l.ended; err != nil {
		l.t.Error(err)
	}
	l.rafts.Wait()
}

// raft asks for heartbeats to a node until the end, as hashicorp/raft does: with a pause
// of a tenth to a fifth of the timeout after each answer.
func (l *lab) raft(group, node string, term uint64) {
	l.rafts.Go(func() {
		for l.ctx.Err() == nil {
			l.sender.Exchange(group, node, node, term)
			time.Sleep(3 * pace / 7)
		}
	})
}

func run(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func TestOneBeatForAllGroupsAndNodesAtOnce(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b", "c")
		g1, g2 := &leader{term: 3}, &leader{term: 9}
		l.sender.Follow("g1", g1)
		l.sender.Follow("g2", g2)
		for _, node := range []string{"b", "c"} {
			l.raft("g1", node, 3)
			time.Sleep(7 * time.Millisecond)
			l.raft("g2", node, 9)
			time.Sleep(7 * time.Millisecond)
		}
		time.Sleep(5 * pace)
		l.voters["b"].took()
		l.voters["c"].took()
		g1.took()
		time.Sleep(10 * pace)
		b, at := l.voters["b"].took()
		_, others := l.voters["c"].took()
		if len(b) != 10 {
			t.Errorf("%d beats in ten intervals", len(b))
		}
		for i, m := range b {
			if len(m.Groups) != 2 {
				t.Errorf("beat %d is about %v", i, m.Groups)
			}
		}
		if !reflect.DeepEqual(at, others) {
			t.Errorf("b got beats at %v, c at %v", at, others)
		}
		if e := g1.took(); len(e) != 20 {
			t.Errorf("%d answers of two nodes in ten intervals", len(e))
		}
		l.end()
	})
}

// TestRepeatedBeatKeepsItsStamp: the first copy is lost. The answer to the second one is
// evidence of the moment before the first.
func TestRepeatedBeatKeepsItsStamp(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		if _, err := l.sender.Exchange("g", "b", "b", 3); err != nil {
			t.Fatal(err)
		}
		v.took()
		g.took()
		v.silent = true
		done := make(chan error, 1)
		go func() { _, err := l.sender.Exchange("g", "b", "b", 3); done <- err }()
		time.Sleep(pace)
		synctest.Wait()
		sent := l.now() / pace * pace
		time.Sleep(pace/repeatShare + time.Millisecond)
		synctest.Wait()
		beats, at := v.took()
		if len(beats) != 2 || beats[0].Seq != beats[1].Seq || at[1]-at[0] != pace/repeatShare {
			t.Fatalf("%+v at %v", beats, at)
		}
		v.mu.Lock()
		c, copies := v.conns[0], v.kept
		v.mu.Unlock()
		c.reply(copies[1]) // and the first copy arrives too, later
		c.reply(copies[0])
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if e := g.took(); len(e) != 1 || e[0].sent != sent || e[0].sent != at[0] {
			t.Errorf("evidence %+v, sent at %v", e, at)
		}
	})
}

// TestLateAnswerIsOfItsOwnBeat: an answer to an earlier beat is no evidence of a later one.
func TestLateAnswerIsOfItsOwnBeat(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		l.raft("g", "b", 3)
		time.Sleep(pace + time.Millisecond)
		synctest.Wait()
		v.took()
		g.took()
		v.mu.Lock()
		v.silent = true
		v.mu.Unlock()
		time.Sleep(2 * pace)
		synctest.Wait()
		beats, at := v.took()
		v.mu.Lock()
		c, kept := v.conns[0], v.kept
		v.mu.Unlock()
		last := len(beats) - 1
		if beats[0].Seq == beats[last].Seq {
			t.Fatalf("%+v", beats)
		}
		c.reply(kept[0])
		synctest.Wait()
		if e := g.took(); len(e) != 1 || e[0].sent != at[0] {
			t.Errorf("evidence %+v, sent at %v", e, at)
		}
		c.reply(kept[last])
		c.reply(kept[0]) // once more, and older than what is known
		synctest.Wait()
		first := 0
		for beats[first].Seq != beats[last].Seq {
			first++
		}
		if e := g.took(); len(e) != 1 || e[0].sent != at[first] {
			t.Errorf("evidence %+v, sent at %v", e, at)
		}
	})
}

func TestGroupThatIsNotLedIsNotListed(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		if _, err := l.sender.Exchange("g", "b", "b", 3); err != nil {
			t.Fatal(err)
		}
		v.took()
		g.mu.Lock()
		g.term = 4 // another one's term
		g.mu.Unlock()
		if _, err := l.sender.Exchange("g", "b", "b", 3); !errors.Is(err, ErrNotLed) {
			t.Error(err)
		}
		time.Sleep(3 * pace)
		if b, _ := v.took(); len(b) > 0 {
			t.Errorf("%+v", b)
		}
	})
}

// TestRaftThatHangsIsNotListed: it asks for nothing any more, while another group on the
// same node does.
func TestRaftThatHangsIsNotListed(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		hangs, lives, v := &leader{term: 3}, &leader{term: 5}, l.voters["b"]
		l.sender.Follow("hangs", hangs)
		l.sender.Follow("lives", lives)
		l.raft("lives", "b", 5)
		if _, err := l.sender.Exchange("hangs", "b", "b", 3); err != nil {
			t.Fatal(err)
		}
		time.Sleep((askedFor+1)*pace + pace/2) // between two beats
		v.took()
		time.Sleep(3 * pace)
		b, _ := v.took()
		if len(b) != 3 {
			t.Errorf("%d beats in three intervals", len(b))
		}
		for _, m := range b {
			if len(m.Groups) != 1 || m.Groups[0].Group != "lives" {
				t.Errorf("a beat is about %v", m.Groups)
			}
		}
		l.end()
	})
}

func TestNodeThatDoesNotAnswer(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		v.silent = true
		began := l.now()
		if _, err := l.sender.Exchange("g", "b", "b", 3); !errors.Is(err, ErrOrdinary) {
			t.Error(err) // it may be the connection's fault
		}
		if took := l.now() - began; took > 2*pace {
			t.Errorf("it took %v", took)
		}
		for l.now()-began < time.Second {
			l.sender.Exchange("g", "b", "b", 3)
		}
		v.mu.Lock()
		v.silent = false
		v.mu.Unlock()
		l.sender.Exchange("g", "b", "b", 3) // opens a new one, if that was not done yet
		time.Sleep(dialPause)
		l.warm()
		if _, err := l.sender.Exchange("g", "b", "b", 3); err != nil {
			t.Errorf("on a new connection: %v", err)
		}
		if len(v.conns) < 2 {
			t.Errorf("%d connections", len(v.conns))
		}
		// An answer that still comes on the old one says nothing.
		g.took()
		v.conns[0].in <- AppendAnswer(nil, Answer{Seq: 1, Results: []Result{{}}})
		synctest.Wait()
		if e := g.took(); len(e) > 0 {
			t.Errorf("evidence %+v", e)
		}
	})
}

// TestIdlePair: between nodes of which neither leads there is a connection, and one that
// is dead is found out.
func TestIdlePair(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		warm := func() {
			time.Sleep(time.Second)
			l.warm()
		}
		if len(v.conns) != 1 {
			t.Fatalf("%d connections", len(v.conns))
		}
		v.took()
		warm()
		if b, _ := v.took(); len(b) != 1 || len(b[0].Groups) != 0 {
			t.Errorf("%+v", b)
		}
		v.mu.Lock()
		v.silent = true
		v.mu.Unlock()
		for range 3 {
			warm()
		}
		if len(v.conns) != 2 {
			t.Errorf("%d connections", len(v.conns))
		}
		v.mu.Lock()
		v.silent = false
		v.mu.Unlock()
		for range 3 {
			warm()
		}
		if _, err := l.sender.Exchange("g", "b", "b", 3); err != nil {
			t.Error(err)
		}
		l.sender.Forget(func(string) bool { return false })
		if b, _ := v.took(); len(b) == 0 {
			t.Error("nothing was sent")
		}
		select {
		case <-v.conns[len(v.conns)-1].closed:
		default:
			t.Error("the connection to a node that is gone is open")
		}
	})
}

func TestVerdicts(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		ask := func(r Result) (Result, error) {
			v.mu.Lock()
			v.result = func(Led) Result { return r }
			v.mu.Unlock()
			return l.sender.Exchange("g", "b", "b", 3)
		}
		if r, err := ask(Result{Verdict: Refused, Term: 8}); err != nil || r.Term != 8 || r.Verdict != Refused {
			t.Errorf("refused: %+v, %v", r, err)
		}
		if _, err := ask(Result{Verdict: Unheard}); !errors.Is(err, ErrOrdinary) {
			t.Errorf("unheard: %v", err)
		}
		if _, err := ask(Result{Verdict: Failed, Why: "no disk"}); err == nil || err.Error() != "no disk" {
			t.Errorf("failed: %v", err)
		}
	})
}

func TestProgramWithoutBeats(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, v := &leader{term: 3}, l.voters["b"]
		l.sender.Follow("g", g)
		v.mu.Lock()
		v.dial = ErrUnsupported
		v.mu.Unlock()
		v.conns[0].Close() // it was replaced by an older one
		synctest.Wait()
		began := l.now()
		for l.now()-began < ordinaryFor {
			if _, err := l.sender.Exchange("g", "b", "b", 3); !errors.Is(err, ErrOrdinary) {
				t.Error(err)
			}
			time.Sleep(pace)
		}
		v.mu.Lock()
		v.dial = nil // it was replaced by a newer one
		v.mu.Unlock()
		time.Sleep(dialPause)
		l.warm()
		if _, err := l.sender.Exchange("g", "b", "b", 3); err != nil {
			t.Error(err)
		}
	})
}

func TestEndOfTheSender(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		l.sender.Follow("g", &leader{term: 3})
		l.voters["b"].silent = true
		done := make(chan error, 1)
		go func() { _, err := l.sender.Exchange("g", "b", "b", 3); done <- err }()
		time.Sleep(pace / 2) // a beat is under way
		l.end()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := l.sender.Exchange("g", "b", "b", 3); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// TestGroupThatEnds: who waits for an answer about it has one, what comes later is about
// nothing, and the other groups of the pair go on.
func TestGroupThatEnds(t *testing.T) {
	run(t, func(t *testing.T) {
		l := newLab(t, "b")
		defer l.end()
		g, other, v := &leader{term: 3}, &leader{term: 9}, l.voters["b"]
		l.sender.Follow("g", g)
		l.sender.Follow("other", other)
		done, others := make(chan error, 1), make(chan error, 1)
		ask := func() {
			go func() { _, err := l.sender.Exchange("g", "b", "b", 3); done <- err }()
			go func() { _, err := l.sender.Exchange("other", "b", "b", 9); others <- err }()
		}
		ask() // from now on both are listed
		if err := errors.Join(<-done, <-others); err != nil {
			t.Fatal(err)
		}
		g.took()
		other.took()
		v.took()
		v.mu.Lock()
		v.silent = true
		v.mu.Unlock()
		ask()
		for about := 0; about < 2; time.Sleep(pace / 50) { // a beat about both is under way
			for _, b := range first(v.took()) {
				about = len(b.Groups)
			}
		}
		l.sender.Leave("g")
		if err := <-done; !errors.Is(err, ErrNotLed) {
			t.Errorf("who waited for an answer about the group got %v", err)
		}
		if _, err := l.sender.Exchange("g", "b", "b", 3); !errors.Is(err, ErrNotLed) {
			t.Error(err)
		}
		v.mu.Lock()
		v.silent = false
		kept, c := v.kept, v.conns[0]
		v.mu.Unlock()
		for _, b := range kept {
			c.reply(b)
		}
		if err := <-others; err != nil {
			t.Errorf("about the other group: %v", err)
		}
		if e := g.took(); len(e) > 0 {
			t.Errorf("evidence for a group that has ended: %+v", e)
		}
		if e := other.took(); len(e) == 0 {
			t.Error("no evidence for the other group")
		}
	})
}

func first[A, B any](a A, _ B) A { return a }

func TestConn(t *testing.T) {
	a, b := net.Pipe()
	x, y := NewConn(a), NewConn(b)
	defer x.Close()
	defer y.Close()
	go func() {
		for _, m := range []string{"one", string(bytes.Repeat([]byte("2"), maxMessage-1)), "three"} {
			if err := x.Send([]byte(m)); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, want := range []int{3, maxMessage - 1, 5} {
		if m, err := y.Receive(); err != nil || len(m) != want {
			t.Errorf("%d bytes, %v; want %d", len(m), err, want)
		}
	}
	if err := x.Send(make([]byte, maxMessage)); err == nil {
		t.Error("a message that is too long was sent")
	}
}
