package operate

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/vipaddr"
	"github.com/raftvip/raftvip/vip"
)

// Configure has the cluster do what a node's file says, here or at the leader. What the
// leader refuses is a *state.Refusal.
func (srv *Server) Configure(ctx context.Context, in api.ConfigureRequest) (api.Configured, error) {
	return askLeader(ctx, srv, api.PathConfig, in, srv.configure)
}

// configure takes over the cluster-wide part of a node's file.
func (srv *Server) configure(ctx context.Context, in api.ConfigureRequest) (api.Configured, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	s, c := srv.Node.State(), in.Configuration
	if err := checkAddresses(c.Instances); err != nil {
		return api.Configured{}, err
	}
	if in.Seen != "" && in.Seen != place.ClusterContent(s).Hash() {
		return api.Configured{}, errMoved
	}
	c.Instances = place.Proposal(s.Instances, c.Instances)
	if err := refuseEmpty(s.Instances, c.Instances, "the file", in.Force); err != nil {
		return api.Configured{}, err
	}
	if err := place.RefuseMerged(s.Instances, c.Instances); err != nil {
		return api.Configured{}, err
	}
	for _, in := range c.Instances {
		for _, a := range in.Addresses {
			if err := notANodes(s, a.Prefix.Addr()); err != nil {
				return api.Configured{}, err
			}
		}
	}
	if err := srv.probeNew(ctx, s, c.Instances, in.Force); err != nil {
		return api.Configured{}, err
	}
	if err := srv.Node.Apply(ctx, state.Command{Configure: &c}); err != nil {
		return api.Configured{}, err
	}
	heartbeat := cmp.Or(c.Heartbeat, s.Heartbeat.Configured)
	return api.Configured{
		Changes: place.Changes(place.ContentOf(s.Instances, s.Heartbeat.Configured), place.ContentOf(c.Instances, heartbeat), nil),
	}, nil
}

// checkAddresses refuses what cannot be a virtual address before the network is asked
// about it.
func checkAddresses(instances []state.Instance) error {
	for _, in := range instances {
		for _, a := range in.Addresses {
			if err := vipaddr.Check(a.Prefix); err != nil {
				return state.Refuse(state.CodeBadRequest, "", "instance %.80q: virtual address %.80q: %s", in.Name, a.Prefix, err)
			}
		}
	}
	return nil
}

// probesAtOnce is how many addresses the network is asked about at a time: each
// takes 0.6 s and a socket.
const probesAtOnce = 100

// probeNew asks the network about the addresses that the cluster does not have
// yet, all at once: a typing error in a file must not take another machine's.
// An address without an interface here is for the other nodes to use.
func (srv *Server) probeNew(ctx context.Context, s *state.State, instances []state.Instance, force bool) error {
	if srv.Places == nil || force {
		return nil
	}
	var tasks errgroup.Group
	tasks.SetLimit(probesAtOnce)
	speaks := make(map[string]bool)
	for _, in := range instances {
		speaks[in.Name] = in.VRRP != ""
	}
	for _, p := range place.Resolve(instances, srv.File(), srv.Links.Current(), nil) {
		if speaks[p.Instance] {
			continue // its VRRP master may well have the addresses, and VRRP decides
		}
		if _, _, known := s.AddressOf(p.Address.Prefix.Addr()); known || p.Err != nil {
			continue
		}
		a := p.Address
		a.Dev = p.Link
		tasks.Go(func() error { return probe(ctx, srv.Links.Current(), a, false) })
	}
	return tasks.Wait()
}

// notANodes refuses a virtual address at which a member is reached: its owner would
// cut that member off.
func notANodes(s *state.State, ip netip.Addr) error {
	for _, n := range s.SortedNodes() {
		if at, err := netip.ParseAddrPort(n.Address); err == nil && at.Addr().Unmap() == ip {
			return state.Refuse(state.CodeAddressInUse, "choose an address that no machine has of its own",
				"address %s is that of node %s", ip, n.Name)
		}
	}
	return nil
}

// maxInstanceName is the longest name of an instance that vip add makes.
const maxInstanceName = 64

// vipAdd adds an address, after asking the network whether somebody has it.
func (srv *Server) vipAdd(ctx context.Context, in api.VIPRequest) (api.Done, error) {
	if in.Instance == "" {
		in.Instance = "default"
	}
	if len(in.Instance) > maxInstanceName || strings.ContainsFunc(in.Instance, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return api.Done{}, state.Refuse(state.CodeBadRequest, "", "instance %.80q: must be at most %d characters and no blanks", in.Instance, maxInstanceName)
	}
	if err := vipaddr.CheckLink(in.Prefix, in.Dev); err != nil {
		return api.Done{}, state.Refuse(state.CodeBadRequest, "", "virtual address %.80q: %s", in.Prefix, err)
	}
	s := srv.Node.State()
	if err := notANodes(s, in.Prefix.Addr()); err != nil {
		return api.Done{}, err
	}
	if i, a, ok := s.AddressOf(in.Prefix.Addr()); ok {
		return api.Done{}, state.Refuse(state.CodeAddressInUse, `see "raftvip vip list"`, "address %s is already in instance %s", a.Prefix, i.Name)
	}
	group, err := place.GroupOfNew(srv.File(), s.Instances, in.Instance)
	if err != nil {
		return api.Done{}, err
	}
	address := state.Address{Prefix: in.Prefix, Dev: in.Dev, Added: true}
	if srv.Places != nil {
		if err := probe(ctx, srv.Links.Current(), address, in.Force); err != nil {
			return api.Done{}, err
		}
	}
	err = srv.Node.Apply(ctx, state.Command{AddVIP: &state.VIPCommand{
		Instance: in.Instance, Group: group, Address: address, GARP: place.DefaultGARP(),
	}})
	return api.Done{}, err
}

// probe refuses an address that has no interface or that another machine answers
// for (RFC 5227).
func probe(ctx context.Context, links []vip.Link, a state.Address, force bool) error {
	link, err := vip.Resolve(a.Prefix, a.Dev, "", links)
	if err != nil {
		return state.Refuse(state.CodeBadRequest, "give the interface: "+a.Prefix.String()+"@INTERFACE", "%s", err)
	}
	if force {
		return nil
	}
	for _, l := range links {
		for _, k := range l.Addresses {
			if k.Prefix.Addr() == a.Prefix.Addr() && k.Protocol != vip.AddrProtocol {
				return state.Refuse(state.CodeAddressInUse, "choose an address that no machine has of its own; if keepalived has it, stop that first, or repeat with --force",
					"address %s is already on %s of this machine", a.Prefix.Addr(), l.Name)
			}
		}
	}
	mac, found, err := vip.ProbeConflict(ctx, link, a.Prefix.Addr())
	switch {
	case err != nil:
		return state.Refuse(state.CodeBadRequest, "repeat with --force to add it without asking",
			"cannot ask the network whether %s is in use: %s", a.Prefix.Addr(), err)
	case found:
		return state.Refuse(state.CodeAddressInUse, "take it from that machine first, or repeat with --force",
			"address %s is already on another machine: %s answers for it on %s", a.Prefix.Addr(), mac, link)
	}
	return nil
}

// ProbeAddresses is probe for commands that run without a daemon. The first address
// that cannot be had is the error.
func ProbeAddresses(ctx context.Context, addrs []state.Address, force bool) error {
	host, err := vip.OpenHost()
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := host.Links()
	if err != nil {
		return err
	}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.SetLimit(probesAtOnce)
	for _, a := range addrs {
		tasks.Go(func() error { return probe(ctx, links, a, force) })
	}
	return tasks.Wait()
}

func (srv *Server) vipDel(ctx context.Context, in api.VIPRequest) (api.Done, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	ip, s := in.Prefix.Addr(), srv.Node.State()
	if _, _, ok := s.AddressOf(ip); ok && countAddresses(s.Instances) == 1 {
		if err := refuseEmpty(s.Instances, nil, "this", in.Force); err != nil {
			return api.Done{}, err
		}
	}
	return api.Done{}, srv.Node.Apply(ctx, state.Command{DelVIP: &ip})
}

func (srv *Server) vips(ctx context.Context) []api.VIP {
	s := srv.Node.State()
	owners := make(map[string]string) // by group
	shown := srv.shown()
	for i, seen := range eachSeat(shown, func(t Seat) sight {
		if countAddresses(t.State().Instances) == 0 {
			return sight{}
		}
		return srv.sight(ctx, t)
	}) {
		owners[shown[i].Name] = seen.owner
	}
	var out []api.VIP
	for _, in := range s.Instances {
		for _, a := range in.Addresses {
			out = append(out, api.VIP{Prefix: a.Prefix, Instance: in.Name, Excluded: a.Excluded, Dev: a.Dev, Owner: owners[holderOf(s, a.Prefix.Addr(), cmp.Or(in.Group, state.DefaultGroup))]})
		}
	}
	return out
}

// errMoved: the cluster's configuration is another one than the file was judged by.
var errMoved = state.Refuse(state.CodeMoved, "try again", "the cluster's configuration has just changed")
