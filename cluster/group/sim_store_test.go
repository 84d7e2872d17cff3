package group

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A memStore is a disk in memory (raft.LogStore and raft.StableStore). Writing
// waits as long as block does, which is how a slow disk or a frozen process is
// made. Unlike raft.InmemStore it can be copied, as a process that is killed goes
// on in the simulation until its goroutines have ended.
type memStore struct {
	block func()
	// unreadable: the beginning of the log cannot be read, which Raft seldom wants to
	// know and a leader that is about to own always.
	unreadable atomic.Bool

	mu      sync.Mutex
	logs    map[uint64]*raft.Log
	low     uint64
	high    uint64
	values  map[string][]byte
	numbers map[string]uint64
}

func newMemStore() *memStore {
	return &memStore{
		block: func() {},
		logs:  map[uint64]*raft.Log{}, values: map[string][]byte{}, numbers: map[string]uint64{},
	}
}

// clone returns the disk as it is now.
func (s *memStore) clone() *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &memStore{
		block: func() {}, logs: maps.Clone(s.logs), low: s.low, high: s.high,
		values: maps.Clone(s.values), numbers: maps.Clone(s.numbers),
	}
	c.unreadable.Store(s.unreadable.Load())
	return c
}

// FirstIndex implements raft.LogStore.
func (s *memStore) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable.Load() {
		return 0, errors.New("unreadable")
	}
	return s.low, nil
}

// LastIndex implements raft.LogStore.
func (s *memStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.high, nil
}

// GetLog implements raft.LogStore.
func (s *memStore) GetLog(index uint64, log *raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*log = *l
	return nil
}

// StoreLog implements raft.LogStore.
func (s *memStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *memStore) StoreLogs(logs []*raft.Log) error {
	s.block()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		s.logs[l.Index] = l
		if s.low == 0 {
			s.low = l.Index
		}
		s.high = max(s.high, l.Index)
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *memStore) DeleteRange(first, last uint64) error {
	s.block()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := first; i <= last; i++ {
		delete(s.logs, i)
	}
	if first <= s.low {
		s.low = last + 1
	}
	if last >= s.high {
		s.high = first - 1
	}
	if s.low > s.high {
		s.low, s.high = 0, 0
	}
	return nil
}

// Set implements raft.StableStore.
func (s *memStore) Set(key, value []byte) error {
	s.block()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[string(key)] = value
	return nil
}

// Get implements raft.StableStore.
func (s *memStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[string(key)]
	if !ok {
		return nil, errors.New("not found")
	}
	return v, nil
}

// SetUint64 implements raft.StableStore.
func (s *memStore) SetUint64(key []byte, value uint64) error {
	s.block()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers[string(key)] = value
	return nil
}

// GetUint64 implements raft.StableStore.
func (s *memStore) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.numbers[string(key)]
	if !ok {
		return 0, errors.New("not found")
	}
	return v, nil
}

// memSnapshots keeps the newest complete snapshot (raft.SnapshotStore).
type memSnapshots struct {
	mu   sync.Mutex
	meta *raft.SnapshotMeta
	data []byte
}

func (s *memSnapshots) clone() *memSnapshots {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &memSnapshots{meta: s.meta, data: s.data}
}

// Create implements raft.SnapshotStore.
func (s *memSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &memSink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *memSnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return nil, nil
	}
	meta := *s.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (s *memSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil || s.meta.ID != id {
		return nil, nil, fmt.Errorf("no snapshot %s", id)
	}
	meta := *s.meta
	return &meta, io.NopCloser(bytes.NewReader(s.data)), nil
}

type memSink struct {
	bytes.Buffer
	store *memSnapshots
	meta  raft.SnapshotMeta
}

// ID implements raft.SnapshotSink.
func (s *memSink) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *memSink) Cancel() error { return nil }

// Close implements raft.SnapshotSink.
func (s *memSink) Close() error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	meta := s.meta
	meta.Size = int64(s.Len())
	s.store.meta, s.store.data = &meta, bytes.Clone(s.Bytes())
	return nil
}
