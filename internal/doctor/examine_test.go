package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// cluster makes members between which everything works, each with eth0.
func cluster(n int) []Member {
	var out []Member
	for i := range n {
		f := healthy()
		f.Name, f.Address = fmt.Sprintf("lb%d", i+1), fmt.Sprintf("10.0.0.%d:7355", i+1)
		f.Interfaces[0].Addresses = prefixes(fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("fd00::%d/64", i+1))
		m := Member{ID: "id" + fmt.Sprint(i+1), Name: f.Name, Address: f.Address, Facts: f}
		for _, six := range []bool{false, true} {
			for _, k := range []Kind{MulticastUDP, MulticastVRRP} {
				m.Probed.Sent = append(m.Probed.Sent, Sent{Kind: k, Six: six, Interface: "eth0", Rounds: 7})
			}
		}
		for j := range n {
			if i == j {
				continue
			}
			m.Dials = append(m.Dials, Dial{To: "id" + fmt.Sprint(j+1), Connected: time.Millisecond, RTT: time.Millisecond})
			for _, k := range []Kind{UnicastUDP, UnicastFull, UnicastVRRP} {
				m.Probed.Sent = append(m.Probed.Sent, Sent{Kind: k, To: j, Rounds: 7, Size: 1500})
				m.Probed.Seen = append(m.Probed.Seen, Seen{Kind: k, From: j, FromInterface: "eth0", Interface: "eth0", Rounds: 7})
			}
			for _, six := range []bool{false, true} {
				for _, k := range []Kind{MulticastUDP, MulticastVRRP} {
					m.Probed.Seen = append(m.Probed.Seen, Seen{Kind: k, Six: six, From: j, FromInterface: "eth0", Interface: "eth0", Rounds: 7})
				}
			}
		}
		out = append(out, m)
	}
	return out
}

// lose removes what a member saw of kinds, from one sender or, with -1, from all.
func lose(m *Member, from int, kinds ...Kind) {
	m.Probed.Seen = slices.DeleteFunc(m.Probed.Seen, func(s Seen) bool {
		return slices.Contains(kinds, s.Kind) && (from < 0 || s.From == from)
	})
}

func loseMulticast(ms []Member) {
	for i := range ms {
		lose(&ms[i], -1, MulticastUDP, MulticastVRRP)
	}
}

func dialFails(m *Member, to, why string) {
	for i := range m.Dials {
		if m.Dials[i].To == to {
			m.Dials[i].Error = why
		}
	}
}

func makeWitness(m *Member) {
	m.Witness, m.Facts.Witness = true, true
	m.Facts.Interfaces[0].VIPs = nil
}

func TestExamineHealthy(t *testing.T) {
	r := Examine("id2", cluster(3))
	if r.Node != "lb2" || !slices.Equal(r.Members, []string{"lb1", "lb2", "lb3"}) || len(r.Silent) > 0 || !r.Daemon {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Findings {
		if f.Result != OK {
			t.Errorf("%+v", f)
		}
	}
	last := 0
	for _, f := range r.Findings {
		at := slices.Index(checkOrder, f.Check)
		if at < last {
			t.Errorf("%s is out of order", f.Check)
		}
		last = at
	}
}

func TestVerdict(t *testing.T) {
	cases := []struct {
		name    string
		change  func([]Member)
		want    Transport
		verdict string
	}{
		{"all", func([]Member) {}, TransportMulticast, "multicast VRRP works between all 3 nodes; raftvip's own TCP works"},
		{"UDP port closed", func(m []Member) { lose(&m[0], -1, MulticastUDP, UnicastUDP, UnicastFull) }, TransportMulticast, "multicast VRRP works between all 3 nodes; raftvip's own TCP works"},
		{"one way without multicast", func(m []Member) { lose(&m[0], 1, MulticastUDP, MulticastVRRP) }, TransportUnicast, "only unicast VRRP works between all 3 nodes, multicast does not; raftvip's own TCP works"},
		{"no multicast", loseMulticast, TransportUnicast, "only unicast VRRP works between all 3 nodes, multicast does not; raftvip's own TCP works"},
		{"only UDP multicast", func(m []Member) { lose(&m[2], -1, MulticastVRRP, UnicastVRRP) }, TransportTCP, "only TCP (raftvip's own) works between all 3 nodes, neither multicast nor unicast VRRP does"},
		{"nothing", func(m []Member) {
			loseMulticast(m)
			lose(&m[2], -1, UnicastVRRP)
			dialFails(&m[0], "id3", "no answer")
		}, TransportNone, "no transport works between all 3 nodes: TCP fails from lb1 to lb3"},
		{"all but TCP", func(m []Member) { dialFails(&m[0], "id3", "no answer"); dialFails(&m[2], "id1", "no answer") }, TransportMulticast,
			"multicast VRRP works between all 3 nodes; raftvip's own TCP does NOT work from lb1 to lb3 and lb3 to lb1"},
		{"one silent", func(m []Member) { m[2].Error = "no answer" }, TransportMulticast, "multicast VRRP works between the 2 nodes that answered (not lb3); raftvip's own TCP works"},
		{"all silent", func(m []Member) { m[1].Error, m[2].Error = "no answer", "no answer" }, TransportUnknown, "which transport works cannot be told: lb2 and lb3 did not answer"},
		{"no probe", func(m []Member) { m[1].ProbeError = "busy" }, TransportTCP, "TCP (raftvip's own) works between all 3 nodes; VRRP was not tried"},
		{"a witness that hears nothing", func(m []Member) { makeWitness(&m[2]); m[2].Probed.Seen = nil }, TransportMulticast, "multicast VRRP works between all 2 nodes; raftvip's own TCP works"},
		{"one that may own", func(m []Member) { makeWitness(&m[1]); makeWitness(&m[2]) }, TransportUnknown, "which transport works cannot be told with one node"},
		{"IPv6 lost, IPv4 address", func(m []Member) {
			m[0].Probed.Seen = slices.DeleteFunc(m[0].Probed.Seen, func(s Seen) bool { return s.Six })
		}, TransportMulticast, "multicast VRRP works"},
		{"IPv6 lost, IPv6 address", func(m []Member) {
			for i := range m {
				m[i].Facts.Interfaces[0].VIPs = prefixes("fd00::100/64")
			}
			m[0].Probed.Seen = slices.DeleteFunc(m[0].Probed.Seen, func(s Seen) bool { return s.Six })
		}, TransportUnicast, "only unicast VRRP works"},
		{"other subnet", func(m []Member) { m[2].Facts.Interfaces[0].Addresses = prefixes("10.9.0.3/24") }, TransportUnicast, "only unicast VRRP works"},
		{"other subnet, witness", func(m []Member) {
			makeWitness(&m[2])
			m[2].Facts.Interfaces[0].Addresses = prefixes("10.9.0.3/24")
		}, TransportMulticast, "between all 2 nodes"},
		{"multicast only beside the addresses", func(m []Member) {
			for i := range m {
				back := eth0(fmt.Sprintf("192.168.0.%d/24", i+1))
				back.Name = "eth1"
				m[i].Facts.Interfaces = append(m[i].Facts.Interfaces, back)
				for j := range m[i].Probed.Seen {
					if s := &m[i].Probed.Seen[j]; s.Kind.multicast() && !s.Six {
						s.Interface, s.FromInterface = "eth1", "eth1"
					}
				}
			}
		}, TransportUnicast, "only unicast VRRP works"},
		{"no addresses yet", func(m []Member) {
			for i := range m {
				m[i].Facts.Interfaces[0].VIPs = nil
			}
		}, TransportMulticast, "multicast VRRP works"},
	}
	for _, c := range cases {
		m := cluster(3)
		c.change(m)
		if r := Examine("id1", m); r.Transport != c.want || !strings.Contains(r.Verdict, c.verdict) {
			t.Errorf("%s: %s: %s", c.name, r.Transport, r.Verdict)
		}
	}
}

func TestExamine(t *testing.T) {
	type want = Finding
	cases := []struct {
		name   string
		change func([]Member)
		want   Finding // Seen and Do are parts
	}{
		{"silent", func(m []Member) { m[1].Error = "no answer within 3s" }, want{Check: CheckMember, Node: "lb2", Peer: "lb1", Result: Fail, Seen: "cannot be asked: no answer", Do: "10.0.0.2:7355"}},
		{"reached by another all the same", func(m []Member) { m[1].Error = "x" }, want{Check: CheckTCP, Node: "lb3", Peer: "lb2", Result: OK, Seen: "connected"}},
		{"no dialling", func(m []Member) { m[1].Dials, m[1].DialError = nil, "gone" }, want{Check: CheckMember, Node: "lb2", Result: Fail, Seen: "did not try to reach the others: gone", Do: "again"}},
		{"no probing", func(m []Member) { m[1].Probed, m[1].ProbeError = Probed{}, "busy" }, want{Check: CheckMember, Node: "lb2", Result: Fail, Seen: "took no part in the probe: busy", Do: "again"}},
		{"port closed", func(m []Member) { dialFails(&m[0], "id3", "connection refused") },
			want{Check: CheckTCP, Node: "lb1", Peer: "lb3", Result: Fail, Seen: "cannot connect to 10.0.0.3:7355: connection refused", Do: "from lb1 to lb3"}},
		{"black hole", func(m []Member) { m[0].Dials[0].PayloadError = "no answer within 3s" },
			want{Check: CheckTCP, Node: "lb1", Peer: "lb2", Result: Fail, Seen: "64 KiB at once do not pass", Do: "MTU"}},
		{"clock", func(m []Member) { m[1].Clock = ClockReading{-time.Minute, time.Millisecond} }, want{Check: CheckClock, Node: "lb1", Peer: "lb2", Result: Warn, Seen: "the clock of lb2 is 1m0s behind (within 1ms)", Do: "NTP"}},
		{"clocks of others", func(m []Member) {
			m[1].Clock, m[2].Clock = ClockReading{-6 * time.Second, time.Millisecond}, ClockReading{6 * time.Second, time.Millisecond}
		}, want{Check: CheckClock, Node: "lb2", Peer: "lb3", Result: Warn, Seen: "the clock of lb3 is 12s ahead (within 2ms)", Do: "NTP"}},
		{"clock far off", func(m []Member) { m[1].Clock.Ahead = time.Hour }, want{Check: CheckClock, Node: "lb1", Peer: "lb2", Result: Fail, Seen: "1h0m0s ahead", Do: "NTP"}},
		{"clock not sure", func(m []Member) { m[1].Clock = ClockReading{11 * time.Second, 2 * time.Second} }, want{Check: CheckClock, Node: "lb1", Peer: "lb2", Result: OK, Seen: "11s ahead (within 2s)"}},
		{"clocks agree", func(m []Member) { m[1].Clock = ClockReading{time.Millisecond, 2 * time.Millisecond} }, want{Check: CheckClock, Node: "lb1", Peer: "lb2", Result: OK, Seen: "agree within 3ms"}},
		{"MTU differs", func(m []Member) { m[2].Facts.Interfaces[0].MTU = 1400 }, want{Check: CheckMTU, Node: "lb3", Peer: "lb1", Interface: "eth0", Result: Warn, Seen: "the MTU is 1400, that of lb1 in the same subnet is 1500", Do: "same MTU"}},
		{"jumbo frames lost", func(m []Member) { lose(&m[1], 0, UnicastFull) }, want{Check: CheckMTU, Node: "lb1", Peer: "lb2", Result: Warn, Seen: "packets of 1500 bytes, the MTU of lb1, do not arrive; small ones do", Do: "MTU"}},
		{"not sent", func(m []Member) {
			lose(&m[1], 0, UnicastFull)
			for i := range m[0].Probed.Sent {
				if s := &m[0].Probed.Sent[i]; s.Kind == UnicastFull {
					s.Rounds, s.Error = 0, "message too long"
				}
			}
		}, want{Check: CheckMTU, Node: "lb1", Peer: "lb2", Result: Warn, Seen: "cannot be sent: message too long", Do: "routes"}},
		{"UDP closed", func(m []Member) { lose(&m[1], 0, UnicastFull, UnicastUDP) }, want{Check: CheckMTU, Node: "lb1", Peer: "lb2", Result: OK, Seen: "not known: UDP to 10.0.0.2:7355 does not arrive, which raftvip does not need; TCP carries"}},
		{"no multicast", loseMulticast, want{Check: CheckMulticast, Node: "lb2", Peer: "lb3", Interface: "eth0", Result: Warn, Seen: "nothing sent to 224.0.0.18 arrives on eth0", Do: "no matter of IGMP snooping"}},
		{"no multicast by IPv6", loseMulticast, want{Check: CheckMulticast, Node: "lb2", Peer: "lb3", Interface: "eth0", Result: Warn, Seen: "nothing sent to ff02::12 arrives on eth0", Do: "MLD snooping"}},
		{"by a rule", func(m []Member) {
			loseMulticast(m)
			m[2].Facts.Filters = []Filter{{Packet: "protocol 112 to 224.0.0.18 coming in on eth0", Certain: true, Rule: "r"}}
		}, want{Check: CheckMulticast, Node: "lb2", Peer: "lb3", Interface: "eth0", Result: Warn, Seen: "nothing", Do: "see the firewall of lb3"}},
		{"protocol 112 dropped", func(m []Member) { lose(&m[1], 0, MulticastVRRP) }, want{Check: CheckMulticast, Node: "lb1", Peer: "lb2", Interface: "eth0", Result: Warn, Seen: "UDP to the same group does", Do: "protocol 112"}},
		{"losses", func(m []Member) {
			for i := range m[1].Probed.Seen {
				m[1].Probed.Seen[i].Rounds = 0b101
			}
		}, want{Check: CheckMulticast, Node: "lb1", Peer: "lb2", Interface: "eth0", Result: Warn, Seen: "arrives with gaps: 2 of 3", Do: "lost"}},
		{"not permitted", func(m []Member) {
			m[1].Probed.Unable = []Unable{{Kind: MulticastVRRP, Why: "not permitted (CAP_NET_RAW)"}}
			lose(&m[1], -1, MulticastVRRP)
		}, want{Check: CheckMulticast, Node: "lb1", Peer: "lb2", Interface: "eth0", Result: Warn, Seen: "was not tried (lb2: not permitted (CAP_NET_RAW)); UDP to it arrives", Do: "as root"}},
		{"no subnet in common", func(m []Member) { m[2].Facts.Interfaces[0].Addresses = prefixes("10.9.0.3/24", "fe80::1/64") }, want{Check: CheckMulticast, Node: "lb1", Peer: "lb3", Result: Warn, Seen: "share no subnet", Do: "witness"}},
		{"unicast dropped", func(m []Member) { lose(&m[1], 0, UnicastVRRP) }, want{Check: CheckUnicast, Node: "lb1", Peer: "lb2", Result: Warn, Seen: "does not arrive", Do: "protocol 112"}},
		{"families", func(m []Member) { m[0].Probed.Sent = nil }, want{Check: CheckUnicast, Node: "lb1", Peer: "lb2", Result: Warn, Seen: "no addresses of the same family", Do: "same family"}},
		{"service on an address", func(m []Member) { m[0].Facts.Services = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.100:443")} },
			want{Check: CheckSysctl, Node: "lb2", Peer: "lb1", Result: Warn, Seen: "net.ipv4.ip_nonlocal_bind is 0, and a service on lb1 listens on 10.0.0.100:443 alone", Do: "ip_nonlocal_bind=1"}},
	}
	for _, c := range cases {
		m := cluster(3)
		c.change(m)
		found := false
		all := Examine("id1", m).Findings
		for _, f := range all {
			found = found || f.Check == c.want.Check && f.Node == c.want.Node && f.Peer == c.want.Peer && f.Interface == c.want.Interface &&
				f.Result == c.want.Result && strings.Contains(f.Seen, c.want.Seen) && strings.Contains(f.Do, c.want.Do)
			if (f.Result == OK) != (f.Do == "") {
				t.Errorf("%s: what is wrong has advice, and nothing else has: %+v", c.name, f)
			}
		}
		if !found {
			t.Errorf("%s: no finding like %+v", c.name, c.want)
			for _, f := range all {
				if f.Check == c.want.Check {
					t.Logf("  %+v", f)
				}
			}
		}
	}
}

// A service may listen on a standby if the setting or itself permits it.
func TestNonlocalBind(t *testing.T) {
	service := []netip.AddrPort{netip.MustParseAddrPort("[fd00::100]:443")}
	m := cluster(3)
	m[0].Facts.Services, m[1].Facts.Services = service, service
	m[2].Facts.NonlocalBind6 = true
	if r := Examine("id1", m); r.Count(Warn) > 0 {
		t.Errorf("%+v", r.Findings)
	}
	m[2].Facts.NonlocalBind6, m[2].Facts.NonlocalBind4 = false, true
	if r := Examine("id1", m); r.Count(Warn) == 0 {
		t.Error("the setting of IPv4 counts for IPv6")
	}
	makeWitness(&m[2])
	if r := Examine("id1", m); r.Count(Warn) > 0 {
		t.Errorf("%+v", r.Findings)
	}
}

// A witness is not asked for what it does not do.
func TestWitness(t *testing.T) {
	m := cluster(3)
	makeWitness(&m[2])
	m[2].Facts.Lacking, m[2].Facts.FilterError = []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"}, "not permitted (CAP_NET_ADMIN)"
	m[2].Probed.Unable = []Unable{{Kind: MulticastVRRP, Why: "not permitted"}, {Kind: UnicastVRRP, Why: "not permitted"}}
	for i := range m {
		lose(&m[i], 2, MulticastVRRP, UnicastVRRP)
	}
	lose(&m[2], -1, MulticastVRRP, UnicastVRRP)
	r := Examine("id1", m)
	for _, f := range r.Findings {
		if f.Result != OK {
			t.Errorf("%+v", f)
		}
	}
}

func TestExamineAlone(t *testing.T) {
	all := cluster(3)
	self := all[0]
	peers := []Member{{ID: "id2", Name: "lb2", Address: "10.0.0.2:7355", Clock: ClockReading{time.Hour, time.Millisecond}}, {ID: "id3", Name: "10.0.0.3:7355", Address: "10.0.0.3:7355"}}
	why := Finding{Check: CheckDaemon, Node: "lb1", Result: Warn, Seen: "no daemon", Do: "start it"}
	r := ExamineAlone(why, self, peers)
	if r.Daemon || r.Node != "lb1" || r.Transport != TransportUnknown || r.Findings[0] != why ||
		!strings.Contains(r.Verdict, "TCP (raftvip's own) works from here to lb2, 10.0.0.3:7355;") {
		t.Errorf("%+v", r)
	}
	if r.Count(Fail) != 1 { // the clock of lb2
		t.Errorf("%+v", r.Findings)
	}
	for _, f := range r.Findings {
		if f.Check == CheckClock && f.Peer == "10.0.0.3:7355" {
			t.Errorf("its clock is not known: %+v", f)
		}
	}
	dialFails(&self, "id3", "connection refused")
	if r = ExamineAlone(why, self, peers); r.Count(Fail) != 2 || strings.Contains(r.Verdict, "works from here") {
		t.Errorf("%+v", r)
	}
	// What doctor itself may do says nothing of the daemon.
	all[0].Facts.Lacking = []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}
	if r = ExamineAlone(why, all[0], nil); r.Count(Fail) > 0 || r.Count(Warn) != 2 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Verdict, "cannot be told without a daemon that is in the cluster") || r.Count(Fail) > 0 {
		t.Errorf("%+v", r)
	}
}

func TestReadClock(t *testing.T) {
	sent := time.Now()
	got := ReadClock(sent, sent.Add(20*time.Millisecond), sent.Add(time.Minute).UTC())
	if got.Within != 10*time.Millisecond || got.Ahead != time.Minute-10*time.Millisecond {
		t.Errorf("%+v", got)
	}
}
