package operate

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip/guard"
)

// Routers are virtual routers that tell what they are. names are the nodes by the
// addresses from which they speak.
type Routers interface {
	Status(names map[netip.Addr]string) []api.VirtualRouter
}

// A Config is what a server answers from. A daemon without a cluster has no node
// and none of what comes with it; a witness has no guard, places, links, claims and
// virtual routers.
type Config struct {
	Node *cluster.Node
	Data *store.DataDir
	// Guard is nil on a witness.
	Guard interface{ Status() guard.Status }
	// Seats are this node's in the ownership groups, the default group's first.
	Seats func() []Seat
	// Hints are what the members say of themselves, and what is wrong on this node.
	Hints interface {
		Seen() map[string]hint.Seen // by node ID
		Troubles() []api.Trouble
	}
	// Describe adds what the daemon knows to this node's hint.
	Describe func(*hint.Hint)
	Quorum   *QuorumWatch
	Places   *place.Places
	Links    *place.Links
	Claims   *Claims
	// Routers are the virtual routers of this node.
	Routers func() []Routers
	Checks  interface{ Report() check.Report }
	// File is the node's file as last read, FileStatus what is to be said of it.
	File       func() *config.Config
	FileStatus func() api.Config
	// Reload reads the file again; Leave ends the daemon.
	Reload  func(ctx context.Context, force bool) (api.ReloadResult, error)
	Leave   func()
	Program string // version of raftvip
	Started time.Time
	Log     *slog.Logger
}

// A Server answers what operators and other members ask of this node.
type Server struct {
	Config

	changes  changeWatches
	changing sync.Mutex // one request at a time that may silence the addresses
	probing  sync.Mutex // one probe at a time: what one member can ask for stays bounded
	// observing are the observations under way.
	observing chan struct{}
}

// New makes a server. It answers once its routes are served; Leave and Reload are called
// by requests only.
func New(c Config) *Server {
	return &Server{Config: c, observing: make(chan struct{}, observeAtOnce)}
}
