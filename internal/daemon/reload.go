package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
)

// driftLocked lists how the file differs from the cluster.
func (d *Daemon) driftLocked() []string {
	if d.node == nil {
		return nil
	}
	s := d.node.State()
	if !s.Founded() || d.path == "" {
		return nil
	}
	return d.drifted.Lines(s, d.config, place.HeartbeatOf(d.config))
}

// Reload reads the file again. Errors change nothing. What only concerns this
// node takes effect at once; the cluster-wide part is proposed to the leader.
func (d *Daemon) Reload(ctx context.Context, force bool) (api.ReloadResult, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	sdNotify(sd.SdNotifyReloading)
	defer sdNotify(sd.SdNotifyReady)
	c, path, err := d.settings.LoadConfig()
	if err == nil && d.node == nil && !needsNoCluster(c) {
		err = errNeedsCluster
	}
	if err == nil {
		err = d.server.RefuseUnfit(c, force)
	}
	if err != nil {
		d.mu.Lock()
		d.reload = err
		d.mu.Unlock()
		d.look()
		d.log.Error("reload changed nothing", "file", path, "error", err)
		return api.ReloadResult{File: path}, err
	}
	d.mu.Lock()
	d.config, d.path, d.loadedAt, d.reload = c, path, time.Now(), nil
	d.mu.Unlock()
	d.checks.Reload(c)
	d.look()
	result := api.ReloadResult{File: path, Warnings: append(diagnosticTexts(c.Warnings), needStart(d.begun, c.Raft)...)}
	if d.node == nil {
		d.log.Info("reloaded", "file", path)
		return result, nil
	}
	s := d.node.State()
	if path == "" || !s.Founded() {
		d.log.Info("reloaded", "file", path)
		return result, nil
	}
	if result.Changes, err = d.propose(ctx, c, force); err != nil {
		d.log.Error("reloaded, but the cluster did not take the cluster-wide part", "file", path, "error", err)
		return api.ReloadResult{}, notTaken(err)
	}
	d.log.Info("reloaded", "file", path, "cluster_changes", len(result.Changes))
	return result, nil
}

// proposals is how often a file is judged anew when the cluster changes meanwhile.
const proposals = 10

// propose has the cluster do what the file says, and returns what was changed.
func (d *Daemon) propose(ctx context.Context, c *config.Config, force bool) ([]string, error) {
	heartbeat := place.HeartbeatOf(c)
	for i := 1; ; i++ {
		changed, s := d.node.Changed(), d.node.State()
		instances := place.InstancesIn(c, s.Instances)
		file := place.ContentOf(instances, heartbeat)
		in := api.ConfigureRequest{Configuration: state.Configuration{Heartbeat: heartbeat, Instances: instances}, Force: force}
		if len(place.Difference(s.Instances, instances, s.Heartbeat.Configured, heartbeat)) == 0 {
			return nil, nil
		}
		// A leader of an older version would take a group for a word without meaning.
		if _, err := state.EncodeCommand(state.Command{Configure: &in.Configuration}, s.FeatureLevel()); err != nil {
			return nil, err
		}
		if !force {
			judged := s
			if len(instances) == 0 { // the file has no say in them
				judged = &state.State{Heartbeat: s.Heartbeat}
			}
			if err := place.RefuseOlder(d.base(), judged, file); err != nil {
				return nil, err
			}
			in.Seen = place.ClusterContent(s).Hash()
		}
		done, err := d.server.Configure(ctx, in)
		if err == nil {
			agreed := maps.Clone(file)
			if heartbeat == 0 {
				agreed[place.HeartbeatKey] = s.Heartbeat.Configured.String()
			}
			d.setBase(agreed)
			if len(done.Changes) == 0 { // an older leader does not tell
				want := place.Proposal(s.Instances, instances)
				done.Changes = place.Changes(place.ContentOf(s.Instances, s.Heartbeat.Configured), place.ContentOf(want, cmp.Or(heartbeat, s.Heartbeat.Configured)), nil)
			}
			return done.Changes, nil
		}
		if refused, ok := errors.AsType[*state.Refusal](err); !ok || refused.Code != state.CodeMoved || i == proposals {
			return nil, err
		}
		select {
		case <-changed: // the news have come here too
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// notTaken says what a refused proposal means: the node's own part is in effect.
func notTaken(err error) error {
	r := state.Refusal{Code: "error", Message: err.Error(), Hint: api.HintOf(err)}
	if refused, ok := errors.AsType[*state.Refusal](err); ok {
		r = *refused
	}
	r.Message = "priorities and checks of the file are in effect, but the cluster did not take its addresses and timing: " + r.Message
	return &r
}

// needStart lists the settings of the raft block that differ from those that this
// daemon began with: a reload does not change them.
func needStart(begun, now config.Raft) (lines []string) {
	for _, s := range []struct{ name, begun, now string }{
		{"listen", begun.Listen, now.Listen}, {"advertise", begun.Advertise, now.Advertise},
		{"guard", begun.Guard, now.Guard}, {"guard_pin_dir", begun.GuardPinDir, now.GuardPinDir},
		{"data_dir", begun.DataDir, now.DataDir}, {"socket", begun.Socket, now.Socket},
		{"secret_file", begun.SecretFile, now.SecretFile},
	} {
		if s.begun != s.now {
			lines = append(lines, fmt.Sprintf("%s: %q takes effect when the daemon is started again; now it is %q", s.name, s.now, s.begun))
		}
	}
	return lines
}

func diagnosticTexts(diags []config.Diagnostic) []string {
	var out []string
	for _, w := range diags {
		out = append(out, w.String())
	}
	return out
}

func (d *Daemon) configStatus() api.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := api.Config{File: d.path, LoadedAt: d.loadedAt, Warnings: diagnosticTexts(d.config.Warnings), Drift: d.driftLocked()}
	if d.reload != nil {
		c.Error = d.reload.Error()
	}
	return c
}
