package group

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// A groupSnapshots is a store of snapshots that tells the fence of the configuration
// in each one that is installed, and the state machine of the log index of each one
// that it restores. Raft tells neither of them.
type groupSnapshots struct {
	raft.SnapshotStore
	fence      *fence
	installing *installs
}

// Create implements raft.SnapshotStore. Raft's main loop calls it for what a leader has
// sent, so that what is installed and what is appended to the log come one after the
// other; what this node takes of its own state changes no configuration.
func (s groupSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil || !s.installing.has(term, index) {
		return sink, err
	}
	return &installSink{sink, func() { s.fence.setVoters(votersOf(configuration)) }}, nil
}

// Open implements raft.SnapshotStore.
func (s groupSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return meta, r, err
	}
	return meta, &snapshotReader{r, meta.Index}, nil
}

// An installSink says when the snapshot is complete.
type installSink struct {
	raft.SnapshotSink
	installed func()
}

// Close implements raft.SnapshotSink.
func (s *installSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	s.installed()
	return nil
}

// A snapshotReader is the content of a snapshot, and the log index up to which it goes.
type snapshotReader struct {
	io.ReadCloser
	index uint64
}

// indexOf returns the log index of a snapshot that Raft gives to the state machine, or
// 0 if it is unknown.
func indexOf(r io.ReadCloser) uint64 {
	for {
		switch in := r.(type) {
		case *snapshotReader:
			return in.index
		case raft.ReadCloserWrapper:
			r = in.WrappedReadCloser()
		default:
			return 0
		}
	}
}

// installs are the snapshots that leaders have sent and Raft has not answered for.
type installs struct {
	mu   sync.Mutex
	sent map[[2]uint64]int // by term and index
}

// begin notes one; what it returns notes its end.
func (i *installs) begin(term, index uint64) (end func()) {
	key := [2]uint64{term, index}
	add := func(n int) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.sent == nil {
			i.sent = make(map[[2]uint64]int)
		}
		if i.sent[key] += n; i.sent[key] == 0 {
			delete(i.sent, key)
		}
	}
	add(1)
	return func() { add(-1) }
}

func (i *installs) has(term, index uint64) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sent[[2]uint64{term, index}] > 0
}
