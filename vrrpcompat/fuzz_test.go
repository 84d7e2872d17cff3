package vrrpcompat

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// ends returns addresses for the IP header of a family.
func ends(ipv6 bool) (src, dst netip.Addr) {
	if ipv6 {
		return addr("fe80::2"), Group6
	}
	return addr("10.0.0.2"), Group4
}

// FuzzParse: no panic, and what is parsed is encoded to the same bytes, but for
// the checksum and the reserved bits, if it is a packet that may be sent.
func FuzzParse(f *testing.F) {
	for _, g := range goldenPackets {
		f.Add(unhex(f, g.hex), addr(g.src).Is6())
	}
	f.Add([]byte{0x31, 1, 100, 0, 0xf0, 100, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, ipv6 bool) {
		a, n, drop := Parse(b, ipv6)
		if drop != DropNone {
			if n != 0 || !reflect.DeepEqual(a, Advertisement{}) {
				t.Fatalf("dropped (%v) with %+v", drop, a)
			}
			return
		}
		src, dst := ends(ipv6)
		again, err := a.Append(nil, src, dst, ChecksumPlain)
		if err != nil {
			if a.VRID != 0 && ValidInterval(a.Version, a.Interval) == nil {
				t.Fatalf("%+v was parsed, but: %v", a, err)
			}
			return
		}
		want := bytes.Clone(b[:n])
		copy(want[6:8], again[6:8])
		if a.Version == V3 {
			want[4] &= 0x0f
		}
		if !bytes.Equal(again, want) {
			t.Fatalf("%x is encoded as %x", want, again)
		}
	})
}

// FuzzCheck: no panic, and a packet that is accepted is what is configured, and is
// encoded to the same bytes, checksum included.
func FuzzCheck(f *testing.F) {
	for _, g := range goldenPackets {
		f.Add(unhex(f, g.hex), uint8(255), uint16(0))
		f.Add(unhex(f, g.hex), uint8(255), uint16(0xffff))
		f.Add(unhex(f, g.hex), uint8(9), uint16(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, ttl uint8, flags uint16) {
		flag := func(bit int) bool { return flags>>bit&1 == 1 }
		e := Expect{Version: V3, VRID: 7, IPv6: flag(1), Interval: time.Second, AnyChecksum: flag(4), AddressOwner: flag(5) && flag(6)}
		if flag(2) && !e.IPv6 {
			e.Version = V2
		}
		if flag(3) {
			e.Checksum = ChecksumPlain
		}
		if flag(7) && e.Version == V2 {
			e.AuthType, e.Auth = AuthPass, Password("secret")
		}
		src, dst := ends(e.IPv6)
		if flag(8) {
			e.Peers = []Peer{{Address: src, MinTTL: int(flags >> 12)}}
			dst = src.Next()
		}
		e.Addresses.Strict, e.Addresses.Skip = flag(9), flag(10)
		if flag(11) && len(b) >= headerLen { // let the fuzzer get past the checksum
			b = bytes.Clone(b)
			b[0], b[1] = byte(e.Version)<<4|1, e.VRID
			if a, n, drop := parse(b, e.IPv6); drop == DropNone {
				e.Interval, e.Addresses.Addresses = a.Interval, a.Addresses
				binary.BigEndian.PutUint16(b[6:], checksum(b[:n], src, dst, e.Checksum.of(e.Version, src)))
			}
		}
		a, drop := e.Check(Datagram{Payload: b, Source: src, Destination: dst, TTL: int(ttl)})
		if drop >= drops {
			t.Fatalf("drop %d has no name", drop)
		}
		if drop != DropNone {
			if !reflect.DeepEqual(a, Advertisement{}) {
				t.Fatalf("dropped (%v) with %+v", drop, a)
			}
			return
		}
		if a.Version != e.Version || a.VRID != e.VRID || e.AddressOwner || a.Interval == 0 || dst.IsMulticast() && ttl != 255 {
			t.Fatalf("%+v with TTL %d is accepted by %+v", a, ttl, e)
		}
		_ = e.Mismatches(a)
		reserved := a.Version == V3 && b[4]&0xf0 != 0
		again, err := a.Append(nil, src, dst, e.Checksum)
		if err != nil {
			t.Fatalf("%+v is accepted, but: %v", a, err)
		}
		if !reserved && !e.AnyChecksum && !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x is encoded as %x", b, again)
		}
	})
}

// FuzzMachine gives a machine any sequence of calls and asserts what must hold
// after each.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 100, 0, 0, 4, 0, 4, 0, 4, 0, 3, 200, 3, 0, 4, 0, 2, 0})
	f.Add([]byte{1, 100, 0, 0, 6, 0, 4, 0, 4, 0, 3, 1, 7, 1, 7, 0, 2, 0})
	f.Add([]byte{0xff, 255, 6, 1, 0, 0, 4, 0, 9, 255, 7, 0, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 2 {
			return
		}
		how := program[0]
		flag := func(bit int) bool { return how>>bit&1 == 1 }
		c := MachineConfig{
			Version: V3, Priority: max(1, program[1]), Interval: sec, Source: ours,
			Hybrid: flag(0), NoPreempt: flag(1), LowerPrioNoAdvert: flag(3), HigherPrioSendAdvert: flag(4),
		}
		if flag(2) {
			c.PreemptDelay = 5 * sec
		}
		if flag(5) {
			c.Version = V2
		}
		m := NewMachine(c)
		m.SetFellows([]netip.Addr{fellow})
		sources := []netip.Addr{lower, higher, another, fellow, ours}
		now := time.Duration(0)
		for program = program[2:]; len(program) >= 2; program = program[2:] {
			op, arg := program[0], program[1]
			before, was := m.State(), m.Entitled()
			expired := false
			var did []Action
			switch op % 10 {
			case 0:
				did = m.Startup(now)
			case 1:
				did = m.Shutdown(now)
			case 2:
				now += time.Duration(arg) * 20 * ms
			case 3:
				src := sources[int(op/10)%len(sources)]
				did = m.Receive(now, heard(arg, max(1, time.Duration(op))*10*ms), src)
			case 4, 5:
				at, ok := m.Deadline()
				if ok {
					now = max(now, at+time.Duration(op/10)*time.Duration(arg)*ms)
				}
				did, expired = m.Expire(now), true
			case 6:
				did = m.Entitle(now, arg&1 == 1)
			case 7:
				did = m.Disentitle(now, arg&1 == 1)
			case 8:
				did = m.SetPriority(now, arg)
			case 9:
				m.SetFellows(sources[:arg%4])
			}
			checkStep(t, m, now, before, was, expired, did)
		}
	})
}

// checkStep asserts what must hold after any call of a machine that was in state
// before, and was entitled or not.
func checkStep(t testing.TB, m *Machine, now time.Duration, before State, was, expired bool, did []Action) {
	t.Helper()
	fail := func(what string) {
		t.Helper()
		t.Fatalf("%s: from %v (entitled %v) to %v (entitled %v), did %q at %v", what, before, was, m.State(), m.Entitled(), brief(did), now)
	}
	up := before == Master
	for _, a := range did {
		switch a := a.(type) {
		case SendAdvertisement:
			switch {
			case a.Priority == PriorityLeaving:
				if before != Master || m.State() == Master || up {
					fail("sends priority 0, but is not leaving, or its addresses are up")
				}
			case a.Priority != m.Priority():
				fail("sends another priority")
			case !up && m.State() != Master:
				fail("speaks and is not master")
			case !m.Entitled():
				fail("speaks and is not entitled")
			}
		case BecomeMaster:
			if up {
				fail("becomes master twice")
			}
			up = true
		case BecomeBackup:
			if !up && before != Initialize {
				fail("becomes backup twice")
			}
			up = false
		case Announce:
			if !up {
				fail("announces and is not master")
			}
		}
	}
	if up != (m.State() == Master) {
		fail("the addresses are not where the state is")
	}
	if m.State() == Master && !m.Entitled() {
		fail("is master and not entitled")
	}
	at, ok := m.Deadline()
	switch {
	case ok && expired && at <= now:
		fail("deadline is not in the future after Expire")
	case m.State() == Initialize && ok:
		fail("a timer runs in Initialize")
	case m.State() != Initialize && m.Entitled() && !ok:
		fail("no timer runs, and there is something to wait for")
	case m.State() == Master && at > now+m.config.Interval:
		fail("the next advertisement is too far away")
	case m.State() == Backup && at > now+time.Duration(m.config.DownTimerAdverts+1)*maxCentiseconds*centisecond:
		fail("the timer is too long")
	}
	if _, _, _, heardAt, ok := m.Master(); ok && heardAt > now {
		fail("a master was heard in the future")
	}
}

// FuzzTwo links two machines without loss: they come to one master, the better
// one if both preempt.
func FuzzTwo(f *testing.F) {
	f.Add(uint8(100), uint8(100), uint8(10), uint8(10), uint16(0), uint8(0))
	f.Add(uint8(1), uint8(255), uint8(1), uint8(200), uint16(5000), uint8(0xff))
	f.Add(uint8(200), uint8(100), uint8(200), uint8(1), uint16(900), uint8(3))
	f.Fuzz(func(t *testing.T, p1, p2, i1, i2 uint8, offset uint16, how uint8) {
		flag := func(bit int) bool { return how>>bit&1 == 1 }
		version := V3
		if flag(0) {
			version, i1, i2 = V2, 0, 0
		}
		every := func(i uint8) time.Duration {
			if version == V2 {
				return sec
			}
			return time.Duration(max(1, i)) * 10 * ms
		}
		n := newNetwork(t, nil)
		for i, c := range []MachineConfig{
			{Version: version, Priority: max(1, p1), Interval: every(i1), NoPreempt: flag(1), LowerPrioNoAdvert: flag(2), HigherPrioSendAdvert: flag(3)},
			{Version: version, Priority: max(1, p2), Interval: every(i2), NoPreempt: flag(4), LowerPrioNoAdvert: flag(5), HigherPrioSendAdvert: flag(6)},
		} {
			c.Source = netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})
			n.add(c)
		}
		n.start(n.routers[0])
		n.run(n.now + time.Duration(offset)*ms)
		n.start(n.routers[1])
		n.run(n.now + 10*max(every(i1), every(i2), sec))
		best := n.oneMaster()
		if !flag(1) && !flag(4) && best.m.Priority() < max(p1, p2) {
			t.Fatalf("the master has priority %d", best.m.Priority())
		}
	})
}
