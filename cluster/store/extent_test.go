package store

import (
	"errors"
	"strings"
	"testing"
)

func TestExtentWhole(t *testing.T) {
	for _, c := range []struct {
		name    string
		have    extent
		hasLog  bool
		applied uint64
		why     string // "" is whole
	}{
		{"a new node", extent{}, false, 0, ""},
		{"a log", extent{first: 1, last: 9, lastTerm: 2}, true, 9, ""},
		{"a log and more than was noted", extent{first: 1, last: 12, lastTerm: 2}, true, 9, ""},
		{"a log after a snapshot", extent{first: 8, last: 12, lastTerm: 2, snapshot: 7}, true, 9, ""},
		{"and some of what is in it", extent{first: 3, last: 12, lastTerm: 2, snapshot: 7}, true, 9, ""},
		{"a snapshot alone", extent{lastTerm: 2, snapshot: 7}, true, 7, ""},
		{"a snapshot that is newer than the log", extent{first: 1, last: 3, lastTerm: 2, snapshot: 7}, true, 7, ""},
		{"empty", extent{}, true, 0, "is empty"},
		{"shorter than it was", extent{first: 1, last: 8, lastTerm: 2}, true, 9, "ends at entry 8, and this node had applied entry 9"},
		{"older snapshot", extent{lastTerm: 2, snapshot: 8}, true, 9, "ends at entry 8, and this node had applied entry 9"},
		{"no snapshot", extent{first: 8, last: 12, lastTerm: 2}, true, 9, "begins at entry 8, and the snapshot"},
		{"too old a snapshot", extent{first: 8, last: 12, lastTerm: 2, snapshot: 6}, true, 9, "begins at entry 8, and the snapshot"},
	} {
		err := c.have.whole(c.hasLog, c.applied)
		if c.why == "" && err != nil || c.why != "" && (!errors.Is(err, ErrLogLost) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.why)
		}
	}
}
