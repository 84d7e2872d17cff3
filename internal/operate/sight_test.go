package operate

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/doctor"
)

// TestSeenFromHere: what a node says that does not lead and gets no answer is true, or
// it is that it does not know.
func TestSeenFromHere(t *testing.T) {
	const lease = 270 * time.Millisecond
	for _, tt := range []struct {
		name  string
		in    sightInputs
		owner string
		known bool
		why   string
	}{
		{"joining", sightInputs{phase: "looking for the cluster", founded: true}, "", false, "not in the cluster yet: looking for"},
		{"never founded", sightInputs{}, "", true, "has not been founded yet"},
		{"an election", sightInputs{founded: true, searched: 120 * time.Millisecond}, "", false, "no leader since 120ms"},
		{"cut off: the others may go on", sightInputs{founded: true, quorum: "no quorum: 1 of 3 voters answer; missing: lb2 and lb3"}, "", false, "missing: lb2 and lb3; this node owns nothing, and cannot tell"},
		{"no quorum, and the others are none either", sightInputs{founded: true, quorum: "no quorum: 1 of 2 voters answer; missing: lb2", noneCan: true}, "", true, "silent"},
		{"the leader does not answer, and has owned and is heard", sightInputs{founded: true, leader: "lb2", owned: true, heard: 50 * time.Millisecond, asked: errors.New("no answer")}, "lb2", true, ""},
		{"the leader does not answer, and is not heard", sightInputs{founded: true, leader: "lb2", owned: true, heard: 300 * time.Millisecond, asked: errors.New("no answer")}, "", false, "lb2 leads, and does not say whether it owns: no answer"},
		{"the leader does not answer, and is new", sightInputs{founded: true, leader: "lb2", heard: 50 * time.Millisecond, asked: errors.New("no answer")}, "", false, "lb2 leads, and does not say"},
	} {
		tt.in.lease = lease
		got := seenFromHere(tt.in)
		if got.owner != tt.owner || got.known != tt.known || !strings.Contains(got.why, tt.why) {
			t.Errorf("%s: got %+v, want %q %v %q", tt.name, got, tt.owner, tt.known, tt.why)
		}
	}
}

func TestOwnershipWarnings(t *testing.T) {
	addrs := []api.Address{{Prefix: netip.MustParsePrefix("10.0.0.1/24")}}
	status := func(leader string, voters, reachable int, g api.Group) api.Status {
		return api.Status{
			Cluster: api.Cluster{Leader: leader, Voters: voters, Reachable: reachable, Tolerates: tolerates(voters, reachable)},
			Groups:  []api.Group{g},
		}
	}
	for _, tt := range []struct {
		name    string
		st      api.Status
		founded bool
		want    []string
	}{
		{"well", status("lb1", 3, 3, api.Group{Owner: "lb1", Addresses: addrs}), true, nil},
		{"one voter is missing", status("lb1", 3, 2, api.Group{Owner: "lb1", Addresses: addrs}), true, []string{"2 of 3 voters answer: 0 more may fail"}},
		{"one of five is missing", status("lb1", 5, 4, api.Group{Owner: "lb1", Addresses: addrs}), true, []string{"4 of 5 voters answer: 1 more may fail"}},
		{"nobody", status("lb1", 3, 3, api.Group{Addresses: addrs, Why: "lb1 is drained"}), true, []string{"nobody owns the addresses: lb1 is drained"}},
		{"not known", status("lb1", 3, 0, api.Group{Addresses: addrs, Unknown: true, Why: "lb1 does not say"}), true, []string{"who owns the addresses is not known here: lb1 does not say"}},
		{"no leader", status("", 3, 0, api.Group{Addresses: addrs, Unknown: true, Why: "no quorum: x"}), true, []string{"no quorum: x"}},
		{"no addresses", status("lb1", 3, 3, api.Group{}), true, nil},
		{"never founded: no word of voters", status("", 1, 0, api.Group{Why: "the cluster has not been founded yet"}), false, nil},
	} {
		got := ownershipWarnings(tt.st, tt.founded)
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestOwnerFinding: doctor fails where status does, always with a reason.
func TestOwnerFinding(t *testing.T) {
	for _, tt := range []struct {
		name      string
		addresses int
		seen      sight
		want      doctor.Result
		says      string
	}{
		{"well", 1, sight{owner: "lb1", known: true}, doctor.OK, "lb1 owns"},
		{"nobody", 1, sight{known: true, why: "lb1 is drained"}, doctor.Fail, "nobody owns the addresses: lb1 is drained"},
		{"no leader", 1, sight{why: "no quorum: 1 of 3 voters answer; missing: lb2 and lb3"}, doctor.Fail, "not known here: no quorum: 1 of 3"},
		{"nothing to own", 0, sight{known: true}, doctor.OK, "no virtual address"},
	} {
		f := ownerFinding("lb3", "", tt.addresses, tt.seen)
		if f.Result != tt.want || !strings.Contains(f.Seen, tt.says) {
			t.Errorf("%s: %+v", tt.name, f)
		}
	}
}
