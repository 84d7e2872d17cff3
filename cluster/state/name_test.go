package state

import (
	"strings"
	"testing"
)

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"192.0.2.1:7946", "[2001:db8::1]:7946", "[fe80::1%eth0.5]:1", "lb1:7946", "lb1.example.org.:65535", "lb_1:7946", "127.0.0.1:7946"} {
		if err := CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "lb1", ":7946", "lb1:", "lb1:0", "lb1:07946", "lb1:65536", "lb1:79460000", "lb1:+1", "lb1:http", "192.0.2.1:7946:1",
		"0.0.0.0:7946", "[::]:7946", "224.0.0.18:7946", "[ff02::1]:7946", "255.255.255.255:7946", "[::ffff:192.0.2.1]:7946",
		"192.0.2:7946", "999.0.2.1:7946", "lb 1:7946", "lb1\x1b[2J:7946", "lb1\n:7946", "-lb1:7946", "lb..1:7946", "[fe80::1%e\x1b]:7946",
		strings.Repeat("a", 254) + ":7946", "lb1/x:7946",
	} {
		err := CheckAddress(bad)
		if err == nil {
			t.Errorf("%q passes", bad)
		} else if strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 200 {
			t.Errorf("message %q", err)
		}
	}
}

func TestIdentitiesAreNoNames(t *testing.T) {
	for _, tt := range []struct {
		name, id string
		ok       bool
	}{
		{"lb1", "lb1-0123abcd", true},
		{"lb1", "lb2", false},
		{"lb1", "lb1", false},
		{"lb1", "lb1-0123ABCD", false},
		{"lb1", "lb1-0123abcde", false},
		{"lb1", "lb2-0123abcd", false},
		{"lb1", "lb1-0123abcd\n", false},
	} {
		if err := CheckOwnID(tt.name, tt.id); (err == nil) != tt.ok {
			t.Errorf("%s of %s: %v", tt.id, tt.name, err)
		}
	}
	s := founded(2)
	join := func(id, name, address string) error {
		_, err := s.Apply(Command{Join: &JoinCommand{Node: NodeRecord{ID: id, Name: name, Address: address}, Trusted: true, Level: 2}}, 2)
		return err
	}
	if err := join("lb2-00000002", "lb2", "192.0.2.2:7946"); err != nil {
		t.Fatal(err)
	}
	refusedBy(t, join("lb1", "lb2", "192.0.2.2:7946"), CodeNameTaken)
	refusedBy(t, join("lb1-00000001-00000002", "lb1-00000001", "192.0.2.2:7946"), CodeNameTaken)
	refusedBy(t, join("lb2-00000002", "lb2", "192.0.2.2:79460000"), CodeBadRequest)
	refusedBy(t, join("lb2-00000002", "lb\x1b[2J", "192.0.2.2:7946"), CodeBadRequest)
	refusedBy(t, join("lb2 00000002", "lb2", "192.0.2.2:7946"), CodeBadRequest)
	// Logs from before there were levels say what they said.
	s = founded(0)
	if err := join("lb1", "lb2", "somewhere"); err != nil {
		t.Errorf("level 1: %v", err)
	}
}
