package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// A Owner is what owns the group's addresses: an owner.Owner.
type Owner interface {
	View() owner.View
	Move(context.Context, *owner.Request) error
	Stay()
}

// A Group is looked at, and not acted for: a group.Group.
type Group interface {
	Standing() group.Standing
	Contact(nodeID string) (time.Duration, bool)
}

// A serverConfig is what a server answers from. A daemon without a cluster has no node
// and none of what comes with it; a witness has no guard, places, links, claims and
// virtual routers.
type serverConfig struct {
	node  *cluster.Node
	group Group
	data  *store.DataDir
	guard *guard.Guard
	owner Owner
	// kept are the keepers of the group's addresses.
	kept interface{ Status() vip.Status }
	// hints are what the members say of themselves, and what is wrong on this node.
	hints interface {
		Seen() map[string]hint.Seen // by node ID
		Troubles() []api.Trouble
	}
	// describe adds what the daemon knows to this node's hint.
	describe func(*hint.Hint)
	quorum   *quorumWatch
	places   *place.Places
	links    *place.Links
	claims   *claims
	hybrid   *vrrp.Hybrid
	plain    *vrrp.Plain
	checks   *check.Checks
	// groupReport is what the checks say about the group's instances.
	groupReport func() check.Report
	// file is the node's file as last read, fileStatus what is to be said of it.
	file       func() *config.Config
	fileStatus func() api.Config
	// reload reads the file again; leave ends the daemon.
	reload  func(ctx context.Context, force bool) (api.ReloadResult, error)
	leave   func()
	program string // version of raftvip
	started time.Time
	log     *slog.Logger
}

// A server answers what operators and other members ask of this node.
type server struct {
	serverConfig

	changes  changeWatch
	changing sync.Mutex // one request at a time that may silence the addresses
	probing  sync.Mutex // one probe at a time: what one member can ask for stays bounded
	// observing are the observations under way.
	observing chan struct{}
}

// newServer makes a server.
func newServer(c serverConfig) *server {
	return &server{serverConfig: c, observing: make(chan struct{}, observeAtOnce)}
}
