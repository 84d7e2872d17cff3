package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Gather looks at this node. What cannot be looked at is said in the facts; the error
// is that the interfaces cannot be listed, without which nothing has a meaning.
func Gather(s Subject) (Facts, error) {
	all, err := listInterfaces(s)
	if err != nil {
		return Facts{}, err
	}
	f := Facts{
		Name: s.Name, Address: s.Address, Witness: s.Witness, Guard: s.Guard, Heartbeat: s.Heartbeat, DataDir: s.DataDir,
		NonlocalBind4: sysctl("ipv4/ip_nonlocal_bind") > 0, NonlocalBind6: sysctl("ipv6/ip_nonlocal_bind") > 0,
		Lacking: lacking(), ClockSource: clockSource(), Sync: synchronized(),
	}
	f.Interfaces, f.Others, f.Missing = s.choose(all)
	f.Services = services(s)
	f.Fsync, err = fsyncTime(s.DataDir)
	if err != nil {
		f.FsyncError = Clean(err.Error())
	}
	rules, err := readRules()
	switch {
	case errors.Is(err, unix.EPERM):
		f.FilterError = "not permitted (CAP_NET_ADMIN)"
	case err != nil:
		f.FilterError = Clean(err.Error())
	default:
		f.Filters = rules.judge(questions(f.Interfaces, s.Local, s.Peers))
	}
	f.LegacyTables = legacyTables()
	return f, nil
}

// Interfaces returns those of this host that matter for a node: those with its own
// address, or with virtual ones.
func Interfaces(s Subject) ([]Interface, error) {
	all, err := listInterfaces(s)
	if err != nil {
		return nil, err
	}
	chosen, _, _ := s.choose(all)
	return chosen, nil
}

// listInterfaces lists all interfaces without the virtual addresses on them.
func listInterfaces(s Subject) ([]Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []Interface
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || CheckInterfaceName(l.Name) != nil {
			continue // it has just gone, or cannot be shown
		}
		i := Interface{
			Name: l.Name, Index: l.Index, MTU: l.MTU,
			Up: l.Flags&net.FlagUp != 0, Running: l.Flags&net.FlagRunning != 0, Multicast: l.Flags&net.FlagMulticast != 0,
			RPFilter: effective("rp_filter", l.Name), ARPIgnore: effective("arp_ignore", l.Name), ARPAnnounce: effective("arp_announce", l.Name),
			ARPFilter: effective("arp_filter", l.Name), AcceptLocal: effective("accept_local", l.Name),
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, _ := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			if ip = ip.Unmap(); ip.IsValid() && !s.isVIP(ip) && len(i.Addresses) < maxAddresses {
				i.Addresses = append(i.Addresses, netip.PrefixFrom(ip, ones))
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// sysctl reads a setting of this network namespace; 0 if there is none.
func sysctl(name string) int {
	b, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// effective is a setting of an interface as the kernel uses it: all those looked at
// here are the greater of the interface's own and that of "all" (ip-sysctl).
func effective(setting, iface string) int {
	return max(sysctl("ipv4/conf/all/"+setting), sysctl("ipv4/conf/"+iface+"/"+setting))
}

// lacking returns the capabilities that raftvip uses and this process has not.
func lacking() []string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	var out []string
	has := func(bit int) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_BPF, "CAP_BPF"}} {
		if !has(c.bit) && !(c.bit == unix.CAP_BPF && has(unix.CAP_SYS_ADMIN)) {
			out = append(out, c.name)
		}
	}
	return out
}

func clockSource() string {
	b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return ""
	}
	return Clean(strings.TrimSpace(string(b)))
}

// synchronized asks the kernel whether somebody keeps its clock right (adjtimex(2)).
// ProtectClock= of a systemd unit forbids asking.
func synchronized() Sync {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		if _, err := os.Stat("/run/systemd/timesync/synchronized"); err == nil {
			return SyncYes
		}
		return SyncUnknown
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return SyncNo
	}
	return SyncYes
}

// services returns who listens on a virtual address alone.
func services(s Subject) []netip.AddrPort {
	var out []netip.AddrPort
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, a := range parseListening(string(b)) {
			if s.isVIP(a.Addr()) && !slices.Contains(out, a) && len(out) < maxTexts/2 {
				out = append(out, a)
			}
		}
	}
	return out
}

// parseProcAddress reads an address of /proc/net/tcp, such as 0100007F:1CBB.
func parseProcAddress(text string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), true
}

const (
	// fsyncs is how many writes are timed: one alone may meet an idle disk.
	fsyncs = 3
	// fsyncPatience bounds the wait for them.
	fsyncPatience = 3 * time.Second
	// fsyncFile is what is written, and removed.
	fsyncFile = ".doctor"
)

// writing is true while a write is timed: one that hangs is not joined by another.
var writing atomic.Bool

// fsyncTime writes a small file to the directory a few times and returns how long the
// slowest took, at most fsyncPatience. A write that takes longer cannot be given up: it
// is left to end by itself, as those of the daemon on that disk are.
func fsyncTime(dir string) (time.Duration, error) {
	type result struct {
		slowest time.Duration
		err     error
	}
	if !writing.CompareAndSwap(false, true) {
		return 0, errors.New("an earlier write has not ended yet")
	}
	done := make(chan result, 1)
	go func() {
		defer writing.Store(false)
		var r result
		r.slowest, r.err = writeFile(filepath.Join(dir, fsyncFile))
		done <- r
	}()
	select {
	case r := <-done:
		return min(r.slowest, fsyncPatience), r.err
	case <-time.After(fsyncPatience):
		return fsyncPatience, nil
	}
}

func writeFile(path string) (slowest time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(path))
	}()
	block := make([]byte, 4096)
	for range fsyncs {
		start := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(start))
	}
	return slowest, nil
}
