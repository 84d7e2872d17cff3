package operate

import (
	"slices"
	"testing"
)

func TestQuorumWithout(t *testing.T) {
	for _, tt := range []struct {
		name    string
		voters  map[string]bool
		removed string
		silent  []string
		ok      bool
	}{
		{"all answer", map[string]bool{"a": true, "b": true, "c": true}, "b", nil, true},
		{"the dead one of three", map[string]bool{"a": true, "b": true, "c": false}, "c", nil, true},
		{"the other one of three: a and the dead c would be left", map[string]bool{"a": true, "b": true, "c": false}, "b", []string{"c"}, false},
		{"one of two", map[string]bool{"a": true, "b": true}, "b", nil, true},
		{"a dead one of five, another is dead", map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": false}, "e", []string{"d"}, true},
		{"a live one of five, two are dead", map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": false}, "b", []string{"d", "e"}, false},
		{"one that does not vote", map[string]bool{"a": true, "b": true, "c": false}, "x", []string{"c"}, true},
	} {
		silent, ok := quorumWithout(tt.voters, tt.removed)
		if ok != tt.ok || !slices.Equal(silent, tt.silent) {
			t.Errorf("%s: got %q %v, want %q %v", tt.name, silent, ok, tt.silent, tt.ok)
		}
	}
}
