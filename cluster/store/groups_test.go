package store

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/state"
)

func openGroups(t *testing.T, path string) (*Groups, error) {
	t.Helper()
	return (&DataDir{path: path}).OpenGroups(slog.New(slog.DiscardHandler))
}

func mustOpenGroups(t *testing.T, path string) *Groups {
	t.Helper()
	g, err := openGroups(t, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func record(id string) state.GroupRecord {
	return state.GroupRecord{ID: id, Name: id, Level: 3, Voters: []state.GroupVoter{{ID: "n1", Address: "10.0.0.1:1"}}}
}

// entries are such as Raft writes.
func entries(from, to, term uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte{byte(i)}, Extensions: []byte("x"), AppendedAt: time.Unix(0, int64(i))})
	}
	return out
}

func TestGroupsKeepTheirLogsApart(t *testing.T) {
	dir := t.TempDir()
	g := mustOpenGroups(t, dir)
	for term, id := range map[uint64]string{3: "g1.1", 7: "g1.2"} {
		s, err := g.Open(record(id))
		if err != nil || s.Existing {
			t.Fatalf("new group: %+v, %v", s, err)
		}
		if first, _ := s.Log.FirstIndex(); first != 0 {
			t.Errorf("an empty log begins at %d", first)
		}
		if err := errors.Join(s.Log.StoreLogs(entries(1, 9, term)), s.Log.DeleteRange(1, 3), s.Log.DeleteRange(9, 9),
			s.Votes.SetUint64([]byte(keyCurrentTerm), term)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g = mustOpenGroups(t, dir)
	if got := g.Records(); len(got) != 2 || !reflect.DeepEqual(got[0], record("g1.1")) {
		t.Fatalf("records are %+v", got)
	}
	for term, id := range map[uint64]string{3: "g1.1", 7: "g1.2"} {
		s, err := g.Open(record(id))
		if err == nil {
			// The log begins in the middle, and what came before is in no snapshot.
			t.Fatal("a log without its beginning is taken")
		}
		if !errors.Is(err, ErrLogLost) {
			t.Fatal(err)
		}
		first, _ := s.Log.FirstIndex()
		last, _ := s.Log.LastIndex()
		var e raft.Log
		if err := s.Log.GetLog(5, &e); err != nil || first != 4 || last != 8 || !reflect.DeepEqual(&e, entries(5, 5, term)[0]) {
			t.Errorf("%s: entries %d to %d, entry 5 is %+v, %v", id, first, last, e, err)
		}
		if err := s.Log.GetLog(9, &e); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("%s: a deleted entry: %v", id, err)
		}
	}
}

func TestDroppedGroupLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	g := mustOpenGroups(t, dir)
	for _, id := range []string{"g1.1", "g1.2"} {
		s, err := g.Open(record(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Log.StoreLogs(entries(1, 2, 5)), s.Votes.SetUint64([]byte(keyCurrentTerm), 5), s.Votes.Rewrite()); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Drop("g1.1", 9); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of the other one's removal.
	if err := errors.Join(g.logs.end("g1.2", 9), g.votes.drop("g1.2"), g.Close()); err != nil {
		t.Fatal(err)
	}
	g = mustOpenGroups(t, dir)
	if len(g.Records()) > 0 || len(g.votes.ids()) > 0 {
		t.Errorf("left: %v, %v", g.Records(), g.votes.ids())
	}
	if got, _ := os.ReadDir(filepath.Join(dir, RaftDir, groupsDir, "g1.1")); len(got) > 0 {
		t.Errorf("left on the disk: %v", got)
	}
	for _, id := range []string{"g1.1", "g1.2"} { // also where a state of before still has it
		if _, err := g.Open(record(id)); !errors.Is(err, ErrGroupEnded) {
			t.Errorf("%s begins anew: %v", id, err)
		}
	}
	s, err := g.Open(record("g9.1"))
	if err != nil {
		t.Fatal(err)
	}
	if term, _ := s.Votes.GetUint64([]byte(keyCurrentTerm)); term != 0 {
		t.Errorf("a new group begins in term %d, that of the one whose place it has", term)
	}
	if size := g.votes.size; size != 2*voteRegion {
		t.Errorf("the votes take %d bytes, places are not used again", size)
	}
}

// TestEndedGroupIsForgotten: who starts with a state that is not older sees none of before.
func TestEndedGroupIsForgotten(t *testing.T) {
	dir := t.TempDir()
	g := mustOpenGroups(t, dir)
	for id, at := range map[string]uint64{"g1.1": 9, "g1.2": 12} {
		if _, err := g.Open(record(id)); err != nil {
			t.Fatal(err)
		}
		if err := g.Drop(id, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []uint64{8, 9} {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		g = mustOpenGroups(t, dir)
		if err := g.Forget(at); err != nil {
			t.Fatal(err)
		}
		found, err := g.logs.groups()
		if want := map[uint64]int{8: 2, 9: 1}[at]; err != nil || len(found) != want || len(g.ended) != want {
			t.Errorf("at version %d: %+v, %v", at, found, err)
		}
	}
}

func TestGroupsLostLogIsNoticed(t *testing.T) {
	voted := func(t *testing.T, dir string) {
		g := mustOpenGroups(t, dir)
		s, err := g.Open(record("g1.1"))
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(s.Log.StoreLogs(entries(1, 2, 5)), s.Votes.SetUint64([]byte(keyCurrentTerm), 5),
			s.Votes.SetUint64([]byte(keyLastVoteTerm), 5), s.Votes.Set([]byte(keyLastVoteCand), []byte("n1")), g.Close())
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{groupLogsFile, groupVotesFile} {
		dir := t.TempDir()
		voted(t, dir)
		if err := os.Remove(filepath.Join(dir, RaftDir, groupsDir, file)); err != nil {
			t.Fatal(err)
		}
		g, err := openGroups(t, dir)
		if err == nil {
			defer g.Close()
			_, err = g.Open(record("g1.1"))
		}
		if !errors.Is(err, ErrLogLost) {
			t.Errorf("without %s: %v", file, err)
		}
	}
	for _, lost := range []string{RaftDir, filepath.Join(RaftDir, groupsDir)} { // with the log and the vote alike
		dir := t.TempDir()
		voted(t, dir)
		if err := os.RemoveAll(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		if g, err := openGroups(t, dir); !errors.Is(err, ErrLogLost) {
			if err == nil {
				g.Close()
			}
			t.Errorf("without %s: %v", lost, err)
		}
	}
	dir := t.TempDir()
	voted(t, dir)
	path := filepath.Join(dir, RaftDir, groupsDir, groupVotesFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b[:voteSlot], bytes.Repeat([]byte{0xff}, 2*voteSlot)...), 0o600); err != nil {
		t.Fatal(err)
	}
	g := mustOpenGroups(t, dir)
	if _, err := g.Open(record("g1.1")); !errors.Is(err, ErrLogLost) {
		t.Errorf("with a damaged vote: %v", err)
	}
}

// A vote that was written ahead before the machine crashed counts as given, also if a
// process has found it that ended before it opened the group.
func TestGroupVoteWrittenAheadOutlivesTwoStarts(t *testing.T) {
	dir := t.TempDir()
	g := mustOpenGroups(t, dir)
	s, err := g.Open(record("g1.1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Log.StoreLogs(entries(1, 2, 5)), s.Votes.SetUint64([]byte(keyCurrentTerm), 5),
		s.Votes.Reserve(6, []byte("n2")), g.Close(), os.WriteFile(filepath.Join(g.dir, bootFile), []byte("another boot"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := mustOpenGroups(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = mustOpenGroups(t, dir).Open(record("g1.1")); err != nil {
		t.Fatal(err)
	}
	term, _ := s.Votes.GetUint64([]byte(keyLastVoteTerm))
	if cand, _ := s.Votes.Get([]byte(keyLastVoteCand)); term != 6 || string(cand) != "n2" {
		t.Errorf("it has voted for %q in term %d, want for n2 in term 6", cand, term)
	}
}

// An ID is the name of a directory that is removed with its group.
func TestGroupIDIsNoPath(t *testing.T) {
	dir := t.TempDir()
	g := mustOpenGroups(t, dir)
	beside := filepath.Join(dir, RaftDir, "default", "raft.db")
	if err := errors.Join(os.MkdirAll(filepath.Dir(beside), 0o700), os.WriteFile(beside, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "..", "../default", "g1.1/../../default", "default", "g1", "G1.1", "g1.1\n"} {
		if _, err := g.Open(record(id)); err == nil {
			t.Errorf("opened %q", id)
		}
		if err := g.Drop(id, 9); err == nil {
			t.Errorf("dropped %q", id)
		}
	}
	if _, err := os.Stat(beside); err != nil {
		t.Errorf("the log of the default group: %v", err)
	}
}

// What waits while something is written is written at once.
func TestBatchGathers(t *testing.T) {
	var calls, most atomic.Int64
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	b := batch[int]{do: func(all []int) []error {
		calls.Add(1)
		most.Store(max(most.Load(), int64(len(all))))
		entered <- struct{}{}
		<-leave
		errs := make([]error, len(all))
		for i, v := range all {
			if v == 7 {
				errs[i] = os.ErrInvalid
			}
		}
		return errs
	}}
	var done sync.WaitGroup
	errs := make([]error, 20)
	done.Go(func() { errs[0] = b.add(0) })
	<-entered
	for i := 1; i < len(errs); i++ {
		done.Go(func() { errs[i] = b.add(i) })
	}
	for waiting := 0; waiting < len(errs)-1; { // the others wait, whatever the machine does
		b.mu.Lock()
		waiting = len(b.waiting)
		b.mu.Unlock()
	}
	close(leave)
	done.Wait()
	if calls.Load() != 2 || most.Load() != 19 {
		t.Errorf("%d calls, at most %d at once; want 2 and 19", calls.Load(), most.Load())
	}
	for i, err := range errs {
		if (err != nil) != (i == 7) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// Who has what it asked for does not stay to serve others.
func TestBatchLetsGo(t *testing.T) {
	doing := make(chan chan struct{})
	b := batch[int]{do: func(all []int) []error {
		leave := make(chan struct{})
		doing <- leave
		<-leave
		return make([]error, len(all))
	}}
	first, others := make(chan error, 1), make(chan error, 2)
	go func() { first <- b.add(1) }()
	round := <-doing
	for range 2 {
		go func() { others <- b.add(2) }()
	}
	for waiting := 0; waiting < 2; {
		b.mu.Lock()
		waiting = len(b.waiting)
		b.mu.Unlock()
	}
	close(round)
	round = <-doing // the others' round has begun, and does not end
	select {
	case <-first:
	case <-time.After(10 * time.Second):
		t.Error("the first one serves the others")
	}
	close(round)
	for range 2 {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
}

func FuzzGroupEntry(f *testing.F) {
	f.Add(encodeEntry(entries(4, 4, 2)[0]))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e raft.Log
		if decodeEntry(b, &e) == nil && !bytes.Equal(encodeEntry(&e), b) {
			t.Errorf("%x is read as %+v, which is written as %x", b, e, encodeEntry(&e))
		}
	})
}

func FuzzVoteRegion(f *testing.F) {
	f.Add(encodeRegion("g1.1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, ok := decodeRegion(b); ok {
			if again, ok := decodeRegion(encodeRegion(id)); !ok || again != id {
				t.Errorf("%q is read back as %q", id, again)
			}
		}
	})
}
