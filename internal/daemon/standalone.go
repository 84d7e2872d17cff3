package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// A daemon without a cluster runs the instances with "vrrp only", and nothing else.

// errNeedsCluster says why a daemon without a cluster does not take a file.
var errNeedsCluster = api.WithHint(errors.New("the file has instances without vrrp only, and this daemon has no cluster"),
	`found a cluster with "raftvip init" or enter one with "raftvip join", then start the daemon again`)

// needsNoCluster reports whether every instance of a file is a plain VRRP router.
func needsNoCluster(c *config.Config) bool {
	return len(c.Instances) > 0 && len(c.Raft.Peers) == 0 && !slices.ContainsFunc(c.Instances, func(in *config.Instance) bool {
		return in.VRRP == nil || in.VRRP.Mode != config.VRRPOnly
	})
}

// openStandalone makes the parts of a daemon without a cluster. There is no lease
// that a guard could enforce; opened as "off" it keeps a second daemon out.
func (d *Daemon) openStandalone() error {
	if err := d.openKernel(string(guard.Off)); err != nil {
		return err
	}
	d.journal = vip.NewJournal(d.journalPath())
	d.checks = check.New(check.Config{Config: d.config, Logger: d.log})
	d.openPlain()
	d.server = operate.New(operate.Config{
		Places: d.places, Links: d.links, Routers: func() []operate.Routers { return []operate.Routers{d.plain} }, Checks: d.checks,
		File: d.configuration, FileStatus: d.configStatus, Program: d.settings.Program, Started: d.started, Log: d.log,
	})
	mux := http.NewServeMux()
	api.Handle(mux, api.PathStatus, func(context.Context, struct{}) (api.Status, error) { return d.server.StandaloneStatus(), nil })
	api.Handle(mux, api.PathReload, func(ctx context.Context, in api.ReloadRequest) (api.ReloadResult, error) {
		return d.Reload(ctx, in.Force)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		api.Answer(w, nil, state.Refuse(state.CodeNoLeader, `see "raftvip status"`, "this daemon has no cluster: all its instances are vrrp only"))
	})
	d.socket = mux
	return nil
}

// look has what was decided looked at again.
func (d *Daemon) look() {
	for _, t := range d.seats.with() {
		t.owner.Wake()
	}
	if d.plain != nil {
		d.plain.Wake()
	}
}

// runStandalone is Run of a daemon without a cluster.
func (d *Daemon) runStandalone(ctx context.Context, ready func()) error {
	ln, err := api.ListenSocket(d.config.Raft.Socket)
	if err != nil {
		return err
	}
	ctx, d.leave = context.WithCancel(ctx)
	defer d.leave()
	// The socket answers until the addresses are gone.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var failures errs
	part := func(name string, f func() error) func() error {
		return func() error {
			if err := f(); err != nil {
				failures.add(fmt.Errorf("%s: %w", name, err))
			}
			d.leave()
			return nil
		}
	}
	var parts, servers errgroup.Group
	servers.Go(part("control socket", func() error { return api.Serve(serving, ln, d.socket) }))
	servers.Go(part("hearing", func() error { return d.hearing.Run(serving, d.host) }))
	servers.Go(part("interfaces", func() error { d.links.Run(serving); return nil }))
	parts.Go(part("vrrp only", func() error { return d.plain.Run(ctx) }))
	parts.Go(part("checks", func() error { return d.checks.Run(ctx) }))
	parts.Go(part("ready", func() error { d.minds(ctx, ready); return nil }))
	parts.Wait()
	sdNotify(sd.SdNotifyStopping)
	stopServing()
	servers.Wait()
	return failures.join()
}

// minds tells when everything has been looked at once, and passes on what the
// checks find.
func (d *Daemon) minds(ctx context.Context, ready func()) {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !d.plain.Ready() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
	sdNotify(sd.SdNotifyReady)
	if ready != nil {
		ready()
	}
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		d.watch.beat("")
		select {
		case <-d.checks.Changed():
			d.plain.Wake()
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}
