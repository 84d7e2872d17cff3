package beat

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

var (
	// ErrOrdinary says that a heartbeat has to be sent the ordinary way: the node knows
	// of no beats or has not accepted the leader yet, there is no connection, or it has
	// left the last beat unanswered, which may be the connection's fault. Nothing waits
	// for a connection.
	ErrOrdinary = errors.New("an ordinary heartbeat is asked for")
	// ErrNotLed says that the group is not led in that term any more.
	ErrNotLed = errors.New("the group is not led in that term any more")
	// ErrClosed says that the sender has ended.
	ErrClosed = errors.New("no more beats are sent")
	// ErrUnsupported is returned by a dialler for a node that knows of no beats.
	ErrUnsupported = errors.New("the node knows of no beats")
)

const (
	// repeatShare is the share of the interval after which a beat that is not answered is
	// sent again: a lost segment would else wait for TCP's own timer of 200 ms.
	repeatShare = 3
	// askedFor is how many intervals a group is listed after its Raft has asked for it: a
	// Raft that hangs does not hide behind a node that lives.
	askedFor = 2
	// dialPause is the time between two attempts to reach a node, ordinaryFor that until a
	// node that knew of no beats is tried again.
	dialPause   = 100 * time.Millisecond
	ordinaryFor = 10 * time.Second
	// maxOutstanding bounds the beats of a connection that are not answered.
	maxOutstanding = 16
)

// A Source is a group whose heartbeats are sent.
type Source interface {
	// Pace is the time between two beats that the group needs. The shortest of all groups
	// counts, and all nodes get their beats at the same moments, at multiples of it.
	Pace() time.Duration
	// Leads tells whether this node leads the group in a term.
	Leads(term uint64) bool
	// Mark is asked for right before a beat is sent to a node; Answered gets it back.
	Mark(node string) uint64
	// Answered is told what a node has answered about a term, once for each beat. sent is
	// the instant right before that beat was sent for the first time. The error is for
	// whoever asked.
	Answered(node string, term uint64, sent time.Duration, mark uint64, r Result) error
}

// Options are what a Sender is made of.
type Options struct {
	// Dial opens a connection to a node at an address, within the context's time.
	Dial func(ctx context.Context, node, address string) (Conn, error)
	// Now is the clock of the instants that a Source is told.
	Now func() time.Duration
	Log *slog.Logger
}

// A Sender sends a node's beats. Nothing is sent before Run.
type Sender struct {
	o    Options
	wake chan struct{}   // holds a token if there is something to do
	ctx  context.Context // of attempts to open a connection
	stop context.CancelFunc

	mu      sync.Mutex
	closed  bool
	sources map[string]Source
	pairs   map[string]*pair // by node
	timer   *time.Timer
	readers sync.WaitGroup // what reads, and what dials
}

// NewSender makes a sender.
func NewSender(o Options) *Sender {
	ctx, stop := context.WithCancel(context.Background())
	return &Sender{
		ctx: ctx, stop: stop,
		o: o, wake: make(chan struct{}, 1),
		sources: make(map[string]Source), pairs: make(map[string]*pair), timer: time.NewTimer(time.Hour),
	}
}

// Follow has the heartbeats of a group sent, from its first Exchange on.
func (s *Sender) Follow(group string, source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources[group] = source
}

// Leave ends what Follow began, and who waits in Exchange for that group.
func (s *Sender) Leave(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, group)
	for _, p := range s.pairs {
		if l := p.groups[group]; l != nil {
			l.answer(outcome{err: ErrNotLed})
			delete(p.groups, group)
		}
	}
}

// Warm sees to it that there is a connection to a node, and that it is alive: a beat about
// no group is sent if nothing else is. It is called about once a second for each member,
// so that a new leader does not begin with a handshake.
func (s *Sender) Warm(node, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	p := s.pairLocked(node, address)
	switch {
	case s.closed || now < p.ordinary || now < p.notBefore:
	case p.conn == nil:
		s.dialLocked(p, now)
	case len(p.outstanding) > 0 && now-p.outstanding[0].at > s.patience():
		s.breakLocked(p)
	case len(p.outstanding) == 0 && now-p.last > s.interval():
		s.sendLocked(p, nil)
	}
}

// Forget closes the connections to all nodes but those that keep names.
func (s *Sender) Forget(keep func(node string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, p := range s.pairs {
		if !keep(node) {
			s.breakLocked(p)
			delete(s.pairs, node)
		}
	}
}

// A pair is what this node sends to another one.
type pair struct {
	node, address string
	groups        map[string]*listed
	conn          Conn
	dialing       bool
	notBefore     time.Duration // of the next attempt to open a connection
	ordinary      time.Duration // until when ordinary heartbeats are asked for
	seq           uint64
	last          time.Duration // when a beat was sent last
	outstanding   []sent        // oldest first
	repeat        time.Duration
}

// A listed is one group in the beats to one node.
type listed struct {
	term    uint64
	asked   time.Duration
	waiters []chan outcome
}

// An outcome is what who asked is told.
type outcome struct {
	result Result
	err    error
}

// A sent is a beat that is not answered.
type sent struct {
	seq    uint64
	at     time.Duration
	groups []Led
	marks  []uint64
	bytes  []byte
}

// Exchange has a group that this node leads in term listed in the beats to a node, and
// waits for an answer. The error is one of this package's, or what the Source made of
// the answer.
func (s *Sender) Exchange(group, node, address string, term uint64) (Result, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Result{}, ErrClosed
	}
	if s.sources[group] == nil {
		s.mu.Unlock()
		return Result{}, ErrNotLed
	}
	now := s.o.Now()
	p := s.pairLocked(node, address)
	if now < p.ordinary {
		s.mu.Unlock()
		return Result{}, ErrOrdinary
	}
	if p.conn == nil {
		s.dialLocked(p, now)
		s.mu.Unlock()
		return Result{}, ErrOrdinary
	}
	idle := !s.busyLocked(now)
	l := p.groups[group]
	if l == nil {
		l = &listed{}
		p.groups[group] = l
	}
	if l.term != term {
		l.answer(outcome{err: ErrNotLed})
		l.term = term
	}
	l.asked = now
	answer := make(chan outcome, 1)
	l.waiters = append(l.waiters, answer)
	if idle {
		s.wakeUp()
	}
	s.mu.Unlock()
	o := <-answer // always comes: with an answer, or with the connection's end
	return o.result, o.err
}

func (s *Sender) pairLocked(node, address string) *pair {
	p := s.pairs[node]
	if p == nil {
		p = &pair{node: node, address: address, groups: make(map[string]*listed)}
		s.pairs[node] = p
	}
	if p.address != address {
		p.address = address
		s.breakLocked(p)
	}
	return p
}

func (l *listed) answer(o outcome) {
	for _, w := range l.waiters {
		w <- o
	}
	l.waiters = l.waiters[:0]
}

// answer tells all who wait for a node's answer the same.
func (p *pair) answer(err error) {
	for _, l := range p.groups {
		l.answer(outcome{err: err})
	}
}

func (s *Sender) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// busyLocked tells whether there is something to send at the next tick.
func (s *Sender) busyLocked(now time.Duration) bool {
	for _, p := range s.pairs {
		for _, l := range p.groups {
			if s.listedLocked(l, now) {
				return true
			}
		}
	}
	return false
}

func (s *Sender) listedLocked(l *listed, now time.Duration) bool {
	return len(l.waiters) > 0 || l.term != 0 && now-l.asked <= askedFor*s.interval()
}

// Run sends until ctx ends, and waits for all that it has started.
func (s *Sender) Run(ctx context.Context) error {
	defer s.timer.Stop()
	last := time.Duration(-1) // the last tick
	for {
		s.mu.Lock()
		now := s.o.Now()
		tick := s.tickLocked(now)
		if busy := s.busyLocked(now); busy && tick != last {
			last = tick
			for _, p := range s.pairs {
				s.beatLocked(p)
			}
		} else if busy {
			for _, p := range s.pairs {
				s.repeatLocked(p, now)
			}
		}
		s.setTimerLocked()
		s.mu.Unlock()
		select {
		case <-s.timer.C:
		case <-s.wake:
		case <-ctx.Done():
			s.Close()
			s.readers.Wait()
			return nil
		}
	}
}

// tickLocked returns the newest instant at which beats are due.
func (s *Sender) tickLocked(now time.Duration) time.Duration {
	interval := s.interval()
	return now / interval * interval
}

// interval is the time between two beats now.
func (s *Sender) interval() time.Duration {
	shortest := time.Second
	for _, source := range s.sources {
		shortest = min(shortest, source.Pace())
	}
	return max(shortest, time.Millisecond)
}

// patience is how long a node may leave beats unanswered before its connection is given
// up, and how long one is tried to be opened.
func (s *Sender) patience() time.Duration { return max(6*s.interval(), 500*time.Millisecond) }

// setTimerLocked sets the timer to the next instant at which there is something to do;
// an idle sender is woken up.
func (s *Sender) setTimerLocked() {
	now := s.o.Now()
	next := time.Hour
	if s.busyLocked(now) {
		next = s.tickLocked(now) + s.interval() - now
		for _, p := range s.pairs {
			if p.repeat != 0 {
				next = min(next, p.repeat-now)
			}
		}
	}
	s.timer.Reset(max(next, 0))
}

// beatLocked sends a beat to a node, if there is something to say.
func (s *Sender) beatLocked(p *pair) {
	now := s.o.Now()
	var groups []Led
	for name, l := range p.groups {
		source := s.sources[name]
		switch {
		case !s.listedLocked(l, now):
			delete(p.groups, name)
		case source == nil || !source.Leads(l.term):
			l.answer(outcome{err: ErrNotLed})
			delete(p.groups, name)
		case len(groups) < MaxGroups:
			groups = append(groups, Led{name, l.term})
		}
	}
	if len(groups) == 0 {
		return
	}
	if n := len(p.outstanding); n > 0 {
		p.answer(ErrOrdinary)
		if now-p.outstanding[0].at > s.patience() || n >= maxOutstanding {
			s.breakLocked(p)
		}
	}
	if p.conn == nil {
		p.answer(ErrOrdinary)
		s.dialLocked(p, now)
		return
	}
	s.sendLocked(p, groups)
}

// sendLocked sends a beat about groups on the connection that there is.
func (s *Sender) sendLocked(p *pair, groups []Led) {
	m := sent{groups: groups, marks: make([]uint64, len(groups))}
	for i, g := range groups {
		m.marks[i] = s.sources[g.Group].Mark(p.node)
	}
	p.seq++
	m.seq = p.seq
	m.bytes = AppendBeat(nil, Beat{Seq: m.seq, Groups: groups})
	m.at = s.o.Now() // nothing is sent before
	p.last = m.at
	p.outstanding = append(p.outstanding, m)
	if len(groups) > 0 {
		p.repeat = m.at + s.interval()/repeatShare
	}
	if err := p.conn.Send(m.bytes); err != nil {
		s.breakLocked(p)
	}
}

// repeatLocked sends the newest beat again that is not answered: its stamp stays.
func (s *Sender) repeatLocked(p *pair, now time.Duration) {
	n := len(p.outstanding)
	if n == 0 || p.conn == nil || p.repeat == 0 || now < p.repeat {
		return
	}
	p.repeat = now + s.interval()/repeatShare
	if err := p.conn.Send(p.outstanding[n-1].bytes); err != nil {
		s.breakLocked(p)
	}
}

// breakLocked gives a connection up.
func (s *Sender) breakLocked(p *pair) {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
	p.outstanding, p.repeat = nil, 0
	p.answer(ErrOrdinary)
}

// dialLocked begins to open a connection; the first beat goes out when it is open.
func (s *Sender) dialLocked(p *pair, now time.Duration) {
	if p.dialing || s.closed {
		return
	}
	if now < p.notBefore {
		return
	}
	p.dialing = true
	address, patience := p.address, s.patience()
	s.readers.Go(func() {
		bounded, cancel := context.WithTimeout(s.ctx, patience)
		conn, err := s.o.Dial(bounded, p.node, address)
		cancel()
		s.mu.Lock()
		p.dialing = false
		switch {
		case err == nil && (s.closed || p.address != address):
			conn.Close()
			err = net.ErrClosed
			fallthrough
		case err != nil:
			p.notBefore = s.o.Now() + dialPause
			if errors.Is(err, ErrUnsupported) {
				p.ordinary = s.o.Now() + ordinaryFor
			}
			s.breakLocked(p)
			s.mu.Unlock()
			return
		}
		p.conn = conn
		s.beatLocked(p)
		s.wakeUp() // to repeat it
		s.mu.Unlock()
		s.read(p, conn)
	})
}

// read takes the answers of a connection until it ends.
func (s *Sender) read(p *pair, conn Conn) {
	var in Answer
	var err error
	for {
		var b []byte
		if b, err = conn.Receive(); err != nil {
			break
		}
		if err = ParseAnswer(b, &in); err != nil {
			s.o.Log.Warn("closed a connection", "member", p.node, "reason", err)
			break
		}
		if !s.answered(p, conn, in) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Close()
	if p.conn == conn {
		s.breakLocked(p)
	}
}

// answered deals with an answer; false means that the connection is given up.
func (s *Sender) answered(p *pair, conn Conn, in Answer) bool {
	s.mu.Lock()
	if p.conn != conn {
		s.mu.Unlock()
		return false
	}
	at := -1
	for i, m := range p.outstanding {
		if m.seq == in.Seq {
			at = i
		}
	}
	if at < 0 {
		s.mu.Unlock()
		return true // it was repeated, and both were answered
	}
	m := p.outstanding[at]
	if len(in.Results) != len(m.groups) {
		s.mu.Unlock()
		s.o.Log.Warn("closed a connection", "member", p.node, "reason", "an answer to another beat")
		return false
	}
	p.outstanding = append(p.outstanding[:0], p.outstanding[at+1:]...) // what is older says less
	if len(p.outstanding) == 0 {
		p.repeat = 0
		s.setTimerLocked() // nothing is to be repeated, mostly
	}
	sources := make([]Source, len(m.groups))
	for i, g := range m.groups {
		sources[i] = s.sources[g.Group]
	}
	s.mu.Unlock()
	for i, r := range in.Results {
		g := m.groups[i]
		if sources[i] == nil {
			continue // it has ended meanwhile
		}
		err := sources[i].Answered(p.node, g.Term, m.at, m.marks[i], r)
		if r.Verdict == Unheard {
			err = ErrOrdinary
		}
		s.mu.Lock()
		if l := p.groups[g.Group]; l != nil && l.term == g.Term {
			l.answer(outcome{r, err})
		}
		s.mu.Unlock()
	}
	return true
}

// Close ends what waits in Exchange; Run does so at its end.
func (s *Sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stop()
	for _, p := range s.pairs {
		p.answer(ErrClosed)
		s.breakLocked(p)
	}
}
