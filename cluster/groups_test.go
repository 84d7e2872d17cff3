package cluster

import (
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

func settingOf(current, previous time.Duration) state.HeartbeatSetting {
	return state.HeartbeatSetting{Configured: current, Current: current, Previous: previous}
}

// After a start the state is that of a snapshot, and what the voter had promised may be by a
// newer one.
func TestGroupBeginsWithTheNewestTiming(t *testing.T) {
	at := func(version uint64, h time.Duration) *state.State {
		s := state.New()
		s.ClusterID, s.Version, s.Heartbeat = "c", version, settingOf(h, h)
		return s
	}
	written := func(version uint64, h time.Duration) store.Cache {
		return store.Cache{Version: version, Heartbeat: settingOf(h, h)}
	}
	for name, c := range map[string]struct {
		s       *state.State
		c       store.Cache
		version uint64
		want    time.Duration
	}{
		"nothing is known":             {state.New(), store.Cache{}, 0, time.Second},
		"no state yet":                 {state.New(), written(7, 3*time.Second), 7, 3 * time.Second},
		"an older snapshot":            {at(5, 2*time.Second), written(7, 3*time.Second), 7, 3 * time.Second},
		"a newer state":                {at(9, 2*time.Second), written(7, 3*time.Second), 9, 2 * time.Second},
		"the same":                     {at(7, 3*time.Second), written(7, 3*time.Second), 7, 3 * time.Second},
		"nothing was ever written":     {at(9, 2*time.Second), store.Cache{}, 9, 2 * time.Second},
		"the file of an older version": {at(9, 2*time.Second), written(0, 3*time.Second), 9, 2 * time.Second},
	} {
		if version, h := newestTiming(c.s, c.c, time.Second); version != c.version || h.Current != c.want {
			t.Errorf("%s: %v of version %d, want %v of %d", name, h.Current, version, c.want, c.version)
		}
	}
}

func TestNobodyIsListedBeforeTheLogIsApplied(t *testing.T) {
	s := state.New()
	s.Version, s.Nodes["r"] = 5, state.NodeRecord{ID: "r"}
	if got := listedBy(s, 7); len(got.Nodes) > 0 || got.Founded() {
		t.Errorf("by a state of before the last run: %v", got.Nodes)
	}
	if got := listedBy(s, 5); got != s {
		t.Errorf("by the state of the last run: %v", got.Nodes)
	}
}

// A removed node is not asked what it has, and may lead another group by the timing that it
// knows: whoever would follow it has to know first that it is removed.
func TestRemovalBeginsTheChangeAnew(t *testing.T) {
	s := state.New()
	s.Version, s.Heartbeat = 5, settingOf(time.Second, 3*time.Second)
	s.Nodes["a"], s.Nodes["b"] = state.NodeRecord{ID: "a"}, state.NodeRecord{ID: "b"}
	var got settling
	got.begin(s)
	got.since = time.Minute
	later := *s
	later.Version = 6
	if got.begin(&later); got.version != 5 || got.since != time.Minute {
		t.Errorf("another version: %+v", got)
	}
	removed := later
	removed.Version, removed.Nodes = 7, map[string]state.NodeRecord{"a": s.Nodes["a"]}
	if got.begin(&removed); got.version != 7 || got.since != 0 {
		t.Errorf("after a removal: %+v", got)
	}
	changed := removed
	changed.Version, changed.Heartbeat = 8, settingOf(2*time.Second, time.Second)
	if got.begin(&changed); got.version != 8 {
		t.Errorf("another setting: %+v", got)
	}
}

// A leader that lags in the default group's log looks for what it knows of, and says no
// more than that.
func TestDoneUpTo(t *testing.T) {
	s := state.New()
	s.Version = 10
	s.Holders = map[netip.Addr]state.Holder{netip.MustParseAddr("192.0.2.1"): {Group: "g1.1", Leaving: 8}, netip.MustParseAddr("192.0.2.2"): {Group: "g1.2"}}
	for _, c := range []struct {
		id         string
		list, want uint64
	}{{"g1.1", 7, 0}, {"g1.1", 8, 8}, {"g1.1", 10, 10}, {"g1.1", 12, 10}, {"g1.2", 12, 0}} {
		if got := doneUpTo(s, c.id, c.list); got != c.want {
			t.Errorf("%s with a list of %d: %d, want %d", c.id, c.list, got, c.want)
		}
	}
}
