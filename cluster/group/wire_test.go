package group

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
)

func packed(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadValueTakesOneMessage(t *testing.T) {
	long := &raft.AppendEntriesRequest{RPCHeader: from("b"), Term: 1 << 40}
	for i := range 300 {
		long.Entries = append(long.Entries, &raft.Log{Index: uint64(i), Data: make([]byte, i*7)})
	}
	for _, v := range []any{
		long, &raft.RequestVoteRequest{RPCHeader: from("b"), Term: 7}, &raft.AppendEntriesResponse{}, "", "an error",
		&raft.InstallSnapshotRequest{Size: 1 << 33, Configuration: make([]byte, 70000)}, -5, 3.5, nil, true,
		map[string]any{"a": []any{1, "b", nil}},
	} {
		b := packed(t, v)
		r := bytes.NewReader(append(bytes.Clone(b), "rest"...))
		got, err := readValue(r, maxAppend, nil)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%T: %d bytes, %v; want %d", v, len(got), err, len(b))
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("%T: left %q", v, rest)
		}
	}
}

func TestReadValueIsBounded(t *testing.T) {
	nils := append([]byte{0x81, 0xa7}, "Entries"...)
	nils = append(nils, 0xdd, 0x02, 0x00, 0x00, 0x00) // a list of 2^25
	deep := bytes.Repeat([]byte{0x91}, 100)
	for _, tt := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"list of nils", io.MultiReader(bytes.NewReader(nils), zeros{0xc0}), errWireShape},
		{"deep", bytes.NewReader(deep), errWireShape},
		{"long string", io.MultiReader(bytes.NewReader([]byte{0xdb, 0xff, 0xff, 0xff, 0xff}), zeros{'a'}), errWireSize},
		{"cut off", bytes.NewReader([]byte{0xdb, 0, 0, 0, 9, 'a'}), io.ErrUnexpectedEOF},
	} {
		if _, err := readValue(tt.in, maxAppend, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
		}
	}
	grown := false
	in := packed(t, make([]byte, maxSmall+1))
	if _, err := readValue(bytes.NewReader(in), maxAppend, func() error { grown = true; return errWireSize }); !grown || !errors.Is(err, errWireSize) {
		t.Errorf("a large message was taken without asking: %v", err)
	}
}

// zeros is one byte for ever.
type zeros struct{ b byte }

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = z.b
	}
	return len(p), nil
}

func FuzzReadValue(f *testing.F) {
	f.Add(packed(f, &raft.AppendEntriesRequest{RPCHeader: from("b"), Entries: []*raft.Log{nil, {Data: []byte("x")}}}))
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0})
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 64)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	f.Add(noise)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readValue(bytes.NewReader(b), 1<<16, nil)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, got) {
			t.Fatalf("%x is no prefix of %x", got, b)
		}
		// What was measured is what a decoder takes, or refuses.
		var v any
		d := codec.NewDecoderBytes(got, &codec.MsgpackHandle{})
		if d.Decode(&v) == nil && d.NumBytesRead() != len(got) {
			t.Fatalf("decoder took %d of %d bytes: %x", d.NumBytesRead(), len(got), got)
		}
	})
}
