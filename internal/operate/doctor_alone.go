package operate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/pki"
)

// DoctorAlone examines this node without its daemon: what can be seen from here, and
// whether the other nodes that are known can be reached. daemon says what is wrong with
// the daemon. Nothing is changed.
// advertise is the address at which others are told to reach it, as far as it knows one.
func DoctorAlone(ctx context.Context, c *config.Config, advertise func(id store.Identity, peers []string) string, daemon doctor.Finding) (doctor.Report, error) {
	a := alone{}
	var cache store.Cache
	var err error
	a.id, a.secret, cache, err = store.PeekDataDir(c.Raft.DataDir)
	switch {
	case err == nil:
		a.trusted = true
	case !errors.Is(err, store.ErrEmptyDataDir):
		return doctor.Report{}, err
	default:
		a.id = store.Identity{Name: c.Raft.NodeID, NodeID: c.Raft.NodeID, Witness: c.Raft.Witness}
		if c.Raft.SecretFile != "" {
			if a.secret, err = ReadSecretFile(c.Raft.SecretFile); err != nil {
				return doctor.Report{}, err
			}
			a.trusted = true
		}
	}
	a.peers = append(cache.Addresses, c.Raft.Peers...)
	a.advertise = advertise(a.id, cache.Addresses)
	a.subject = doctor.Subject{DataDir: c.Raft.DataDir, Heartbeat: cache.Heartbeat.Current, VIPs: fileVIPs(c)}
	return a.examine(ctx, daemon)
}

// doctorUnfounded examines a node whose daemon runs and is in no cluster yet.
func (srv *Server) doctorUnfounded(ctx context.Context) (doctor.Report, error) {
	secret, err := srv.Data.Secret()
	if err != nil {
		return doctor.Report{}, err
	}
	cache, err := srv.Data.Cache()
	if err != nil {
		return doctor.Report{}, err
	}
	c := srv.File()
	a := alone{
		id: srv.Node.Self(), secret: secret, trusted: true, advertise: srv.Node.Advertise(), peers: append(cache.Addresses, c.Raft.Peers...),
		subject: doctor.Subject{DataDir: srv.Data.Path(), Guard: srv.doctorGuard(), VIPs: fileVIPs(c)},
	}
	why := srv.Node.Phase()
	if why == "" {
		why = "it waits for the others to found one, or for a leader"
	}
	return a.examine(ctx, doctor.Finding{
		Check: doctor.CheckDaemon, Node: a.id.Name, Result: doctor.Warn,
		Seen: "this node is in no cluster yet: " + doctor.Clean(why), Do: "only this node and the way to the others were looked at",
	})
}

// fileVIPs are the virtual addresses of a file, where the node would put them.
func fileVIPs(c *config.Config) []doctor.VIP {
	var out []doctor.VIP
	for _, in := range c.Instances {
		for _, a := range in.Addresses {
			v := doctor.VIP{Prefix: a.Prefix, Link: a.Dev}
			if v.Link == "" {
				v.Link = in.Interface
			}
			out = append(out, v)
		}
	}
	return out
}

// An alone node knows others only from its file and from earlier.
type alone struct {
	id        store.Identity
	secret    pki.Secret
	trusted   bool // there is a secret to show
	advertise string
	peers     []string // HOST:PORT, maybe this node's own and some twice
	subject   doctor.Subject
}

func (a alone) examine(ctx context.Context, daemon doctor.Finding) (doctor.Report, error) {
	a.subject.Name, a.subject.Witness, a.subject.Address = a.id.Name, a.id.Witness, a.advertise
	a.subject.Local, _ = resolve(ctx, a.advertise)
	var peers []doctor.Member
	for _, address := range a.peers {
		known := func(m doctor.Member) bool { return m.Address == address }
		if address == a.advertise || slices.ContainsFunc(peers, known) || len(peers) >= doctor.MaxNodes {
			continue
		}
		peers = append(peers, doctor.Member{ID: address, Name: address, Address: address})
		if at, err := resolve(ctx, address); err == nil {
			a.subject.Peers = append(a.subject.Peers, at)
		}
	}
	facts, err := doctor.Gather(a.subject)
	if err != nil {
		return doctor.Report{}, err
	}
	self := doctor.Member{ID: a.id.NodeID, Name: a.id.Name, Address: a.advertise, Witness: a.id.Witness, Facts: facts}
	dials := make([]doctor.Dial, len(peers))
	var all sync.WaitGroup
	for i := range peers {
		all.Go(func() { dials[i] = a.reach(ctx, &peers[i]) })
	}
	all.Wait()
	self.Dials = dials
	daemon.Node = a.id.Name
	r := doctor.ExamineAlone(daemon, self, peers)
	r.API = api.Version
	return r, nil
}

// reach connects to a peer, and learns its name and clock if it trusts this node.
func (a alone) reach(ctx context.Context, peer *doctor.Member) doctor.Dial {
	ctx, cancel := context.WithTimeout(ctx, doctorDial)
	defer cancel()
	out := doctor.Dial{To: peer.ID}
	start := time.Now()
	err := cluster.Reach(ctx, peer.Address)
	out.RTT = time.Since(start)
	if err == nil && a.trusted {
		sent := time.Now()
		var h cluster.Hello
		if h, err = cluster.Ask(ctx, peer.Address, a.secret, a.id.NodeID); err == nil {
			peer.Clock = doctor.ReadClock(sent, time.Now(), h.Clock)
			if state.CheckName(h.Name) == nil {
				peer.Name = h.Name
			}
		}
	}
	out.Connected = time.Since(start)
	if err != nil {
		out.Error = dialError(err, peer.Address, doctorDial)
	}
	return out
}
