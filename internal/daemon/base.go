package daemon

import (
	"context"
	"maps"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/tick"
)

// base is this node's, nil if its file and the cluster never agreed.
func (d *Daemon) base() place.Content {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.baseContent
}

// setBase remembers it over restarts.
func (d *Daemon) setBase(c place.Content) {
	d.mu.Lock()
	known := maps.Equal(d.baseContent, c) && d.baseContent != nil
	d.baseContent = c
	d.mu.Unlock()
	if known {
		return
	}
	if err := d.data.WriteBase(c); err != nil {
		d.log.Error("cannot remember what this node's file and the cluster agree on", "error", err)
	}
}

// followBase notes when this node's file and the cluster agree.
func (d *Daemon) followBase(ctx context.Context) {
	ticks := tick.New(place.LinkPoll)
	defer ticks.Stop()
	var seen struct {
		instances []state.Instance
		config    *config.Config
		heartbeat time.Duration
	}
	for {
		changed := d.node.Changed()
		s, c := d.node.State(), d.configuration()
		if s.Founded() && (seen.config != c || !place.Same(seen.instances, s.Instances) || seen.heartbeat != s.Heartbeat.Configured) {
			seen.instances, seen.config, seen.heartbeat = s.Instances, c, s.Heartbeat.Configured
			if file := place.InstancesIn(c, s.Instances); len(file) > 0 && place.Agree(place.ClusterContent(s), place.ContentOf(file, place.HeartbeatOf(c))) {
				d.setBase(place.ClusterContent(s))
			}
		}
		select {
		case <-changed:
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}
