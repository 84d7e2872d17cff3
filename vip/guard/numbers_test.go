package guard

import "testing"

// TestNumbers: a number belongs to one at a time, and there are no more than the guard
// has groups.
func TestNumbers(t *testing.T) {
	var n Numbers
	for want := range uint32(MaxGroups) {
		if got, err := n.Take(); got != want || err != nil {
			t.Fatalf("number %d: %d, %v", want, got, err)
		}
	}
	if got, err := n.Take(); err == nil {
		t.Errorf("one more: %d", got)
	}
	n.Return(7)
	if got, err := n.Take(); got != 7 || err != nil {
		t.Errorf("after 7 was returned: %d, %v", got, err)
	}
	if _, err := n.Take(); err == nil {
		t.Error("7 was given out twice")
	}
}
