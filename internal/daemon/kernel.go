package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/raftvip/raftvip/cluster/lease"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// JournalFile is where, in the data directory, the addresses on the kernel are
// noted if it keeps no mark of whose they are.
const JournalFile = "addresses.json"

// openKernel takes hold of the interfaces: the guard first, which takes over what
// an earlier run left shut and keeps out a second daemon, then left-overs go.
func (d *Daemon) openKernel(guardKind string) error {
	if err := checkPrivileges(); err != nil {
		return err
	}
	var err error
	if d.host, err = vip.OpenHost(); err != nil {
		return err
	}
	d.sender = vip.NewAnnouncer()
	d.hearing = vip.NewHearing(d.log)
	d.links = place.NewLinks(d.host, d.log)
	d.places = place.New(place.Config{
		Log: d.log, File: d.configuration, Links: d.links, Hearing: d.hearing,
		VMACs: d.vmacs, Unguarded: d.unguarded,
	})
	kind, err := guard.ParseKind(guardKind)
	if err != nil {
		return err
	}
	left, err := vip.Leftovers(d.host, d.journalPath())
	if err != nil {
		return err
	}
	options := guard.Options{Kind: kind, PinDir: d.config.Raft.GuardPinDir, Logger: d.log, Leftovers: ips(left)}
	if err := d.awaitLeases(options); err != nil {
		return fmt.Errorf("attach guard: %w", guardHint(err))
	}
	if d.guard, err = guard.Open(options); err != nil {
		return fmt.Errorf("attach guard: %w", guardHint(err))
	}
	removed, err := vip.RemoveLeftovers(d.host, d.journalPath(), d.log)
	for _, l := range removed {
		d.log.Warn("removed an address that an earlier run left", "vip", l.Prefix.String(), "interface", l.Link)
	}
	if err != nil {
		return fmt.Errorf("remove left-over addresses: %w", err)
	}
	return nil
}

func ips(left []vip.Leftover) []netip.Addr {
	var out []netip.Addr
	for _, l := range left {
		out = append(out, l.Prefix.Addr())
	}
	return out
}

func guardHint(err error) error {
	if errors.Is(err, guard.ErrInUse) {
		return api.WithHint(err, "one daemon runs in each network namespace; stop the other one first")
	}
	return err
}

// awaitLeases lets the lease of a run that was killed end before its addresses are
// silenced: no other node can own them earlier, so that clients would wait.
func (d *Daemon) awaitLeases(options guard.Options) error {
	if len(options.Leftovers) == 0 {
		return nil
	}
	remains, err := guard.Seize(options)
	if err != nil {
		return err
	}
	defer remains.Close()
	began := boottime.Now()
	if err := remains.Await(context.Background(), LongestLease(d.config.Raft.DataDir)); err != nil {
		return err
	}
	if waited := boottime.Now() - began; waited > time.Millisecond {
		d.log.Info("waited for the lease of an earlier run to end", "took", waited)
	}
	return nil
}

// longestLease bounds a lease where the node's timing is not known.
const longestLease = 10 * time.Second

// LongestLease is the longest that the lease of a node that has just died can last:
// no voter promises for longer than the heartbeat timeout.
func LongestLease(dataDir string) time.Duration {
	h, err := store.CachedHeartbeat(dataDir)
	if promise := h.Promise(); err == nil && promise > 0 {
		return min(promise, longestLease)
	}
	return longestLease
}

func (d *Daemon) journalPath() string { return filepath.Join(d.data.Path(), JournalFile) }

// vipGuard is the guard as the keeper and the gate use it; a witness has none.
func (d *Daemon) vipGuard() vip.Guard {
	if d.guard == nil {
		return vip.NoGuard{}
	}
	return d.guard
}

// lateness is by how much a lease is shortened for the guard. Without a guard
// nothing can make up for a dead daemon, and shortening would not help.
func (d *Daemon) lateness() time.Duration {
	if d.guard == nil || d.guard.Lateness() == guard.Unbounded {
		return 0
	}
	return d.guard.Lateness()
}

// minHeartbeat is the heartbeat timeout at which a lease, shortened by the guard's
// lateness, still lasts for half of what it would without: a lease is renewed
// more than twice in the time that it lasts, so one renewal may be lost.
func minHeartbeat(lateness time.Duration) time.Duration {
	return time.Duration(float64(lateness) / (lease.Margin / 2)).Round(time.Millisecond)
}

// notToSilence says why an address that someone else has configured on the link must
// not be put under the guard, or "".
func (d *Daemon) notToSilence(link string, addr netip.Addr) string {
	if kind := d.guard.Kind(); kind == guard.Lifetime || kind == guard.Off {
		return fmt.Sprintf("guard %s cannot silence it", kind)
	}
	if why := d.unguarded(link); why != "" {
		return why
	}
	for _, n := range d.node.State().Nodes {
		if at, err := netip.ParseAddrPort(n.Address); err == nil && at.Addr().Unmap() == addr {
			return fmt.Sprintf("it is the address of member %s, which must not fall silent", n.Name)
		}
	}
	return ""
}

// unguarded says why this node must not own an address on an interface: where the
// guard is not attached nothing would silence it. Only "guard off" permits that.
func (d *Daemon) unguarded(link string) string {
	for _, l := range d.links.Current() {
		if l.Name != link {
			continue
		}
		if err := d.guard.Covers(l.Index); err != nil {
			return fmt.Sprintf("interface %s is not guarded: %v", link, err)
		}
	}
	return ""
}

// IsVirtual reports whether an address is one of the cluster's or of this node's file.
func (d *Daemon) isVirtual(ip netip.Addr) bool {
	c := d.configuration()
	if d.node == nil {
		return place.IsVirtual(ip, c, nil)
	}
	return place.IsVirtual(ip, c, d.node.State())
}
