package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The terms and votes of the ownership groups are in one file, so that the votes of
// several groups that wait at the same moment are written with one sync. Each group has a
// region: a block that names it, and the two slots of a VoteStore.
const (
	voteRegion  = 3 * voteSlot
	regionMagic = "rvipgrp1"
)

// groupVotes is that file.
type groupVotes struct {
	file  *os.File
	syncs batch[struct{}]

	mu      sync.Mutex
	regions map[string]int64 // where a group's is, by ID
	free    []int64
	size    int64
}

func openGroupVotes(path string) (*groupVotes, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open votes: %w", err)
	}
	v := &groupVotes{file: f, regions: make(map[string]int64)}
	v.syncs.do = func([]struct{}) []error { return []error{unix.Fdatasync(int(f.Fd()))} }
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open votes: %w", err)
	}
	head := make([]byte, voteSlot)
	for v.size = 0; v.size+voteRegion <= info.Size(); v.size += voteRegion {
		if _, err := f.ReadAt(head, v.size); err != nil {
			f.Close()
			return nil, fmt.Errorf("open votes: %w", err)
		}
		if id, ok := decodeRegion(head); ok {
			v.regions[id] = v.size
		} else {
			v.free = append(v.free, v.size)
		}
	}
	return v, nil
}

func encodeRegion(id string) []byte {
	b := append([]byte(regionMagic), byte(len(id)))
	b = append(b, id...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return append(b, make([]byte, voteSlot-len(b))...)
}

func decodeRegion(b []byte) (id string, ok bool) {
	n := len(regionMagic)
	if len(b) != voteSlot || string(b[:n]) != regionMagic {
		return "", false
	}
	end := n + 1 + int(b[n])
	if binary.BigEndian.Uint32(b[end:]) != crc32.ChecksumIEEE(b[:end]) {
		return "", false
	}
	return string(b[n+1 : end]), true
}

// open returns a group's vote, and makes it if fresh says that there is no log either.
func (v *groupVotes) open(id string, fresh, sameBoot bool) (*VoteStore, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, ok := v.regions[id]
	if !ok {
		if !fresh {
			return nil, fmt.Errorf("vote of group %s: %w", id, ErrLogLost)
		}
		var err error
		if at, err = v.makeLocked(id); err != nil {
			return nil, fmt.Errorf("make vote of group %s: %w", id, err)
		}
	}
	s := &VoteStore{file: v.file, base: at + voteSlot, sync: v.sync, shared: true}
	if err := s.load(sameBoot); err != nil {
		return nil, fmt.Errorf("vote of group %s: %w", id, err)
	}
	return s, nil
}

// makeLocked makes a region. It belongs to the group when its first block is written,
// which is last: a crash leaves a free region, or a whole one.
func (v *groupVotes) makeLocked(id string) (at int64, err error) {
	at = v.size
	if n := len(v.free); n > 0 {
		at = v.free[n-1]
	}
	s := &VoteStore{file: v.file, base: at + voteSlot, sync: v.sync, shared: true}
	if _, err := v.file.WriteAt(make([]byte, voteRegion), at); err != nil {
		return 0, err
	}
	if err := s.write(true); err != nil {
		return 0, err
	}
	if err := v.file.Sync(); err != nil { // its size, too
		return 0, err
	}
	if _, err := v.file.WriteAt(encodeRegion(id), at); err != nil {
		return 0, err
	}
	if err := v.sync(); err != nil {
		return 0, err
	}
	if n := len(v.free); n > 0 {
		v.free = v.free[:n-1]
	} else {
		v.size += voteRegion
	}
	v.regions[id] = at
	return at, nil
}

// drop forgets a group's vote.
func (v *groupVotes) drop(id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, ok := v.regions[id]
	if !ok {
		return nil
	}
	_, err := v.file.WriteAt(make([]byte, voteSlot), at)
	if err == nil {
		err = v.sync()
	}
	if err != nil {
		return fmt.Errorf("forget vote of group %s: %w", id, err)
	}
	delete(v.regions, id)
	v.free = append(v.free, at)
	return nil
}

// ids are the groups that have a vote.
func (v *groupVotes) ids() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for id := range v.regions {
		out = append(out, id)
	}
	return out
}

func (v *groupVotes) sync() error { return v.syncs.add(struct{}{}) }

func (v *groupVotes) close() error {
	if err := v.file.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
