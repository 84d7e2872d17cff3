package guard

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	vip4 = netip.MustParseAddr("10.0.255.1")
	vip6 = netip.MustParseAddr("fd00::ff:1")
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}

// needKernel skips a privileged test unless it was asked for, and fails one that
// was asked for and cannot run.
func needKernel(t testing.TB) {
	t.Helper()
	if os.Getenv("RAFTVIP_NETNS") != "1" {
		t.Skip("set RAFTVIP_NETNS=1 to run as root in network namespaces")
	}
	if os.Geteuid() != 0 {
		t.Fatal("RAFTVIP_NETNS=1 needs root")
	}
}

// newNS makes a network namespace with its loopback up.
func newNS(t testing.TB) *netNS {
	t.Helper()
	type result struct {
		ns  *netNS
		err error
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ch <- result{nil, err}
			return
		}
		ns, err := currentNetNS()
		ch <- result{ns, err}
	}()
	r := <-ch
	if r.err != nil {
		t.Fatalf("make network namespace: %v", r.err)
	}
	t.Cleanup(r.ns.close)
	in(t, r.ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return r.ns
}

// in calls fn in the namespace.
func in(t testing.TB, ns *netNS, fn func() error) {
	t.Helper()
	if err := ns.do(fn); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in the namespace and returns its output.
func run(t testing.TB, ns *netNS, name string, args ...string) string {
	t.Helper()
	var out []byte
	in(t, ns, func() error {
		var err error
		out, err = exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Logf("%s %v: %s", name, args, out)
		}
		return err
	})
	return string(out)
}

// A wire is a veth pair between a node and a probe.
type wire struct {
	node, probe *netNS
	nodeMAC     net.HardwareAddr
	probeMAC    net.HardwareAddr
	ifindex     int // of the node's eth0
}

// newWire makes node (eth0, 10.0.0.1, fd00::1) and probe (p0, 10.0.0.2, fd00::2).
func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{node: newNS(t), probe: newNS(t)}
	in(t, w.node, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "eth0"},
			PeerName:      "p0",
			PeerNamespace: netlink.NsFd(w.probe.file.Fd()),
		})
	})
	setup := func(ns *netNS, name string, addrs ...string) net.HardwareAddr {
		var mac net.HardwareAddr
		in(t, ns, func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			mac = l.Attrs().HardwareAddr
			for _, a := range addrs {
				p, _ := netlink.ParseAddr(a)
				p.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(l, p); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(l)
		})
		return mac
	}
	w.probeMAC = setup(w.probe, "p0", "10.0.0.2/16", "fd00::2/64")
	w.nodeMAC = setup(w.node, "eth0", "10.0.0.1/16", "fd00::1/64")
	in(t, w.node, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		w.ifindex = l.Attrs().Index
		for _, ip := range []string{"10.0.0.2", "fd00::2"} {
			n := &netlink.Neigh{LinkIndex: w.ifindex, State: netlink.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: w.probeMAC}
			if err := netlink.NeighSet(n); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

// addDevice makes an Ethernet device.
func addDevice(t testing.TB, ns *netNS, name string) {
	t.Helper()
	in(t, ns, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
	})
}

// addVIPs puts both addresses on the node's eth0.
func addVIPs(ns *netNS) error {
	return ns.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{vip4, vip6} {
			p := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrReplace(l, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// newBPFFS mounts a bpffs of the test's own.
func newBPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// open opens a guard in the namespace and closes it at the end of the test, when
// addresses may still be there: the namespace ends.
func open(t testing.TB, ns *netNS, opts Options) *Guard {
	t.Helper()
	g, err := tryOpen(ns, opts)
	if err != nil {
		t.Fatalf("open %s: %v", opts.Kind, err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil && !errors.Is(err, ErrAddressLeft) {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

func tryOpen(ns *netNS, opts Options) (g *Guard, err error) {
	nsErr := ns.do(func() error {
		g, err = Open(opts)
		return nil
	})
	if nsErr != nil {
		return nil, nsErr
	}
	return g, err
}

// start runs the guard until the test ends or the returned function is called.
func start(t testing.TB, g *Guard) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits for cond; the bound is generous as the machine may be busy.
func eventually(t testing.TB, what string, cond func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > 15*time.Second {
			t.Fatalf("%s: not within %v", what, time.Since(begin))
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}

// kernelKinds are the packet guards with the options that make them.
func kernelKinds(t testing.TB) map[Kind]Options {
	t.Helper()
	return map[Kind]Options{
		BPFTCX:    {Kind: BPFTCX, PinDir: newBPFFS(t)},
		BPFClsact: {Kind: BPFClsact},
		NFT:       {Kind: NFT},
	}
}

// forKinds runs the test for every packet guard.
func forKinds(t *testing.T, fn func(t *testing.T, opts Options)) {
	needKernel(t)
	for _, k := range []Kind{BPFTCX, BPFClsact, NFT} {
		t.Run(string(k), func(t *testing.T) { fn(t, kernelKinds(t)[k]) })
	}
}

// leftovers describes what of raftvip is in the namespace and the bpffs.
func leftovers(t testing.TB, ns *netNS, pinDir string) string {
	t.Helper()
	var found []string
	in(t, ns, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			for _, args := range [][]string{{"qdisc", "show", "dev", l.Attrs().Name}, {"filter", "show", "dev", l.Attrs().Name, "ingress"}, {"filter", "show", "dev", l.Attrs().Name, "egress"}} {
				out, _ := exec.Command("tc", args...).CombinedOutput()
				if s := string(out); strings.Contains(s, "clsact") || strings.Contains(s, "raftvip") {
					found = append(found, l.Attrs().Name+": "+s)
				}
			}
			for _, dir := range []direction{ingress, egress} {
				if n := tcxCount(t, l.Attrs().Index, dir); n > 0 {
					found = append(found, l.Attrs().Name+": tcx "+dir.String())
				}
			}
		}
		return nil
	})
	if out := run(t, ns, "nft", "list", "ruleset"); strings.Contains(out, "raftvip") {
		found = append(found, out)
	}
	if pinDir != "" {
		entries, err := os.ReadDir(pinDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".debug") { // The kernel's own.
				found = append(found, "pin "+e.Name())
			}
		}
	}
	return strings.Join(found, "\n")
}
