package testnet

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/raftvip/raftvip/internal/boottime"
	"golang.org/x/sys/unix"
)

// ProberOptions says what a Prober asks for.
type ProberOptions struct {
	VIPs     []netip.Addr  // at most 4096, IPv4 and IPv6
	Interval time.Duration // default DefaultWindow, 1 ms
}

// Prober asks from the observer, at a steady interval, who has each address: an
// ARP request or neighbour solicitation to everyone. It records every answer with
// the kernel's receive time.
//
// ARP has no sequence number, but an answer goes to the address that asked. Each
// Prober has eight of the observer's addresses of each family and asks from them in
// turn, so the question of an answer is known exactly as long as it is less than
// eight intervals late. The asking addresses are real ones of the observer, with its
// one MAC, because a question from address zero is a duplicate address detection
// probe, which a node may take for an attack on its address.
type Prober struct {
	lab      *Lab
	interval time.Duration
	fd       int
	vips     []netip.Addr
	m        *metronome
	rx       *batch
	set      int // of asking addresses
	frames   [probeTags][][]byte
	iovs     [probeTags][]unix.Iovec
	msgs     [probeTags][]mmsghdr

	mu     sync.Mutex
	index  map[netip.Addr]uint16
	tags   map[netip.Addr]int
	macs   []([6]byte)
	macIdx map[[6]byte]uint16
	recs   chunked[answerRec]
	last   []answerRec // by address; at is zero before the first
	sent   uint64      // probes so far; the number of the latest
	drops  int
	closed sync.Once
	forget func()
}

type answerRec struct {
	at       time.Duration
	probe    uint32
	vip, mac uint16
}

// StartProber starts asking. Stop or the lab's Close ends it.
func (l *Lab) StartProber(o ProberOptions) (*Prober, error) {
	if o.Interval <= 0 {
		o.Interval = DefaultWindow
	}
	if len(o.VIPs) == 0 || len(o.VIPs) > 4096 {
		return nil, fmt.Errorf("start prober: %d addresses: must be 1 to 4096", len(o.VIPs))
	}
	p := &Prober{
		lab: l, interval: o.Interval, vips: append([]netip.Addr(nil), o.VIPs...),
		index: map[netip.Addr]uint16{}, tags: map[netip.Addr]int{},
		macIdx: map[[6]byte]uint16{}, last: make([]answerRec, len(o.VIPs)),
	}
	h := l.observer
	if p.set = l.takeProber(); p.set < 0 {
		return nil, fmt.Errorf("start prober: at most %d at the same time", maxProbers)
	}
	p.prepare(h)
	err := h.Do(func() error {
		var err error
		p.fd, err = packetSocket(h.links[Front], unix.ETH_P_ALL, filterARPAndNA, func(fd int) error {
			var err error
			if p.rx, err = newBatch(fd); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		})
		return err
	})
	if err != nil {
		l.freeProber(p.set)
		return nil, fmt.Errorf("start prober: %w", err)
	}
	p.m = startMetronome(p.interval, -1, p.beat)
	p.forget = l.onClose(p.Stop)
	return p, nil
}

// takeProber returns a set of asking addresses that no Prober uses, or -1.
func (l *Lab) takeProber() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, used := range l.probers {
		if !used {
			l.probers[i] = true
			return i
		}
	}
	return -1
}

func (l *Lab) freeProber(set int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.probers[set] = false
}

// prepare builds every frame once: one for each address and asking address.
func (p *Prober) prepare(h *Host) {
	mac := [6]byte(h.macs[Front])
	for i, v := range p.vips {
		p.index[v] = uint16(i)
	}
	for t := range probeTags {
		num := h.num + p.set*probeTags + t
		src4, src6 := nth(h.nets[Front].v4, num), nth(h.nets[Front].v6, num)
		p.tags[src4], p.tags[src6] = t, t
		p.iovs[t] = make([]unix.Iovec, len(p.vips))
		p.msgs[t] = make([]mmsghdr, len(p.vips))
		for i, v := range p.vips {
			f := nsFrame
			src := src6
			if v.Is4() {
				f, src = arpFrame, src4
			}
			b := f(mac, src, v)
			p.frames[t] = append(p.frames[t], b)
			p.iovs[t][i].Base = &b[0]
			p.iovs[t][i].SetLen(len(b))
			p.msgs[t][i].hdr.Iov = &p.iovs[t][i]
			p.msgs[t][i].hdr.SetIovlen(1)
		}
	}
}

// beat collects the answers to earlier probes and sends the next. Answers wait in
// the socket until then: their times are the kernel's, so one wake-up serves both.
func (p *Prober) beat(_, _ time.Duration) {
	p.mu.Lock()
	p.rx.drain(p.record)
	p.sent++
	p.mu.Unlock()
	msgs := p.msgs[p.sent%probeTags]
	for len(msgs) > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 1 // this one is lost; go on with the rest
		}
		msgs = msgs[n:]
	}
}

// record is called with mu held.
func (p *Prober) record(at time.Duration, data []byte) {
	c, ok := parseClaim(data)
	if !ok || c.op == arpRequest {
		return
	}
	vip, ok := p.index[c.addr]
	if !ok {
		return
	}
	tag, ok := p.tags[c.to]
	if !ok {
		return // an announcement, not an answer
	}
	mac, ok := p.macIdx[c.mac]
	if !ok {
		mac = uint16(len(p.macs))
		p.macs = append(p.macs, c.mac)
		p.macIdx[c.mac] = mac
	}
	back := (p.sent - uint64(tag)) % probeTags
	var probe uint64
	if p.sent > back {
		probe = p.sent - back
	}
	r := answerRec{at: at, probe: uint32(probe), vip: vip, mac: mac}
	p.recs.add(r)
	p.last[vip] = r
}

// Stop ends the asking, after the answers under way have come in. What was
// recorded stays.
func (p *Prober) Stop() {
	p.closed.Do(func() {
		p.m.stop()
		p.forget()
		time.Sleep(2 * time.Millisecond)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.rx.drain(p.record)
		p.drops += lost(p.fd)
		_ = unix.Close(p.fd)
		p.fd = -1
		p.lab.freeProber(p.set)
	})
}

// Answers returns everything recorded so far, in the order received. The holder
// is the name of the host, or the MAC if that is no host's own.
func (p *Prober) Answers() []Answer { return p.Since(0) }

// Since returns what was recorded at or after the given boot time.
func (p *Prober) Since(from time.Duration) []Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, len(p.macs))
	for i, m := range p.macs {
		names[i] = p.lab.holderName(m)
	}
	out := make([]Answer, 0, p.recs.n)
	for _, c := range p.recs.chunks {
		for _, r := range c {
			if r.at >= from {
				out = append(out, Answer{At: r.at, VIP: p.vips[r.vip], Holder: names[r.mac], Probe: uint64(r.probe)})
			}
		}
	}
	return out
}

// Check judges everything recorded so far by CheckP1.
func (p *Prober) Check() Report { return CheckP1(p.Answers(), p.interval) }

// Last returns the latest answer for the address; ok is false before the first.
func (p *Prober) Last(vip netip.Addr) (a Answer, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index[vip]
	if !ok || p.last[i].at == 0 {
		return Answer{}, false
	}
	r := p.last[i]
	return Answer{At: r.at, VIP: vip, Holder: p.lab.holderName(p.macs[r.mac]), Probe: uint64(r.probe)}, true
}

// Holder returns who answered for the address in the last 20 intervals, or "".
func (p *Prober) Holder(vip netip.Addr) string {
	a, ok := p.Last(vip)
	if !ok || boottime.Now()-a.At > 20*p.interval {
		return ""
	}
	return a.Holder
}

// ProberStats tells how much the Prober's silence is worth.
type ProberStats struct {
	Cadence Cadence
	Probes  int // questions asked for each address
	Answers int
	Dropped int // packets the socket had no room for
}

// Stats returns counts so far.
func (p *Prober) Stats() ProberStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		p.drops += lost(p.fd)
	}
	return ProberStats{Cadence: p.m.cadence(), Probes: int(p.sent), Answers: p.recs.n, Dropped: p.drops}
}
