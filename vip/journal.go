package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A Journal is the file that remembers which addresses are ours on kernels that do
// not keep the address protocol number (Host.Marks). It is written before an
// address is added. Several Keepers share one Journal.
//
// The file is replaced by rename and not synced: it has to survive the death of
// the process, not that of the machine, after which its addresses are gone anyway
// and the boot id in it no longer fits.
type Journal struct {
	path string

	mu      sync.Mutex
	entries map[place]string // -> link name
}

// NewJournal returns an empty journal that will be written to path. It does not
// touch the file: RemoveLeftovers reads the one of the last run, and removes it.
func NewJournal(path string) *Journal {
	return &Journal{path: path, entries: map[place]string{}}
}

// journalFile is the format of the file. BootID and Netns say where the entries
// hold: interface indexes and addresses mean nothing after a reboot or in another
// network namespace.
type journalFile struct {
	Version   int            `json:"version"`
	BootID    string         `json:"boot_id"`
	Netns     string         `json:"netns"`
	Addresses []journalEntry `json:"addresses"`
}

type journalEntry struct {
	Address netip.Prefix `json:"address"`
	Link    string       `json:"link"`
	Index   int          `json:"index"`
}

const journalVersion = 1

// has reports whether the place is recorded. A nil journal has nothing.
func (j *Journal) has(p place) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.entries[p]
	return ok
}

// add records the places, with their link names, in one write.
func (j *Journal) add(places map[place]string) error {
	if j == nil || len(places) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	changed := false
	for p, link := range places {
		if j.entries[p] != link {
			j.entries[p] = link
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return j.write()
}

// remove forgets the places, in one write.
func (j *Journal) remove(places []place) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.entries)
	for _, p := range places {
		delete(j.entries, p)
	}
	if len(j.entries) == n {
		return nil
	}
	return j.write()
}

// write is called with mu held.
func (j *Journal) write() error {
	if len(j.entries) == 0 {
		if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove address journal: %w", err)
		}
		return nil
	}
	f := journalFile{Version: journalVersion, BootID: bootID(), Netns: netnsID()}
	for p, link := range j.entries {
		f.Addresses = append(f.Addresses, journalEntry{Address: p.prefix, Link: link, Index: p.link})
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write address journal %s: %w", j.path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+".*")
	if err != nil {
		return fmt.Errorf("write address journal: %w", err)
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), j.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write address journal: %w", err)
	}
	return nil
}

// readJournal returns the entries of the file that still hold here and now: none
// if there is no file, or if it is of another boot or network namespace.
func readJournal(path string) ([]journalEntry, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read address journal: %w", err)
	}
	var f journalFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read address journal %s: %w", path, err)
	}
	if f.Version != journalVersion {
		return nil, fmt.Errorf("read address journal %s: version %d, want %d", path, f.Version, journalVersion)
	}
	if f.BootID != bootID() || f.Netns != netnsID() {
		return nil, nil
	}
	return f.Addresses, nil
}

// bootID identifies this boot, or is empty if it cannot be read.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// netnsID identifies the network namespace of the process, or is empty.
func netnsID() string {
	s, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return s
}
