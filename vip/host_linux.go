package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Netlink is the Host of the process's network namespace. It must be closed.
type Netlink struct {
	changes *changeSocket
	list    map[int]*nl.SocketHandle // a listing does not hold up a change
	linger  linger
	marks   bool
	// primaries has the links with any; promoteMu guards it.
	primaries map[int]*primaries
}

var _ Host = (*Netlink)(nil)

// OpenHost opens the kernel's route interface. Listing and watching need no
// privilege, changes need CAP_NET_ADMIN.
func OpenHost() (*Netlink, error) {
	h := &Netlink{marks: kernelMarks(), primaries: map[int]*primaries{}}
	var err error
	if h.changes, err = openChangeSocket(); err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.changes.close()
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	// The kernel's own words about an error; old kernels have none.
	_ = s.SetExtAck(true)
	h.list = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	return h, nil
}

// Close frees the sockets. No method may be called after or during it.
func (h *Netlink) Close() {
	h.linger.close()
	h.changes.close()
	for _, s := range h.list {
		s.Close()
	}
}

// Marks reports whether the kernel is 5.18 or newer, the first with IFA_PROTO. A
// distribution's kernel with the feature but an older number uses the journal as
// well, which is harmless.
func (h *Netlink) Marks() bool { return h.marks }

func kernelMarks() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return releaseAtLeast(unix.ByteSliceToString(u.Release[:]), 5, 18)
}

// releaseAtLeast compares the first two numbers of a kernel release.
func releaseAtLeast(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	have, err1 := strconv.Atoi(parts[0])
	haveMinor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (have > major || have == major && haveMinor >= minor)
}

// Links implements Host.
func (h *Netlink) Links() ([]Link, error) {
	var links []Link
	at := map[int]int{}
	err := h.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), func(b []byte) error {
		l, ok, err := parseLinkMessage(b)
		if ok {
			at[l.Index] = len(links)
			links = append(links, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	err = h.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), func(b []byte) error {
		index, a, err := parseAddrMessage(b)
		if i, ok := at[index]; ok && err == nil {
			links[i].Addresses = append(links[i].Addresses, a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return links, nil
}

// dump lists what, and lists again, at most three times more, when the kernel says
// that something changed meanwhile.
func (h *Netlink) dump(what, answer uint16, filter nl.NetlinkRequestData, each func([]byte) error) error {
	var msgs [][]byte
	for range 4 {
		req := nl.NewNetlinkRequest(int(what), unix.NLM_F_DUMP)
		req.Sockets = h.list
		req.AddData(filter)
		var err error
		msgs, err = req.Execute(unix.NETLINK_ROUTE, answer)
		if err == nil {
			break
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
		// A listing that stays inconsistent is used all the same: changes arrive as
		// events as well.
	}
	var errs []error
	for _, m := range msgs {
		if err := each(m); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

var promoteMu sync.Mutex

// promoteSecondaries makes the links keep secondary addresses when their primary is
// deleted, and returns what puts the settings back (ip-sysctl: promote_secondaries).
// Where it cannot, as with a read-only /proc/sys, it does nothing: the address has
// to go, whatever goes with it.
func promoteSecondaries(links map[int]bool) (restore func()) {
	promoteMu.Lock()
	were := map[string][]byte{}
	for link := range links {
		name, err := linkName(link)
		if err != nil {
			continue
		}
		path := "/proc/sys/net/ipv4/conf/" + name + "/promote_secondaries"
		was, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(was)) == "0" && os.WriteFile(path, []byte("1\n"), 0) == nil {
			were[path] = was
		}
	}
	return func() {
		for path, was := range were {
			_ = os.WriteFile(path, was, 0)
		}
		promoteMu.Unlock()
	}
}

// A primaries are the addresses of ours on a link that can be primaries, and what
// promote_secondaries was before: they may expire when this process is dead or
// frozen, and must not take others along then either.
type primaries struct {
	path, was string // nothing to put back if empty
	put       map[netip.Prefix]bool
}

// keepSecondaries sets promote_secondaries of the link while p is on it.
func (h *Netlink) keepSecondaries(link int, p netip.Prefix) {
	promoteMu.Lock()
	defer promoteMu.Unlock()
	on := h.primaries[link]
	if on == nil {
		on = &primaries{put: map[netip.Prefix]bool{}}
		h.primaries[link] = on
		if name, err := linkName(link); err == nil {
			path := "/proc/sys/net/ipv4/conf/" + name + "/promote_secondaries"
			was, err := os.ReadFile(path)
			if err == nil && strings.TrimSpace(string(was)) == "0" && os.WriteFile(path, []byte("1\n"), 0) == nil {
				on.path, on.was = path, string(was)
			}
		}
	}
	on.put[p] = true
}

// forgetPrimary puts promote_secondaries back with the last address that needs it.
func (h *Netlink) forgetPrimary(link int, p netip.Prefix) {
	promoteMu.Lock()
	defer promoteMu.Unlock()
	on := h.primaries[link]
	if on == nil {
		return
	}
	if delete(on.put, p); len(on.put) > 0 {
		return
	}
	delete(h.primaries, link)
	if on.path != "" {
		_ = os.WriteFile(on.path, []byte(on.was), 0)
	}
}

// linkName asks the kernel for the name of a link.
func linkName(link int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("?")
	if err != nil {
		return "", err
	}
	ifr.SetUint32(uint32(link))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// localMACs returns the hardware addresses of all links.
func localMACs(links []Link) []string {
	var macs []string
	for _, l := range links {
		if len(l.MAC) > 0 {
			macs = append(macs, l.MAC.String())
		}
	}
	slices.Sort(macs)
	return macs
}

// findLink returns the link of that name.
func findLink(links []Link, name string) (Link, error) {
	for _, l := range links {
		if l.Name == name {
			return l, nil
		}
	}
	return Link{}, fmt.Errorf("%w: %s; this node has %s", ErrNoLink, name, linkNames(links))
}
