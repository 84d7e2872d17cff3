package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A VoteStore keeps Raft's term and vote (raft.StableStore): three small values
// that are written several times in each election, with the address down. One
// record and one fdatasync take a fraction of what a B+tree's commit does.
//
// The file has two slots, so that a write that is cut off leaves the one before it. The log itself is in raft-boltdb.
type VoteStore struct {
	// Failed is told of each write that fails; nil for nobody. Set before the first one.
	Failed func(error)

	// file has the slots from base on. Several stores may share it; sync has written to
	// disk, when it returns, what was written to the file before.
	file   *os.File
	base   int64
	sync   func() error
	shared bool // and whoever shares it closes it

	mu      sync.Mutex
	seq     uint64
	synced  int64 // slot whose content is on disk
	current voteRecord
	// unsure: a write has failed, and nobody knows what of it is on disk.
	unsure bool
	// behind: the term could not be written, and nothing has been since.
	behind bool
}

// voteRecord is Raft's state that must survive a crash (Raft thesis, figure 3.1),
// and the vote that is written ahead of an election that is about to be held.
type voteRecord struct {
	term uint64
	vote ballotPaper
	// ahead is on disk as soon as Reserve returns. It is of a later term than vote, or
	// it is that vote, or it is over.
	ahead ballotPaper
}

type ballotPaper struct {
	term      uint64
	candidate []byte
}

const (
	voteMagic    = "rvipvot2"
	voteMagic1   = "rvipvote" // of files without a vote written ahead; read, not written
	voteSlot     = 4096       // a slot never shares a disk block with the other one
	voteHeader   = 8 + 8      // sequence, term
	paperHeader  = 8 + 2      // term, length of the candidate
	maxCandidate = 1024
)

// The keys that Raft uses (hashicorp/raft raft.go).
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// errNotFound has the text that Raft expects of a store without the key.
var errNotFound = errors.New("not found")

// openVoteStore opens the file, or makes it if fresh says that there is no log
// either. A file that is missing beside a log is a lost vote. sameBoot says that the
// machine has not crashed since the file was written last.
func openVoteStore(path string, fresh, sameBoot bool) (*VoteStore, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if !fresh {
			return nil, fmt.Errorf("open %s: %w", path, ErrLogLost)
		}
		return makeVoteStore(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open vote: %w", err)
	}
	s := ownVote(f)
	if err := s.load(sameBoot); err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// ownVote is a store that has a file for itself.
func ownVote(f *os.File) *VoteStore {
	return &VoteStore{file: f, sync: func() error { return unix.Fdatasync(int(f.Fd())) }}
}

func makeVoteStore(path string) (*VoteStore, error) {
	// Made complete under another name first, so that a crash never leaves a file
	// without a valid slot. Its full length lets later writes change no metadata.
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make vote: %w", err)
	}
	s := ownVote(f)
	_, err = f.WriteAt(make([]byte, 2*voteSlot), 0)
	if err == nil {
		err = s.write(true)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make vote: %w", err)
	}
	return s, nil
}

// load takes the newest valid slot.
func (s *VoteStore) load(sameBoot bool) error {
	found := false
	buf := make([]byte, voteSlot)
	for slot := range int64(2) {
		if _, err := s.file.ReadAt(buf, s.base+slot*voteSlot); err != nil {
			return fmt.Errorf("%w: %w", ErrLogLost, err)
		}
		seq, r, ok := decodeVote(buf)
		if ok && (!found || seq > s.seq) {
			s.seq, s.current, s.synced, found = seq, r, slot, true
		}
	}
	if !found {
		return fmt.Errorf("%w: no valid record of the vote", ErrLogLost)
	}
	if err := s.sync(); err != nil { // it may be in memory only
		return fmt.Errorf("write vote: %w", err)
	}
	if r, changed := s.current.found(sameBoot); changed {
		return s.change(true, func(c *voteRecord) { *c = r })
	}
	return nil
}

// found is the record as a process has to take it that finds it on disk. Of a vote that
// was written ahead nobody knows whether it was given, if its term was reached, and
// that it was reached is not on disk after the crash of a machine. Such a vote counts as
// given, and its term as reached: whoever has voted in a term follows no older one.
func (r voteRecord) found(sameBoot bool) (now voteRecord, changed bool) {
	switch {
	case r.ahead.term == 0:
		return r, false
	case r.ahead.term > r.term && sameBoot:
		return r, false // it was not reached
	case r.ahead.term >= r.term && r.ahead.term > r.vote.term:
		return voteRecord{term: r.ahead.term, vote: r.ahead}, true
	}
	r.ahead = ballotPaper{}
	return r, true
}

func encodeVote(seq uint64, r voteRecord) []byte {
	b := make([]byte, 0, len(voteMagic)+voteHeader+2*paperHeader+len(r.vote.candidate)+len(r.ahead.candidate)+4)
	b = append(b, voteMagic...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, r.term)
	for _, p := range []ballotPaper{r.vote, r.ahead} {
		b = binary.BigEndian.AppendUint64(b, p.term)
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.candidate)))
		b = append(b, p.candidate...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func decodeVote(b []byte) (seq uint64, r voteRecord, ok bool) {
	whole := b
	if len(b) < len(voteMagic)+voteHeader {
		return 0, r, false
	}
	var papers []*ballotPaper
	switch string(b[:len(voteMagic)]) {
	case voteMagic:
		papers = []*ballotPaper{&r.vote, &r.ahead}
	case voteMagic1:
		papers = []*ballotPaper{&r.vote}
	default:
		return 0, r, false
	}
	b = b[len(voteMagic):]
	seq, r.term = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	b = b[voteHeader:]
	for _, p := range papers {
		if len(b) < paperHeader {
			return 0, r, false
		}
		p.term = binary.BigEndian.Uint64(b)
		n := int(binary.BigEndian.Uint16(b[8:]))
		b = b[paperHeader:]
		if n > maxCandidate || len(b) < n {
			return 0, r, false
		}
		p.candidate = append([]byte(nil), b[:n]...)
		b = b[n:]
	}
	if len(b) < 4 || crc32.ChecksumIEEE(whole[:len(whole)-len(b)]) != binary.BigEndian.Uint32(b) {
		return 0, r, false
	}
	return seq, r, true
}

// write stores the current record: so that it survives the process, and with sync
// also the machine.
func (s *VoteStore) write(sync bool) (err error) {
	defer func() {
		s.unsure = err != nil || s.unsure && !sync
		s.behind = s.behind && err != nil
	}()
	// The slot that is known to be on disk is left alone until the other one is.
	slot := 1 - s.synced
	if _, err := s.file.WriteAt(encodeVote(s.seq+1, s.current), s.base+slot*voteSlot); err != nil {
		return fmt.Errorf("write vote: %w", err)
	}
	s.seq++
	if sync {
		if err := s.sync(); err != nil {
			return fmt.Errorf("write vote: %w", err)
		}
		s.synced = slot
	}
	return nil
}

// change writes a changed record; on an error the old one stays in force.
func (s *VoteStore) change(sync bool, f func(*voteRecord)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changeLocked(sync, f)
}

// changeLocked is change with mu held.
func (s *VoteStore) changeLocked(sync bool, f func(*voteRecord)) error {
	old := s.current
	f(&s.current)
	err := s.write(sync)
	if err != nil {
		s.current = old
		if s.Failed != nil {
			s.Failed(err)
		}
	}
	return err
}

// Rewrite writes what is written already, to see whether it can be.
func (s *VoteStore) Rewrite() error { return s.change(true, func(*voteRecord) {}) }

// Reserve writes the vote for candidate in term before it is asked for, so that Raft
// need not wait for the disk when it gives it. It promises nothing: Raft may vote for
// another one, or not at all. Only after a crash, when nobody knows whether the vote
// was given, it counts as given (found).
func (s *VoteStore) Reserve(term uint64, candidate []byte) error {
	if len(candidate) == 0 || len(candidate) > maxCandidate {
		return fmt.Errorf("write vote: candidate of %d bytes; must be 1 to %d", len(candidate), maxCandidate)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	over := term <= s.current.term || term <= s.current.vote.term
	if over {
		return nil
	}
	return s.changeLocked(true, func(r *voteRecord) { r.ahead = ballotPaper{term, bytes.Clone(candidate)} })
}

// Set implements raft.StableStore.
func (s *VoteStore) Set(key, val []byte) error {
	if string(key) != keyLastVoteCand {
		return fmt.Errorf("write vote: unknown key %q", key)
	}
	if len(val) > maxCandidate {
		return fmt.Errorf("write vote: candidate of %d bytes; must be at most %d", len(val), maxCandidate)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ahead := s.current.ahead; ahead.term > 0 && ahead.term == s.current.vote.term && !s.unsure && bytes.Equal(ahead.candidate, val) {
		s.current.vote.candidate = bytes.Clone(val) // and it is on disk
		return nil
	}
	return s.changeLocked(true, func(r *voteRecord) {
		r.vote.candidate = bytes.Clone(val)
		if r.ahead.term <= r.vote.term {
			r.ahead = ballotPaper{}
		}
	})
}

// atLeast makes the term the current one if that is older. The log may be ahead of it
// after the crash of a machine, as a term without a vote is not synced, and a node
// that has an entry of a term must not follow the leader of an older one.
func (s *VoteStore) atLeast(term uint64) error {
	if now, _ := s.GetUint64([]byte(keyCurrentTerm)); now >= term {
		return nil
	}
	return s.change(true, func(r *voteRecord) { r.term = term })
}

// Saved tells whether the term would be known to a process that is started now.
func (s *VoteStore) Saved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.behind
}

// MayHaveVotedIn returns the newest term in which this node has voted or may have.
func (s *VoteStore) MayHaveVotedIn() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.current.vote.term, s.current.ahead.term)
}

// Get implements raft.StableStore.
func (s *VoteStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) != keyLastVoteCand || len(s.current.vote.candidate) == 0 {
		return nil, errNotFound
	}
	return bytes.Clone(s.current.vote.candidate), nil
}

// SetUint64 implements raft.StableStore. Neither value waits for the disk.
//
// The term of a vote is followed by its candidate before the vote leaves, so it is
// only kept in memory until then: a crash in between forgets a vote nobody got.
//
// A term without a vote is written, so that it survives the death of the process,
// but not synced. The crash of the machine may lose it, and then: this node cannot
// vote twice in a term, as votes are synced with theirs, or were before (Reserve), and
// are not given to another one after a crash; no candidate of that term
// or an older one can win with its help, as a majority's votes of that term are on
// disk and refuse it; a term of which it has a part of the log it knows from that
// (atLeast); and the promise of a started process, which the term is for
// as well, has long ended when a machine has booted.
//
// A term that cannot be written is kept in memory, and is no error: Raft would take
// down the process. This node then has no part in that term (saved), as it might forget
// it: it neither votes, as votes are written with their term, nor consents to a leader.
func (s *VoteStore) SetUint64(key []byte, val uint64) error {
	switch string(key) {
	case keyCurrentTerm:
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.changeLocked(false, func(r *voteRecord) { r.term = val }); err != nil {
			s.current.term, s.behind = val, true // and the failure was told
		}
		return nil
	case keyLastVoteTerm:
		s.mu.Lock()
		defer s.mu.Unlock()
		if val != s.current.vote.term {
			// Without its candidate the old vote must not look like one of the new term.
			s.current.vote = ballotPaper{term: val}
		}
		return nil
	}
	return fmt.Errorf("write vote: unknown key %q", key)
}

// GetUint64 implements raft.StableStore.
func (s *VoteStore) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := uint64(0)
	switch string(key) {
	case keyCurrentTerm:
		v = s.current.term
	case keyLastVoteTerm:
		v = s.current.vote.term
	}
	if v == 0 {
		return 0, errNotFound
	}
	return v, nil
}

// Close closes the file.
func (s *VoteStore) Close() error {
	if s.shared {
		return nil
	}
	if err := s.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
