package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Remains is what dead processes of an instance left in this network namespace.
// Until it is closed nobody can open a guard of the instance.
type Remains struct {
	opts   Options
	one    string // the instance to be removed, "" for all
	ns     *netNS
	nl     *netlink.Handle
	lockFD int
}

// Seize takes hold of what is left, and changes nothing. Options.Instance says what
// Remove is limited to ("" means all instances), Options.PinDir adds a place to look
// for pins, Options.Leftovers are as for Open. The error is ErrInUse if a process of
// the instance runs, stopped ones too.
func Seize(opts Options) (_ *Remains, err error) {
	r := &Remains{one: opts.Instance, lockFD: -1}
	if err := opts.complete(); err != nil {
		return nil, err
	}
	r.opts = opts
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.ns, err = currentNetNS(); err != nil {
		return nil, err
	}
	if r.lockFD, err = lockInstance(r.ns, opts.Instance); err != nil {
		return nil, err
	}
	if r.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return r, nil
}

// Close lets go.
func (r *Remains) Close() {
	if r.nl != nil {
		r.nl.Close()
	}
	if r.lockFD >= 0 {
		unix.Close(r.lockFD)
	}
	if r.ns != nil {
		r.ns.close()
	}
}

// soleLook is how often Await looks whether addresses have gone by their lifetime.
const soleLook = 20 * time.Millisecond

// Await returns when the leases of the dead process have ended: as long as they last
// its kernel answers rightly, and whoever removes the addresses earlier has clients
// wait for a successor that is still bound. longest is the longest that a lease can
// last from now: Await never waits longer, and as long where a guard is there whose
// deadlines cannot be read. Where addresses are guarded by their lifetime alone it
// waits until they have gone. It returns early only if ctx ends, with its error.
func (r *Remains) Await(ctx context.Context, longest time.Duration) error {
	end := r.opts.Now() + longest
	e := survey(r.nl, r.ns, r.opts.PinDir, r.opts.Instance, r.opts.Now)
	if e.guarded {
		if len(stillThere(r.nl, slices.Concat(e.addrs, r.opts.Leftovers))) == 0 {
			return nil
		}
		if e.unread == nil {
			end = min(end, e.until)
		}
		return sleep(ctx, end-r.opts.Now())
	}
	end = min(end, r.opts.Now()+soleLifetime+lifetimeSlack)
	for r.opts.Now() < end && r.expiring() {
		if err := sleep(ctx, soleLook); err != nil {
			return err
		}
	}
	return nil
}

// expiring reports whether one of the left addresses has a lifetime that it would
// have as its only guard.
func (r *Remains) expiring() bool {
	list, err := listAddresses(r.nl, nil)
	return err == nil && slices.ContainsFunc(list, func(a netlink.Addr) bool {
		ip, ok := netip.AddrFromSlice(a.IP)
		return ok && slices.Contains(r.opts.Leftovers, ip.Unmap()) && time.Duration(a.ValidLft)*time.Second <= soleLifetime
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Remove is Cleanup of what was seized.
func (r *Remains) Remove() error {
	return cleanup(r.opts, r.one, r.ns, r.nl, map[string]bool{r.opts.Instance: true})
}

// Cleanup removes from the caller's network namespace everything that guards of
// dead processes left: pinned links and maps, filters, qdiscs, tables. It needs no
// other state. Options.Instance limits it to one instance ("" means all),
// Options.PinDir adds a place to look for pins, Options.Leftovers are as for Open;
// the other options are not used.
//
// Two things are left alone and reported after everything else has been done: what
// belongs to a running process, stopped ones too, as ErrInUse; and the guard of an
// address that is still on an interface, as ErrAddressLeft. Remove the addresses
// first.
func Cleanup(opts Options) error {
	one := opts.Instance
	if err := opts.complete(); err != nil {
		return err
	}
	ns, err := currentNetNS()
	if err != nil {
		return err
	}
	defer ns.close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer nl.Close()
	return cleanup(opts, one, ns, nl, map[string]bool{})
}

// cleanup is Cleanup; held has the instances whose lock the caller has already.
func cleanup(opts Options, one string, ns *netNS, nl *netlink.Handle, held map[string]bool) error {
	var locked []int
	defer func() {
		for _, fd := range locked {
			unix.Close(fd)
		}
	}()
	var errs []error
	may := map[string]bool{}
	match := func(instance string) bool {
		if one != "" && instance != one {
			return false
		}
		if ok, seen := may[instance]; seen {
			return ok
		}
		may[instance] = false
		if !held[instance] {
			fd, err := lockInstance(ns, instance)
			if err != nil {
				errs = append(errs, err)
				return false
			}
			locked = append(locked, fd)
		}
		e := survey(nl, ns, opts.PinDir, instance, opts.Now)
		if left := stillThere(nl, slices.Concat(e.addrs, opts.Leftovers)); len(left) > 0 {
			errs = append(errs, fmt.Errorf("guard %s: %v still on an interface: %w", instance, left, ErrAddressLeft))
			return false
		}
		may[instance] = true
		return true
	}
	errs = append(errs,
		cleanPins(opts.PinDir, ns, "", match),
		removeClsact(nl, func(_ int, instance string) bool { return match(instance) }),
		cleanTables(ns, match))
	return errors.Join(errs...)
}

// cleanPins removes the pin directories of instances of this namespace that match,
// but not the one at keep.
func cleanPins(given string, ns *netNS, keep string, match func(instance string) bool) error {
	var errs []error
	for _, b := range pinBases(given) {
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			p := pinDir{path: filepath.Join(b.dir, e.Name()), parents: b.parents, mounted: b.mount}
			instance, inode, ok := splitInstanceDir(e.Name())
			// A namespace that is gone took its devices, so all links are dead.
			if !ok || p.path == keep || inode != ns.inode && !deadLinks(p.path) {
				continue
			}
			if inode == ns.inode && !match(instance) {
				continue
			}
			errs = append(errs, removePinnedLinks(p.path, func(string) bool { return true }), p.remove())
		}
	}
	return errors.Join(errs...)
}

// deadLinks says whether there are pinned links in dir, and all have lost their
// device.
func deadLinks(dir string) bool {
	paths, _ := filepath.Glob(filepath.Join(dir, "link_*"))
	for _, path := range paths {
		lk, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return false
		}
		info, err := lk.Info()
		lk.Close()
		if err != nil || info.TCX() == nil || info.TCX().Ifindex != 0 {
			return false
		}
	}
	return len(paths) > 0
}

// ifName returns the name of an interface of the calling thread's namespace, "" if
// there is none.
func ifName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return i.Name
}
