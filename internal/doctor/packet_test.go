package doctor

import (
	"strings"
	"testing"
)

func testDatagram() datagram {
	return datagram{session: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, kind: UnicastFull, from: 5, round: 2, iface: "eth0.100", totalSize: 1480}
}

func TestDatagramRoundTrip(t *testing.T) {
	for _, size := range []int{datagramSize, 1480, maxProbe} {
		want := testDatagram()
		want.totalSize = size
		b := want.encode()
		if len(b) != size {
			t.Errorf("%d bytes, want %d", len(b), size)
		}
		if got, err := parseDatagram(b); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if b := (datagram{kind: MulticastVRRP, iface: "e"}).encode(); len(b) != datagramSize {
		t.Errorf("%d bytes", len(b))
	}
}

// RFC 9568 7.1: a router discards what is not of its version, not an ADVERTISEMENT
// (type 1), or of a VRID that it does not have; VRIDs are 1 to 255 (5.2.3).
func TestDatagramIsNoAdvertisement(t *testing.T) {
	b := testDatagram().encode()
	if version, kind := b[0]>>4, b[0]&0xf; version == 2 || version == 3 || kind == 1 {
		t.Errorf("version %d, type %d: a router may take it for an advertisement", version, kind)
	}
	if b[1] != 0 {
		t.Errorf("VRID %d may be a router's", b[1])
	}
}

func TestParseDatagramRejects(t *testing.T) {
	cases := map[string]func(b []byte) []byte{
		"empty":                      func(b []byte) []byte { return nil },
		"short":                      func(b []byte) []byte { return b[:datagramSize-1] },
		"an advertisement":           func(b []byte) []byte { b[0] = 0x31; return b },
		"a VRID":                     func(b []byte) []byte { b[1] = 1; return b },
		"a priority":                 func(b []byte) []byte { b[2] = 1; return b },
		"a checksum":                 func(b []byte) []byte { b[7] = 1; return b },
		"other magic":                func(b []byte) []byte { b[8] = 0; return b },
		"kind 0":                     func(b []byte) []byte { b[20] = 0; return b },
		"unknown kind":               func(b []byte) []byte { b[20] = byte(kinds); return b },
		"a sender that cannot be":    func(b []byte) []byte { b[21] = MaxNodes; return b },
		"a round that is not sent":   func(b []byte) []byte { b[22] = Rounds; return b },
		"a name of 16 bytes":         func(b []byte) []byte { b[23] = 16; return b },
		"no name":                    func(b []byte) []byte { b[23] = 0; return b },
		"a name with a slash":        func(b []byte) []byte { b[24] = '/'; return b },
		"a name that rings the bell": func(b []byte) []byte { b[24] = 7; return b },
		"a name that is no text":     func(b []byte) []byte { b[24] = 0xff; return b },
	}
	for name, change := range cases {
		if d, err := parseDatagram(change(testDatagram().encode())); err == nil {
			t.Errorf("%s: taken as %+v", name, d)
		}
	}
}

func FuzzParseDatagram(f *testing.F) {
	f.Add(testDatagram().encode())
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDatagram(b)
		if err != nil {
			return
		}
		if CheckInterfaceName(d.iface) != nil || d.kind == 0 || d.kind >= kinds || d.from >= MaxNodes || d.round >= Rounds {
			t.Fatalf("taken: %+v", d)
		}
		if again, err := parseDatagram(d.encode()); err != nil || again != d {
			t.Fatalf("%+v reads back as %+v, %v", d, again, err)
		}
	})
}

func TestSession(t *testing.T) {
	if s, err := parseSession("0102030405060708"); err != nil || s != testDatagram().session {
		t.Errorf("%v, %v", s, err)
	}
	for _, text := range []string{"", "01", "010203040506070809", "zz02030405060708", strings.Repeat("0", 15)} {
		if _, err := parseSession(text); err == nil {
			t.Errorf("session %q is taken", text)
		}
	}
}

func TestRoundSet(t *testing.T) {
	cases := []struct {
		set   RoundSet
		count int
		lossy bool
	}{
		{0, 0, false}, {0b111, 3, false}, {0b110, 2, false}, // the first one was too early
		{0b011, 2, false}, {0b100, 1, false}, {0b101, 2, true},
	}
	for _, c := range cases {
		if c.set.count() != c.count || c.set.lossy() != c.lossy {
			t.Errorf("%03b: %d rounds, lossy %v", c.set, c.set.count(), c.set.lossy())
		}
	}
}
