package group

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// unanswered is a future that Raft has forgotten.
type unanswered struct{ end chan struct{} }

func (f unanswered) Error() error { <-f.end; return nil }

// A change that Raft was asked for in the moment of its shutdown keeps nobody from ending.
func TestChangeThatIsNeverAnswered(t *testing.T) {
	g := &Group{ended: make(chan struct{})}
	f := unanswered{make(chan struct{})}
	defer close(f.end)
	close(g.ended)
	if err := g.awaitChange(f, time.Hour); !errors.Is(err, raft.ErrRaftShutdown) {
		t.Error(err)
	}
}
