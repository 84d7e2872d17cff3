package guard

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cleanup removes from the caller's network namespace everything that guards of
// dead processes left: pinned links, filters, qdiscs, tables. It needs no other
// state. Options.Instance limits it to one instance ("" means all), Options.PinDir
// adds a place to look for pins; the other options are not used. Remove the
// addresses first: from then on they are answered.
//
// What belongs to a running process, stopped ones too, is left alone and reported
// as ErrInUse after everything else has been done.
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

	locks := map[string]int{}
	defer func() {
		for _, fd := range locks {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	var errs []error
	match := func(instance string) bool {
		if one != "" && instance != one {
			return false
		}
		fd, seen := locks[instance]
		if !seen {
			if fd, err = lockInstance(ns, instance); err != nil {
				errs = append(errs, err)
			}
			locks[instance] = fd
		}
		return fd >= 0
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
