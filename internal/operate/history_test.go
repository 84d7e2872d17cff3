package operate

import (
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
)

// TestInOrder: a loss stands where it was, with the number that it was given.
func TestInOrder(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	moves := []api.Move{{Seq: 1, At: at(1)}, {Seq: 2, At: at(9)}, {Seq: 3, At: at(5), Loss: true}, {Seq: 4, At: at(3)}}
	inOrder(moves)
	var got []uint64
	for _, m := range moves {
		got = append(got, m.Seq)
	}
	if !slices.Equal(got, []uint64{1, 3, 2, 4}) {
		t.Errorf("order %v", got)
	}
}
