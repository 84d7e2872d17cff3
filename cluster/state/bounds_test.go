package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever a member proposes, what all have to keep stays within bounds.
func TestStateIsBounded(t *testing.T) {
	now := time.Now()
	must := func(s *State, c Command) *State {
		t.Helper()
		c.At = now
		next, err := s.Apply(c, s.Version+1)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	long := strings.Repeat("x", 1<<20)

	s := founded(2)
	for i := range MaxRemoved + 10 {
		now = now.Add(time.Second)
		id := fmt.Sprintf("n%d-%08x", i, i)
		s = must(s, Command{Join: &JoinCommand{Node: NodeRecord{ID: id, Name: fmt.Sprintf("n%d", i), Address: "192.0.2.9:1"}, Trusted: true, Level: 2}})
		s = must(s, Command{RemoveNode: &id})
	}
	if _, first := s.Removed["n0-00000000"]; len(s.Removed) != MaxRemoved || first {
		t.Errorf("%d removed nodes, the first one still there: %v", len(s.Removed), first)
	}

	s = founded(2)
	s = must(s, Command{Move: &Move{Group: long, From: "lb1\x1b[2J", To: "lb2", Reason: "bad\nnews \u202e" + long}})
	for range 100 {
		s = must(s, Command{Note: &NoteCommand{Group: s.Moves[0].Group, To: "lb2", Note: strings.Repeat("ä", 100)}})
	}
	m := s.Moves[0]
	if len(m.Reason) > MaxText || !utf8.ValidString(m.Reason) || len(m.Group) > 80 || m.From != "lb1?[2J" || !strings.HasPrefix(m.Reason, "bad?news ?xxx") {
		t.Errorf("move: %d bytes of reason %.40q, from %q", len(m.Reason), m.Reason, m.From)
	}

	// Members and tokens.
	s = founded(2)
	for i := range MaxNodes - 1 {
		s = must(s, Command{Join: &JoinCommand{Node: NodeRecord{ID: fmt.Sprintf("n%d-%08x", i, i), Name: fmt.Sprintf("n%d", i), Address: fmt.Sprintf("192.0.2.9:%d", i+2)}, Trusted: true, Level: 2}})
	}
	for i := range MaxTokens {
		s = must(s, Command{PutToken: &TokenRecord{ID: fmt.Sprint(i), Hash: "x", Expires: now.Add(time.Hour), Uses: 1}})
	}
	good := Address{Prefix: netip.MustParsePrefix("192.0.2.10/24")}
	vip := func(p string) *VIPCommand {
		return &VIPCommand{Instance: "v", Group: DefaultGroup, Address: Address{Prefix: netip.MustParsePrefix(p)}}
	}
	many := make([]Address, MaxAddresses+1)
	for i := range many {
		many[i].Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 6 & 63), byte(i&63) + 1}), 24)
	}
	hour, odd := time.Hour, time.Nanosecond
	instances := make([]Instance, MaxInstances+1)
	for i := range instances {
		instances[i].Name = fmt.Sprintf("v%d", i)
	}
	for name, c := range map[string]Command{
		"one node more":        {Join: &JoinCommand{Node: NodeRecord{ID: "x-00000000", Name: "x", Address: "192.0.2.9:1"}, Trusted: true, Level: 2}},
		"one token more":       {PutToken: &TokenRecord{ID: "more", Hash: "x", Expires: now.Add(time.Hour), Uses: 1}},
		"a token for ever":     {PutToken: &TokenRecord{ID: "0", Hash: "x", Uses: 1 << 30}},
		"a token of 1 MB":      {PutToken: &TokenRecord{ID: "0", Hash: long, Uses: 1}},
		"a token that clears":  {PutToken: &TokenRecord{ID: "0\x1bc", Hash: "x", Uses: 1}},
		"an hour's heartbeat":  {Heartbeat: &hour},
		"a nanosecond's":       {Configure: &Configuration{Heartbeat: odd}},
		"loopback":             {AddVIP: vip("127.0.0.1/8")},
		"multicast":            {AddVIP: vip("224.0.0.18/32")},
		"multicast, IPv6":      {AddVIP: vip("ff02::1/128")},
		"unspecified":          {AddVIP: vip("0.0.0.0/32")},
		"broadcast":            {AddVIP: vip("192.0.2.255/24")},
		"limited broadcast":    {AddVIP: vip("255.255.255.255/32")},
		"IPv4-mapped":          {AddVIP: vip("::ffff:192.0.2.1/128")},
		"invalid":              {AddVIP: &VIPCommand{Instance: "v", Group: DefaultGroup}},
		"configured loopback":  {Configure: &Configuration{Instances: []Instance{{Name: "v", Addresses: []Address{{Prefix: netip.MustParsePrefix("::1/128")}}}}}},
		"too many addresses":   {Configure: &Configuration{Instances: []Instance{{Name: "v", Addresses: many}}}},
		"too many instances":   {Configure: &Configuration{Instances: instances}},
		"an instance of 1 MB":  {Configure: &Configuration{Instances: []Instance{{Name: long}}}},
		"an instance's colour": {Configure: &Configuration{Instances: []Instance{{Name: "v\x1b[31m"}}}},
		"no name":              {Configure: &Configuration{Instances: []Instance{{}}}},
		"an interface's path":  {AddVIP: &VIPCommand{Instance: "v", Address: Address{Prefix: good.Prefix, Dev: "../x"}}},
		"a label of 1 MB":      {AddVIP: &VIPCommand{Instance: "v", Address: Address{Prefix: good.Prefix, Label: long}}},
		"a brd that is none":   {AddVIP: &VIPCommand{Instance: "v", Address: Address{Prefix: good.Prefix, Brd: "x"}}},
		"announcing for ever":  {AddVIP: &VIPCommand{Instance: "v", Address: good, GARP: GARP{MasterRepeat: 1 << 30}}},
		"announcing backwards": {AddVIP: &VIPCommand{Instance: "v", Address: good, GARP: GARP{MasterDelay: -1}}},
	} {
		_, err := s.Apply(c, s.Version+1)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if r := refusedBy(t, err, CodeBadRequest); len(r.Message) > 500 || strings.ContainsAny(r.Message, "\x1b\n") {
			t.Errorf("%s: message %.100q of %d bytes", name, r.Message, len(r.Message))
		}
		if strings.HasPrefix(name, "one ") {
			continue
		}
		// Logs from before there were bounds say what they said, or all would differ.
		if _, err := founded(0).Apply(c, 2); err != nil && c.AddVIP == nil && c.Configure == nil && c.PutToken != nil {
			t.Errorf("%s at level 1: %v", name, err)
		}
	}
	if _, err := s.Apply(Command{Configure: &Configuration{Heartbeat: MinHeartbeat, Instances: []Instance{{Name: "v", Addresses: many[:MaxAddresses]}}}}, s.Version+1); err != nil {
		t.Errorf("as many as are allowed: %v", err)
	}
}
