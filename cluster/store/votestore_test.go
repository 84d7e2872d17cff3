package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

func reopen(t *testing.T, path string, s *VoteStore) *VoteStore {
	t.Helper()
	return opened(t, path, s, true)
}

func opened(t *testing.T, path string, s *VoteStore, sameBoot bool) *VoteStore {
	t.Helper()
	s.Close()
	s, err := openVoteStore(path, false, sameBoot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func expectVote(t *testing.T, s *VoteStore, term, voteTerm uint64, candidate string) {
	t.Helper()
	gotTerm, _ := s.GetUint64([]byte(keyCurrentTerm))
	gotVote, _ := s.GetUint64([]byte(keyLastVoteTerm))
	gotCand, _ := s.Get([]byte(keyLastVoteCand))
	if gotTerm != term || gotVote != voteTerm || string(gotCand) != candidate {
		t.Errorf("got term %d, vote %d %q; want %d, %d %q", gotTerm, gotVote, gotCand, term, voteTerm, candidate)
	}
}

func TestVoteStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote")
	s, err := openVoteStore(path, true, true)
	if err != nil {
		t.Fatal(err)
	}
	// Raft looks for exactly this text.
	if _, err := s.GetUint64([]byte(keyCurrentTerm)); err == nil || err.Error() != "not found" {
		t.Errorf("empty store: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetUint64([]byte(keyCurrentTerm), 7))
	must(s.SetUint64([]byte(keyLastVoteTerm), 7))
	must(s.Set([]byte(keyLastVoteCand), []byte("10.0.0.1:7355")))
	s = reopen(t, path, s)
	expectVote(t, s, 7, 7, "10.0.0.1:7355")

	// A vote whose candidate was not written yet has not left the node: after a
	// crash the older vote stands.
	must(s.SetUint64([]byte(keyLastVoteTerm), 8))
	s = reopen(t, path, s)
	expectVote(t, s, 7, 7, "10.0.0.1:7355")

	// A write that is cut off leaves the one before it.
	must(s.SetUint64([]byte(keyCurrentTerm), 9))
	newest := (1 - s.synced) * voteSlot
	s.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	_, err = f.WriteAt([]byte("garbage"), newest+10)
	must(err)
	f.Close()
	s, err = openVoteStore(path, false, true)
	must(err)
	expectVote(t, s, 7, 7, "10.0.0.1:7355")
	s.Close()

	// Any number of writes that were not synced leave the last synced one alone.
	s, err = openVoteStore(path, false, true)
	must(err)
	must(s.SetUint64([]byte(keyLastVoteTerm), 12))
	must(s.Set([]byte(keyLastVoteCand), []byte("x")))
	for term := range uint64(5) {
		must(s.SetUint64([]byte(keyCurrentTerm), 20+term))
	}
	unsynced := (1 - s.synced) * voteSlot
	s.Close()
	f, err = os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	_, err = f.WriteAt(make([]byte, voteSlot), unsynced)
	must(err)
	f.Close()
	s, err = openVoteStore(path, false, true)
	must(err)
	expectVote(t, s, 7, 12, "x")
	s.Close()

	// Both damaged, or the file gone beside a log: votes are lost, and that is said.
	must(os.WriteFile(path, make([]byte, 2*voteSlot), 0o600))
	if _, err := openVoteStore(path, true, true); !errors.Is(err, ErrLogLost) {
		t.Errorf("damaged: %v", err)
	}
	must(os.Remove(path))
	if _, err := openVoteStore(path, false, true); !errors.Is(err, ErrLogLost) {
		t.Errorf("missing: %v", err)
	}
}

// crash loses what was written and not synced, as the crash of a machine may.
func crash(t *testing.T, path string, s *VoteStore) *VoteStore {
	t.Helper()
	unsynced := (1 - s.synced) * voteSlot
	s.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(make([]byte, voteSlot), unsynced)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, path, s, false)
}

func TestVoteWrittenAhead(t *testing.T) {
	// vote is what Raft does when it votes.
	vote := func(s *VoteStore, term uint64, candidate string) error {
		s.SetUint64([]byte(keyCurrentTerm), term)
		s.SetUint64([]byte(keyLastVoteTerm), term)
		return s.Set([]byte(keyLastVoteCand), []byte(candidate))
	}
	open := func(t *testing.T) (string, *VoteStore) {
		path := filepath.Join(t.TempDir(), "vote")
		s, err := openVoteStore(path, true, true)
		if err == nil {
			err = vote(s, 7, "a")
		}
		if err == nil {
			err = s.Reserve(8, []byte("b"))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return path, s
	}
	t.Run("is no vote", func(t *testing.T) {
		_, s := open(t)
		expectVote(t, s, 7, 7, "a")
	})
	t.Run("needs no write that waits", func(t *testing.T) {
		path, s := open(t)
		slot := s.synced
		if err := vote(s, 8, "b"); err != nil || s.synced != slot {
			t.Errorf("the vote was synced again, or failed: %v", err)
		}
		expectVote(t, s, 8, 8, "b")
		expectVote(t, crash(t, path, s), 8, 8, "b")
	})
	t.Run("may be given to another", func(t *testing.T) {
		path, s := open(t)
		if err := vote(s, 8, "c"); err != nil {
			t.Fatal(err)
		}
		expectVote(t, crash(t, path, s), 8, 8, "c")
	})
	t.Run("counts as given after the crash of a machine", func(t *testing.T) {
		path, s := open(t)
		expectVote(t, crash(t, path, s), 8, 8, "b")
	})
	t.Run("is none to another process", func(t *testing.T) {
		path, s := open(t)
		s = reopen(t, path, s)
		expectVote(t, s, 7, 7, "a")
		slot := s.synced
		if err := vote(s, 8, "b"); err != nil || s.synced != slot {
			t.Errorf("the vote was synced again, or failed: %v", err)
		}
	})
	t.Run("counts as given if its term was reached", func(t *testing.T) {
		path, s := open(t)
		if err := vote(s, 8, "b"); err != nil {
			t.Fatal(err)
		}
		expectVote(t, reopen(t, path, s), 8, 8, "b")
	})
	t.Run("is over with its term", func(t *testing.T) {
		path, s := open(t)
		if err := s.SetUint64([]byte(keyCurrentTerm), 9); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, path, s)
		expectVote(t, s, 9, 7, "a")
		if s.current.ahead.term != 0 {
			t.Errorf("kept: %+v", s.current.ahead)
		}
	})
	t.Run("is replaced", func(t *testing.T) {
		path, s := open(t)
		if err := s.Reserve(8, []byte("d")); err != nil {
			t.Fatal(err)
		}
		slot := s.synced
		if err := vote(s, 8, "b"); err != nil || s.synced == slot {
			t.Errorf("a vote that is not on disk was not synced, or failed: %v", err)
		}
		expectVote(t, crash(t, path, s), 8, 8, "b")
	})
	t.Run("is not relied on after a failed write", func(t *testing.T) {
		path, s := open(t)
		file := s.file
		readOnly, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s.file = readOnly
		if s.Reserve(8, []byte("d")) == nil {
			t.Fatal("wrote to a file that cannot be written")
		}
		readOnly.Close()
		s.file = file
		slot := s.synced
		if err := vote(s, 8, "b"); err != nil || s.synced == slot {
			t.Errorf("not synced, or failed: %v", err)
		}
		expectVote(t, crash(t, path, s), 8, 8, "b")
	})
	t.Run("of a term that is over", func(t *testing.T) {
		_, s := open(t)
		slot := s.synced
		for term := range uint64(8) {
			if err := s.Reserve(term, []byte("d")); err != nil || s.synced != slot {
				t.Errorf("term %d: written, or failed: %v", term, err)
			}
		}
		if s.Reserve(9, nil) == nil || s.Reserve(9, make([]byte, maxCandidate+1)) == nil {
			t.Error("a candidate of no length, or of too much, was taken")
		}
	})
}

// Raft takes the process down if its term cannot be written.
func TestTermThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote")
	s, err := openVoteStore(path, true, true)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	s.Failed = func(error) { told++ }
	file := s.file
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s.file = readOnly
	if err := s.SetUint64([]byte(keyCurrentTerm), 8); err != nil || told != 1 {
		t.Errorf("%v, told %d times; want no error, and the fault told", err, told)
	}
	if term, _ := s.GetUint64([]byte(keyCurrentTerm)); term != 8 || s.Saved() {
		t.Errorf("term %d, saved %v; want 8, not saved", term, s.Saved())
	}
	if err := s.SetUint64([]byte(keyLastVoteTerm), 8); err != nil {
		t.Error(err)
	}
	if s.Set([]byte(keyLastVoteCand), []byte("b")) == nil {
		t.Error("voted in a term that is not written")
	}
	readOnly.Close()
	s.file = file
	if err := s.Rewrite(); err != nil || !s.Saved() {
		t.Errorf("%v, saved %v after the disk has recovered", err, s.Saved())
	}
	s = reopen(t, path, s)
	if term, _ := s.GetUint64([]byte(keyCurrentTerm)); term != 8 {
		t.Errorf("term %d is on disk, want 8", term)
	}
}

// A file of before votes were written ahead.
func TestVoteStoreFirstFormat(t *testing.T) {
	b := []byte(voteMagic1)
	b = binary.BigEndian.AppendUint64(b, 3)
	b = binary.BigEndian.AppendUint64(b, 9)
	b = binary.BigEndian.AppendUint64(b, 8)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = append(b, 'a')
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	path := filepath.Join(t.TempDir(), "vote")
	if err := os.WriteFile(path, append(b, make([]byte, 2*voteSlot-len(b))...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openVoteStore(path, false, true)
	if err != nil {
		t.Fatal(err)
	}
	expectVote(t, s, 9, 8, "a")
	if err := s.atLeast(8); err != nil {
		t.Error(err)
	}
	expectVote(t, s, 9, 8, "a")
	if err := s.atLeast(12); err != nil {
		t.Error(err)
	}
	expectVote(t, reopen(t, path, s), 12, 8, "a")
}

func FuzzDecodeVote(f *testing.F) {
	f.Add(encodeVote(3, voteRecord{term: 9, vote: ballotPaper{8, []byte("10.0.0.1:7355")}, ahead: ballotPaper{10, []byte("10.0.0.2:7355")}}))
	f.Add([]byte(voteMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, r, ok := decodeVote(b)
		if !ok {
			return
		}
		if string(b[:len(voteMagic1)]) == voteMagic1 {
			return // read only
		}
		if again := encodeVote(seq, r); string(again) != string(b[:len(again)]) {
			t.Errorf("%x decodes to something that encodes to %x", b, again)
		}
	})
}
