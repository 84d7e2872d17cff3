package check

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that needs root. With RAFTVIP_NETNS set it fails
// instead, so that a machine meant to run such tests cannot skip them unseen.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RAFTVIP_NETNS") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

// await receives from states until one is as wanted.
func await(t *testing.T, states <-chan map[string]bool, what string, ok func(map[string]bool) bool) {
	t.Helper()
	limit := time.After(10 * time.Second)
	var last map[string]bool
	for {
		select {
		case last = <-states:
			if ok(last) {
				return
			}
		case <-limit:
			t.Fatalf("%s: not reported, last state %v", what, last)
		}
	}
}

// TestNetlinkLinks follows real interfaces in a network namespace of its own.
func TestNetlinkLinks(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	states := make(chan map[string]bool, 100)
	commands := make(chan func() error)
	results := make(chan error)
	watch := make(chan error, 1)
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread, which is in the namespace, ends with its goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- err
			return
		}
		self, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			ready <- err
			return
		}
		go func() {
			defer self.Close()
			runtime.LockOSThread()
			if err := unix.Setns(int(self.Fd()), unix.CLONE_NEWNET); err != nil {
				watch <- err
				return
			}
			watch <- NetlinkLinks{}.Watch(ctx, func(up map[string]bool) { states <- up })
		}()
		close(ready)
		for f := range commands {
			results <- f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	defer close(commands)
	do := func(f func() error) {
		t.Helper()
		commands <- f
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	peer := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "v1"}}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}

	await(t, states, "first state", func(up map[string]bool) bool { _, ok := up["lo"]; return ok && !up["lo"] })
	do(func() error { return netlink.LinkAdd(veth) })
	await(t, states, "created", func(up map[string]bool) bool { v, ok := up["v0"]; return ok && !v })
	do(func() error { return netlink.LinkSetUp(veth) })
	do(func() error { return netlink.LinkSetUp(peer) })
	await(t, states, "up", func(up map[string]bool) bool { return up["v0"] && up["v1"] })
	do(func() error { return netlink.LinkSetDown(peer) })
	await(t, states, "no carrier", func(up map[string]bool) bool { return !up["v0"] })
	do(func() error { return netlink.LinkSetUp(peer) })
	await(t, states, "up again", func(up map[string]bool) bool { return up["v0"] })
	do(func() error { return netlink.LinkAdd(bridge) })
	do(func() error { return netlink.LinkSetMaster(veth, bridge) })
	do(func() error { return netlink.LinkSetNoMaster(veth) })
	do(func() error { return netlink.LinkSetDown(peer) })
	await(t, states, "leaving a bridge is not going away", func(up map[string]bool) bool {
		v, ok := up["v0"]
		if !ok {
			t.Fatal("v0 is reported as gone")
		}
		return !v
	})
	do(func() error { return netlink.LinkSetName(veth, "v9") })
	await(t, states, "renamed", func(up map[string]bool) bool { _, o := up["v0"]; _, n := up["v9"]; return !o && n })
	do(func() error { return netlink.LinkDel(veth) })
	await(t, states, "deleted", func(up map[string]bool) bool { _, ok := up["v9"]; return !ok })

	cancel()
	select {
	case err := <-watch:
		if err != nil {
			t.Errorf("Watch: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Watch did not return")
	}
}
