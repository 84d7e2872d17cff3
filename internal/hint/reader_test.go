package hint

import (
	"encoding/json"
	"testing"
	"time"
)

// TestReader: a report is decoded when it is new; one that cannot be read is that of a
// node that has not reported, and a node that is gone is forgotten.
func TestReader(t *testing.T) {
	var r Reader
	report := func(raw string, age time.Duration) map[string]Seen {
		return r.Read([]Report{{NodeID: "id1", Raw: json.RawMessage(raw), Age: age, Offset: time.Minute, Applied: 7}})
	}
	for i, tt := range []struct {
		raw    string
		known  bool
		owning bool
	}{
		{`{"owning":true,"owning_term":3}`, true, true},
		{`{"owning":true,"owning_term":3}`, true, true},
		{`{"owning":"yes"}`, false, false},
		{`{"owning":"yes"}`, false, false},
		{`{"owning":false}`, true, false},
		{``, false, false},
	} {
		age := time.Duration(i+1) * time.Second
		hints := report(tt.raw, age)
		got := hints["id1"]
		if got.Known != tt.known || got.Owning != tt.owning || got.Age != age || got.Offset != time.Minute || got.Applied != 7 {
			t.Errorf("report %d: %+v", i, got)
		}
		if owns := Owns(hints); owns("id1", 3) != tt.owning || owns("id1", 4) || owns("id2", 3) {
			t.Errorf("report %d: owns in term 3 %v, in term 4 %v", i, owns("id1", 3), owns("id1", 4))
		}
	}
	if got := r.Read(nil); len(got) != 0 || len(r.last) != 0 {
		t.Errorf("of nodes that are gone: %+v, remembered %d", got, len(r.last))
	}
}
