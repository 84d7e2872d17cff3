//go:build linux

package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests on a real kernel run in a network namespace of their own: with
// RAFTVIP_NETNS=1 the test binary starts itself again in a new one, so that every
// goroutine is in it and the machine's own interfaces are out of reach.
func TestMain(m *testing.M) {
	if os.Getenv("RAFTVIP_NETNS") != "1" || os.Getenv("RAFTVIP_NETNS_INSIDE") != "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "RAFTVIP_NETNS=1 needs root")
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "RAFTVIP_NETNS_INSIDE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "start in a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A lab is a link v0 of this namespace, 10.0.0.1/24 and fd00::1/64, whose other end
// p0, 10.0.0.2/24 and fd00::2/64, is in a namespace of the lab's.
type lab struct {
	t    testing.TB
	peer netns.NsHandle
	host *vip.Netlink

	closers []func()
	closed  bool
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getenv("RAFTVIP_NETNS_INSIDE") == "" {
		t.Skip("needs root and RAFTVIP_NETNS=1")
	}
	l := &lab{t: t}
	l.inNew(func() {})
	l.must(netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo"}}))
	l.veth()
	var err error
	l.host, err = vip.OpenHost()
	l.must(err)
	t.Cleanup(l.close)
	return l
}

// atClose has f called before the link and the namespaces go, the last first.
func (l *lab) atClose(f func()) { l.closers = append(l.closers, f) }

// close undoes newLab; a second call does nothing.
func (l *lab) close() {
	if l.closed {
		return
	}
	l.closed = true
	for _, f := range slices.Backward(l.closers) {
		f()
	}
	l.host.Close()
	if link, err := netlink.LinkByName("v0"); err == nil {
		l.must(netlink.LinkDel(link))
	}
	_ = l.peer.Close()
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// inNew makes the peer namespace and calls f in it.
func (l *lab) inNew(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	l.must(err)
	defer func() { _ = here.Close() }()
	l.peer, err = netns.New()
	l.must(err)
	defer func() { l.must(netns.Set(here)) }()
	f()
}

// atPeer calls f on a thread in the peer's namespace.
func (l *lab) atPeer(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	l.must(err)
	defer func() { _ = here.Close() }()
	l.must(netns.Set(l.peer))
	defer func() { l.must(netns.Set(here)) }()
	f()
}

func (l *lab) veth() {
	l.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "p0", PeerNamespace: netlink.NsFd(l.peer)}))
	l.ip("addr add 10.0.0.1/24 dev v0")
	l.ip("addr add fd00::1/64 dev v0 nodad")
	l.ip("link set v0 up")
	l.atPeer(func() {
		l.ip("addr add 10.0.0.2/24 dev p0")
		l.ip("addr add fd00::2/64 dev p0 nodad")
		l.ip("link set p0 up")
	})
	runs := func(name string) func() bool {
		return func() bool {
			link, err := netlink.LinkByName(name)
			return err == nil && link.Attrs().OperState == netlink.OperUp
		}
	}
	l.eventually("v0 runs", runs("v0"))
	l.atPeer(func() { l.eventually("p0 runs", runs("p0")) })
}

// ip runs ip(8) in the namespace of the calling thread.
func (l *lab) ip(args string) string {
	l.t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

func (l *lab) eventually(what string, ok func() bool) time.Duration {
	l.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > 5*time.Second {
			l.t.Fatalf("not within 5 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// keeper runs a Keeper on the real kernel, and returns a Holding of it with an open gate.
func (l *lab) keeper(lifetime time.Duration, tune ...func(*vip.KeeperConfig)) (*vip.Holding, *vip.Gate) {
	l.t.Helper()
	ann := vip.NewAnnouncer()
	l.must(ann.Prepare())
	cfg := vip.KeeperConfig{Host: l.host, Announcer: ann, Lifetime: lifetime}
	for _, f := range tune {
		f(&cfg)
	}
	gate := vip.NewGate(cfg.Guard, 1, nil)
	k := vip.NewKeeper(cfg)
	h := k.Hold(gate)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	l.atClose(func() {
		if l.t.Failed() {
			l.t.Logf("at the end: %+v", k.Status())
		}
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
		if err := ann.Close(); err != nil {
			l.t.Error(err)
		}
	})
	gate.Open(1)
	gate.Renew(1, boottime.Now()+time.Hour)
	return h, gate
}

// v0 returns addresses on v0.
func v0(prefixes ...string) []vip.Address {
	var addrs []vip.Address
	for _, p := range prefixes {
		a := addr(p)
		a.Link = "v0"
		addrs = append(addrs, a)
	}
	return addrs
}

// has reports whether the address is on the link, as ip(8) shows it.
func (l *lab) has(link, prefix string) bool {
	_, ok := l.address(link, prefix)
	return ok
}

func (l *lab) address(link, prefix string) (netlink.Addr, bool) {
	nl, err := netlink.LinkByName(link)
	if err != nil {
		return netlink.Addr{}, false
	}
	addrs, err := netlink.AddrList(nl, netlink.FAMILY_ALL)
	l.must(err)
	for _, a := range addrs {
		if a.IPNet.String() == prefix {
			return a, true
		}
	}
	return netlink.Addr{}, false
}

// A sniffer collects the frames that arrive at p0.
type sniffer struct {
	mu     sync.Mutex
	frames [][]byte
	at     []time.Time
}

func (l *lab) sniff() *sniffer {
	var f *os.File
	l.atPeer(func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		l.must(err)
		l.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		f = os.NewFile(uintptr(fd), "packet")
	})
	s := &sniffer{}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.frames = append(s.frames, append([]byte(nil), buf[:n]...))
			s.at = append(s.at, time.Now())
			s.mu.Unlock()
		}
	})
	l.t.Cleanup(func() {
		_ = f.Close()
		wg.Wait()
	})
	return s
}

// announcements returns the frames that claim ip and when they came.
func (s *sniffer) announcements(ip string) (frames [][]byte, at []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := net.ParseIP(ip)
	for i, f := range s.frames {
		isARP := len(f) >= 42 && f[12] == 8 && f[13] == 6 && want.Equal(net.IP(f[28:32]))
		isNA := len(f) >= 78 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 58 && f[54] == 136 && want.Equal(net.IP(f[62:78]))
		if isARP || isNA {
			frames = append(frames, f)
			at = append(at, s.at[i])
		}
	}
	return frames, at
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
