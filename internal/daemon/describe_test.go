package daemon

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
)

// TestDescribeHoldsNothing: while the owner's loop has the virtual routers, and asks for
// the file beneath them, another goroutine may describe this node.
func TestDescribeHoldsNothing(t *testing.T) {
	d := &Daemon{config: &config.Config{}, places: place.New(place.Config{Links: place.NewLinks(nil, slog.New(slog.DiscardHandler))})}
	described := make(chan struct{})
	asked := make(chan *config.Config, 1)
	gates := vrrp.NewGates(vip.NewGate(vip.NoGuard{}, 0, nil))
	hybrid := vrrp.NewHybrid(vrrp.HybridConfig{
		Log: slog.New(slog.DiscardHandler), Holdings: vrrp.NewHoldings(gates, nil, func() {}),
		Report:    func() check.Report { return check.Report{} },
		Members:   func() map[string][]vrrp.Member { return nil },
		IsVirtual: func(netip.Addr) bool { return false }, Wake: func() {},
		File: func() *config.Config {
			go func() { d.describe(&hint.Hint{}); close(described) }()
			time.Sleep(50 * time.Millisecond) // It has come to where it waits.
			go func() { asked <- d.configuration() }()
			select {
			case c := <-asked:
				return c
			case <-time.After(10 * time.Second):
				t.Error("whoever has the virtual routers cannot ask for the file")
				return &config.Config{}
			}
		},
	})
	d.seats.all = map[string]*seat{state.DefaultGroup: {id: state.DefaultGroup, hybrid: hybrid, owner: owner.New(owner.Config{})}}
	hybrid.Follow(&state.State{}, false)
	<-described
}
