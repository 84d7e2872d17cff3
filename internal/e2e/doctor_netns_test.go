package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/testnet"
)

// examine runs doctor on a node and checks that its exit code says what it found.
func examine(t *testing.T, n *Node) doctor.Report {
	t.Helper()
	r := get[Result](t)(n.Run(t.Context(), "doctor", "--json"))
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("doctor on %s: %v: %v", n.Name, err, r)
	}
	if want := min(report.Count(doctor.Fail), 1); r.Code != want {
		t.Errorf("doctor on %s: exit code %d, want %d: %v", n.Name, r.Code, want, r)
	}
	if !strings.Contains(r.Stderr, "asking the daemon") {
		t.Errorf("doctor on %s says nothing while it works: %q", n.Name, r.Stderr)
	}
	return report
}

// An expectation of what doctor says: the transport, a part of the verdict, findings
// whose Seen has the text, and maybe more.
type expectation struct {
	transport doctor.Transport
	verdict   string
	findings  []doctor.Finding
	more      func(doctor.Report) string // what is wrong, or ""
}

func (e expectation) missed(r doctor.Report) (wrong []string) {
	if e.transport != "" && r.Transport != e.transport || !strings.Contains(r.Verdict, e.verdict) {
		wrong = append(wrong, fmt.Sprintf("verdict is not %q, %q", e.transport, e.verdict))
	}
	for _, want := range e.findings {
		if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
			return f.Check == want.Check && f.Node == want.Node && f.Peer == want.Peer && f.Result == want.Result &&
				(want.Interface == "" || f.Interface == want.Interface) && strings.Contains(f.Seen, want.Seen)
		}) {
			wrong = append(wrong, fmt.Sprintf("no finding like %+v", want))
		}
	}
	if e.more != nil {
		if text := e.more(r); text != "" {
			wrong = append(wrong, text)
		}
	}
	return wrong
}

// doctorTries is how often a machine that stalls for seconds, and so loses what doctor
// looks for, is asked again.
const doctorTries = 4

// says fails the test unless doctor on a node says what is expected.
func says(t *testing.T, n *Node, want expectation) {
	t.Helper()
	for try := 1; ; try++ {
		r := examine(t, n)
		wrong := want.missed(r)
		if len(wrong) == 0 {
			return
		}
		text := fmt.Sprintf("doctor on %s: %s:\n%s", n.Name, strings.Join(wrong, "\n"), listed(r))
		if try == doctorTries {
			t.Error(text)
			return
		}
		t.Log(text)
	}
}

// wrong lists what is not as it should be, but for what depends on the machine: its
// clock and its disk.
func wrong(r doctor.Report) (list []doctor.Finding) {
	for _, f := range r.Findings {
		if f.Result != doctor.OK && f.Check != doctor.CheckDisk && (f.Check != doctor.CheckClock || f.Peer != "") {
			list = append(list, f)
		}
	}
	return list
}

func listed(r doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s %s %s>%s %s: %s\n", f.Result, f.Check, f.Node, f.Peer, f.Interface, f.Seen)
	}
	return b.String() + r.Verdict
}

// block adds a rule to the node's input and returns what removes it.
func block(t *testing.T, n *Node, rules ...string) (unblock func()) {
	t.Helper()
	exec1(t, n.Host, "nft", "add table inet test; add chain inet test in { type filter hook input priority 0; policy accept; }")
	for _, r := range rules {
		exec1(t, n.Host, "nft", "add rule inet test in "+r)
	}
	return func() {
		t.Helper()
		exec1(t, n.Host, "nft", "delete table inet test")
	}
}

// TestDoctor: doctor says which transport works and names who is to blame if one does
// not.
func TestDoctor(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	type finding = doctor.Finding

	// All fine.
	for _, n := range c.Nodes {
		says(t, n, expectation{transport: doctor.TransportMulticast, verdict: "multicast VRRP works between all 3 nodes", findings: []finding{
			{Check: doctor.CheckTCP, Node: n1.Name, Peer: n3.Name, Result: doctor.OK, Seen: "connected"},
			{Check: doctor.CheckMTU, Node: n3.Name, Peer: n1.Name, Result: doctor.OK, Seen: "packets of 1500 bytes arrive whole"},
			{Check: doctor.CheckMulticast, Node: n1.Name, Peer: n2.Name, Interface: "eth0", Result: doctor.OK, Seen: "224.0.0.18"},
			{Check: doctor.CheckMulticast, Node: n2.Name, Peer: n1.Name, Interface: "eth0", Result: doctor.OK, Seen: "ff02::12"},
			{Check: doctor.CheckUnicast, Node: n2.Name, Peer: n3.Name, Result: doctor.OK},
			{Check: doctor.CheckClock, Node: n1.Name, Peer: n2.Name, Result: doctor.OK, Seen: "agree"},
			{Check: doctor.CheckFirewall, Node: n1.Name, Result: doctor.OK},
			{Check: doctor.CheckPrivileges, Node: n1.Name, Result: doctor.OK},
			{Check: doctor.CheckSysctl, Node: n1.Name, Interface: "eth0", Result: doctor.OK, Seen: "arp_ignore is 0"},
		}, more: func(r doctor.Report) string {
			if bad := wrong(r); len(bad) > 0 || len(r.Silent) > 0 || len(r.Members) != 3 || !r.Daemon || r.Node != n.Name {
				return fmt.Sprintf("nothing is wrong, but it says %+v", bad)
			}
			return ""
		}})
	}

	// Multicast does not pass, though unicast does.
	unblock := block(t, n2, "ip daddr 224.0.0.18 drop", "ip6 daddr ff02::12 drop")
	says(t, n1, expectation{transport: doctor.TransportUnicast, verdict: "only unicast VRRP works", findings: []finding{
		{Check: doctor.CheckMulticast, Node: n1.Name, Peer: n2.Name, Interface: "eth0", Result: doctor.Warn, Seen: "nothing sent to 224.0.0.18 arrives"},
		{Check: doctor.CheckMulticast, Node: n2.Name, Peer: n1.Name, Interface: "eth0", Result: doctor.OK, Seen: "224.0.0.18"},
		{Check: doctor.CheckFirewall, Node: n2.Name, Result: doctor.Warn, Seen: "table inet test, chain in, rule 1"},
	}})
	unblock()

	// Protocol 112 does not pass, multicast or not; UDP to the same group does.
	unblock = block(t, n2, "meta l4proto 112 drop")
	says(t, n3, expectation{transport: doctor.TransportTCP, verdict: "only TCP (raftvip's own) works", findings: []finding{
		{Check: doctor.CheckMulticast, Node: n1.Name, Peer: n2.Name, Result: doctor.Warn, Seen: "something drops protocol 112"},
		{Check: doctor.CheckUnicast, Node: n3.Name, Peer: n2.Name, Result: doctor.Warn, Seen: "does not arrive"},
	}, more: func(r doctor.Report) string {
		if r.Count(doctor.Fail) > 0 {
			return "raftvip does not need protocol 112, but there are failures"
		}
		return ""
	}})
	unblock()

	// New connections from n1 to n3 do not come through.
	unblock = block(t, n3, fmt.Sprintf("ip saddr %v tcp dport 7355 tcp flags & (syn|ack) == syn drop", n1.Host.Addr4(testnet.Front)))
	says(t, n2, expectation{transport: doctor.TransportMulticast, verdict: "does NOT work from " + n1.Name + " to " + n3.Name, findings: []finding{
		{Check: doctor.CheckTCP, Node: n1.Name, Peer: n3.Name, Result: doctor.Fail, Seen: "cannot connect"},
		{Check: doctor.CheckTCP, Node: n3.Name, Peer: n1.Name, Result: doctor.OK},
		{Check: doctor.CheckFirewall, Node: n3.Name, Result: doctor.Fail, Seen: "TCP port 7355 coming in on eth0 is dropped by table inet test"},
	}})
	unblock()

	// One interface has another MTU.
	exec1(t, n3.Host, "ip", "link", "set", "eth0", "mtu", "1400")
	says(t, n1, expectation{findings: []finding{
		{Check: doctor.CheckMTU, Node: n3.Name, Peer: n1.Name, Interface: "eth0", Result: doctor.Warn, Seen: "the MTU is 1400"},
		{Check: doctor.CheckMTU, Node: n2.Name, Peer: n3.Name, Result: doctor.Warn, Seen: "packets of 1500 bytes"},
		{Check: doctor.CheckMTU, Node: n1.Name, Peer: n2.Name, Result: doctor.OK},
		{Check: doctor.CheckTCP, Node: n1.Name, Peer: n3.Name, Result: doctor.OK},
	}})
	exec1(t, n3.Host, "ip", "link", "set", "eth0", "mtu", "1500")

	// Settings of the kernel that keep a node from answering.
	exec1(t, n2.Host, "ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
	exec1(t, n2.Host, "ip", "address", "add", "192.0.2.1/24", "dev", "other0")
	exec1(t, n2.Host, "ip", "link", "set", "other0", "up")
	exec1(t, n2.Host, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1", "net.ipv4.conf.eth0.arp_ignore=8")
	says(t, n3, expectation{findings: []finding{
		{Check: doctor.CheckSysctl, Node: n2.Name, Interface: "eth0", Result: doctor.Warn, Seen: "rp_filter is 1"},
		{Check: doctor.CheckSysctl, Node: n2.Name, Interface: "eth0", Result: doctor.Fail, Seen: "arp_ignore is 8"},
		{Check: doctor.CheckSysctl, Node: n1.Name, Interface: "eth0", Result: doctor.OK, Seen: "arp_ignore is 0"},
	}})
	exec1(t, n2.Host, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.eth0.arp_ignore=0")
}

// TestDoctorSilence: doctor names a member that does not answer, and without the daemon
// of its own node it says so and does what it can.
func TestDoctorSilence(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	gone, other := c.Others(o)[0], c.Others(o)[1]
	type finding = doctor.Finding

	// A service that only the owner can start.
	serveOn(t, o, vip4.String())
	says(t, gone, expectation{findings: []finding{
		{Check: doctor.CheckSysctl, Node: gone.Name, Peer: o.Name, Result: doctor.Warn, Seen: "ip_nonlocal_bind is 0"},
		{Check: doctor.CheckSysctl, Node: other.Name, Peer: o.Name, Result: doctor.Warn, Seen: "ip_nonlocal_bind is 0"},
	}})

	// A daemon that is there and does not answer.
	must(t, gone.Daemon().Stop())
	alone := func(r doctor.Report) string {
		if r.Daemon || len(r.Silent) != 2 {
			return "it has asked the others"
		}
		return ""
	}
	says(t, gone, expectation{transport: doctor.TransportUnknown, more: alone, findings: []finding{
		{Check: doctor.CheckDaemon, Node: gone.Name, Result: doctor.Fail, Seen: "does not answer"},
		{Check: doctor.CheckTCP, Node: gone.Name, Peer: o.Name, Result: doctor.OK},
	}})

	// A member that is not there.
	must(t, gone.Kill())
	says(t, o, expectation{transport: doctor.TransportMulticast, verdict: "between the 2 nodes that answered (not " + gone.Name + ")", findings: []finding{
		{Check: doctor.CheckMember, Node: gone.Name, Peer: o.Name, Result: doctor.Fail, Seen: "cannot be asked"},
		{Check: doctor.CheckTCP, Node: other.Name, Peer: gone.Name, Result: doctor.Fail, Seen: "refused"},
	}, more: func(r doctor.Report) string {
		if !slices.Equal(r.Silent, []string{gone.Name}) {
			return fmt.Sprintf("silent is %v", r.Silent)
		}
		return ""
	}})
	says(t, gone, expectation{transport: doctor.TransportUnknown, verdict: "TCP (raftvip's own) works from here to", more: alone, findings: []finding{
		{Check: doctor.CheckDaemon, Node: gone.Name, Result: doctor.Warn, Seen: "no daemon is running here"},
		{Check: doctor.CheckTCP, Node: gone.Name, Peer: o.Name, Result: doctor.OK},
		{Check: doctor.CheckClock, Node: gone.Name, Peer: o.Name, Result: doctor.OK},
	}})
}

// serveOn has something listen on an address of the node until the test ends.
func serveOn(t *testing.T, n *Node, address string) {
	t.Helper()
	var ln net.Listener
	must(t, n.Host.Do(func() (err error) {
		ln, err = net.Listen("tcp", address+":80")
		return err
	}))
	t.Cleanup(func() { _ = ln.Close() })
}

// TestDoctorWitness: a witness without a single capability takes part, says what it
// cannot do, and does not stand in the way of the verdict.
func TestDoctorWitness(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, names: []string{"lb1", "lb2", "tie"}})
	ctx := bounded(t, 90*time.Second)
	lb1, lb2, tie := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	must(t, tie.GiveTo(65534))
	r := get[Result](t)(lb1.Must(ctx, "init", "--name", "lb1", "--vip", vip4.String()+"/24@eth0"))
	ticket := get[Ticket](t)(TicketFrom(r.Stdout))
	must(t, lb1.Start())
	must(t, lb1.WaitServing(ctx))
	must(t, lb2.Join(ctx, ticket))
	must(t, lb2.Start())
	must(t, tie.Join(ctx, ticket, "--witness"))
	must(t, tie.Start())
	must(t, tie.WaitServing(ctx))
	must(t, c.WaitFormed(ctx))
	for _, n := range []*Node{lb1, tie} {
		says(t, n, expectation{transport: doctor.TransportMulticast, verdict: "between all 2 nodes", findings: []doctor.Finding{
			{Check: doctor.CheckPrivileges, Node: "tie", Result: doctor.OK, Seen: "cannot send or hear probes of protocol 112"},
			{Check: doctor.CheckFirewall, Node: "tie", Result: doctor.OK, Seen: "not looked at"},
			{Check: doctor.CheckTCP, Node: "tie", Peer: "lb2", Result: doctor.OK},
			{Check: doctor.CheckMTU, Node: "tie", Peer: "lb2", Result: doctor.OK, Seen: "arrive whole"},
		}, more: func(r doctor.Report) string {
			if bad := wrong(r); len(bad) > 0 {
				return fmt.Sprintf("nothing is wrong, but it says %+v", bad)
			}
			return ""
		}})
	}
}

// TestDoctorBesideKeepalived: a VRRP router on the same network takes no notice of the
// probes.
func TestDoctorBesideKeepalived(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	const conf = `global_defs {
 vrrp_garp_master_delay 0
}
vrrp_instance four {
 interface eth0
 virtual_router_id 7
 virtual_ipaddress {
  10.99.0.150/24
 }
}
vrrp_instance six {
 interface eth0
 version 3
 virtual_router_id 7
 advert_int 0.2
 virtual_ipaddress {
  fd00:99::150/64
 }
}
`
	k := get[*testnet.Proc](t)(c.Lab.StartKeepalived(c.Lab.Client(0), conf))
	testnet.MustWait(t, 20*time.Second, "keepalived to be master", func() error {
		// What it does next it logs before.
		four, err := c.Lab.Client(0).Has(c.Lab.VIP4(150))
		six, err6 := c.Lab.Client(0).Has(c.Lab.VIP6(150))
		if !four || !six {
			return errors.Join(err, err6, errors.New(k.Tail(500)))
		}
		return nil
	})
	before := k.Output()
	says(t, c.Nodes[0], expectation{transport: doctor.TransportMulticast})
	for _, line := range strings.Split(strings.TrimPrefix(k.Output(), before), "\n") {
		// It may still be announcing its own addresses.
		if line != "" && !strings.Contains(line, "gratuitous ARP") && !strings.Contains(line, "unsolicited Neighbour") {
			t.Errorf("keepalived has noticed the probes: %s", line)
		}
	}
}
