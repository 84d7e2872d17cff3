package owner

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// An elsewhere is a cluster in which something changes that is not this group's.
type elsewhere struct {
	*fakeGroup
	changes *group.Broadcast
}

func (e elsewhere) Changed() <-chan struct{} { return e.changes.Wait() }

// A burst of changes elsewhere is one turn of an owner that has patience; what is its own is
// looked at at once.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		patience    time.Duration
		least, most int
	}{{0, 20, 30}, {10 * time.Millisecond, 1, 3}} {
		synctest.Test(t, func(t *testing.T) {
			g := &fakeGroup{state: state.State{}}
			cluster := elsewhere{g, group.NewBroadcast()}
			gate := oneGate{vip.NewGate(&viptest.Guard{}, 1, nil)}
			turns := 0
			g.o = New(Config{
				Name: "web", Seat: elsewhere{g, group.NewBroadcast()}, Members: cluster, Gate: gate, Sink: NewSink(gate, 0), Keeper: noAddresses{}, Consent: g, Advice: g, Claims: deaf{},
				Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return time.Minute }, Silent: true, Patience: tt.patience,
				Addresses: func(*state.State) ([]vip.Address, vip.Schedule, []string) { return nil, vip.Schedule{}, nil },
				Beat:      func() { turns++ },
			})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = g.o.Run(ctx) }()
			synctest.Wait()
			before := turns
			for range 20 {
				cluster.changes.Notify()
				synctest.Wait()
				time.Sleep(100 * time.Microsecond)
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if n := turns - before; n < tt.least || n > tt.most {
				t.Errorf("patience %v: %d turns after 20 changes, want %d to %d", tt.patience, n, tt.least, tt.most)
			}
			before = turns
			g.o.Wake()
			synctest.Wait()
			if turns == before {
				t.Errorf("patience %v: what is its own waits", tt.patience)
			}
			stop()
			<-done
		})
	}
}

type deaf struct{}

func (deaf) Follow([]vip.Address) {}
