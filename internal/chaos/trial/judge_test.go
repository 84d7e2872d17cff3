package trial

import (
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestStrays: who may announce when, told by who answers.
func TestStrays(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.1")
	ms := time.Millisecond
	// a answers until 100 ms, b from 400 ms to 800 ms, a again from 900 ms.
	var answers []testnet.Answer
	for at := ms; at < 1000*ms; at += ms {
		holder := ""
		switch {
		case at <= 100*ms || at >= 900*ms:
			holder = "a"
		case at >= 400*ms && at <= 800*ms:
			holder = "b"
		}
		if holder != "" {
			answers = append(answers, testnet.Answer{At: at, VIP: vip, Holder: holder})
		}
	}
	type ann struct {
		at     time.Duration
		holder string
	}
	for _, tt := range []struct {
		name string
		anns []ann
		want int
	}{
		{"clean change", []ann{{0, "a"}, {399 * ms, "b"}, {500 * ms, "b"}}, 0},
		{"owner repeats", []ann{{0, "a"}, {50 * ms, "a"}}, 0},
		{"long before it first answers", []ann{{0, "a"}, {300 * ms, "b"}, {500 * ms, "b"}}, 0},
		{"late announcement of the old owner", []ann{{0, "a"}, {399 * ms, "b"}, {500 * ms, "a"}}, 1},
		{"two of them", []ann{{0, "a"}, {399 * ms, "b"}, {500 * ms, "a"}, {501 * ms, "a"}, {502 * ms, "b"}}, 2},
		{"between announcement and first answer of the new owner", []ann{{0, "a"}, {380 * ms, "b"}, {390 * ms, "a"}}, 1},
		{"handed back", []ann{{0, "a"}, {399 * ms, "b"}, {899 * ms, "a"}, {950 * ms, "a"}}, 0},
		{"old owner before there is a new one", []ann{{0, "a"}, {300 * ms, "a"}, {399 * ms, "b"}}, 0},
	} {
		var anns []testnet.Announcement
		for _, a := range tt.anns {
			anns = append(anns, testnet.Announcement{At: a.at, Addr: vip, Holder: a.holder})
		}
		if got := strays(answers, anns, 0); len(got) != tt.want {
			t.Errorf("%s: %d strays %v, want %d", tt.name, len(got), got, tt.want)
		}
	}
}

func TestFind(t *testing.T) {
	fs, err := Find("freeze", "kill")
	if err != nil || len(fs) != 2 || fs[0].Name != "freeze" {
		t.Errorf("%v, %v", fs, err)
	}
	if _, err := Find("meteor"); err == nil {
		t.Error("found a fault that does not exist")
	}
}
