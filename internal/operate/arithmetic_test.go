package operate

import (
	"testing"

	"github.com/raftvip/raftvip/internal/api"
)

// TestArithmetic: a node's priority is that in the one group there is.
func TestArithmetic(t *testing.T) {
	in := func(name, text string) api.Group {
		return api.Group{Name: name, Nodes: []api.GroupNode{{Name: "lb1", Arithmetic: text}}}
	}
	for _, c := range []struct {
		groups []api.Group
		want   string
	}{
		{nil, "100 = 100"},
		{[]api.Group{in("default", "90 = 90")}, "100 = 100"},
		{[]api.Group{in("a", "90 = 90")}, "90 = 90"},
		{[]api.Group{in("a", "90 = 90"), in("b", "80 = 80")}, ""},
	} {
		if got := arithmetic(c.groups, "lb1", "100 = 100"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.groups, got, c.want)
		}
	}
}
