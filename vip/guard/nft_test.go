package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

func openNFTGuard(t testing.TB) (*netNS, *Guard, *nftBackend) {
	t.Helper()
	needKernel(t)
	ns := newNS(t)
	g := open(t, ns, Options{Kind: NFT})
	return ns, g, g.backend.(*nftBackend)
}

func (b *nftBackend) lockedLeft(t testing.TB, group uint32) time.Duration {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	left, err := b.leaseLeft(group)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// nft 1.0.6 aborts on some tables that a program can make. The listing must show
// every part of ours, in words that nft itself accepts.
func TestNFTListing(t *testing.T) {
	ns, g, b := openNFTGuard(t)
	addDevice(t, ns, "eth0")
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
	if err := g.Arm(1, vips); err != nil {
		t.Fatal(err)
	}
	g.SetDeadline(1, boottime.Now()+time.Hour)
	if err := b.writeDirty(); err != nil {
		t.Fatal(err)
	}
	out := run(t, ns, "nft", "list", "ruleset")
	t.Log(out)
	for _, want := range []string{
		vip4.String() + " : jump gate_1", vip6.String() + " : jump gate_1", "@lease_1 return", "hook egress device \"eth0\"", "ip saddr vmap @addr4",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("listing lacks %q", want)
		}
	}
	// What nft lists, nft takes, but for the target of an advertisement (nft 1.0.6).
	var lines []string
	for _, l := range strings.Split(out, "\n") {
		if !strings.Contains(l, "nd-neighbor-advert") {
			lines = append(lines, l)
		}
	}
	if n := strings.Count(out, "\n") + 1 - len(lines); n != 1 {
		t.Errorf("%d rules for advertisements, want 1", n)
	}
	again := newNS(t)
	addDevice(t, again, "eth0")
	cmd := fmt.Sprintf("nft -f - <<'EOF'\n%s\nEOF", strings.Join(lines, "\n"))
	run(t, again, "sh", "-c", cmd)
}

// Adding an element again does not refresh it; the writer must.
func TestNFTRefreshExtends(t *testing.T) {
	_, g, b := openNFTGuard(t)
	if err := g.Arm(1, vips); err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{2 * time.Second, 2 * time.Second, 9 * time.Second, time.Second} {
		d := boottime.Now() + ahead
		g.SetDeadline(1, d)
		if err := b.writeDirty(); err != nil {
			t.Fatal(err)
		}
		left := b.lockedLeft(t, 1)
		if end := boottime.Now() + left; end > d {
			t.Errorf("deadline in %v: kernel ends %v late", ahead, end-d)
		} else if left < ahead-ticketLife-300*time.Millisecond {
			t.Errorf("deadline in %v: kernel ends in %v", ahead, left)
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.SetDeadline(1, 0)
	if err := b.writeDirty(); err != nil {
		t.Fatal(err)
	}
	if left := b.lockedLeft(t, 1); left != 0 {
		t.Errorf("after 0 the lease lasts %v", left)
	}
}

// A writer that is stopped after reading the clock must not set a timeout that is
// too long by the time it was stopped.
func TestNFTStalledWriterIsRefused(t *testing.T) {
	_, g, b := openNFTGuard(t)
	if err := g.Arm(1, vips); err != nil {
		t.Fatal(err)
	}
	b.stopWriter() // The test is the writer.
	stall := ticketLife + 20*time.Millisecond
	b.now = func() time.Duration {
		d := boottime.Now()
		time.Sleep(stall)
		return d
	}
	b.deadlines[1].Store(int64(boottime.Now() + time.Hour))
	b.mu.Lock()
	err := b.openOnce([]uint32{1})
	b.mu.Unlock()
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("stalled write: %v, want ENOENT", err)
	}
	if left := b.lockedLeft(t, 1); left != 0 {
		t.Errorf("stalled write opened for %v", left)
	}
	// One that stalls once succeeds at the second try.
	calls := 0
	b.now = func() time.Duration {
		d := boottime.Now()
		if calls++; calls == 2 {
			time.Sleep(stall)
		}
		return d
	}
	b.touch(1)
	if err := b.writeDirty(); err != nil {
		t.Error(err)
	}
	if left := b.lockedLeft(t, 1); left == 0 {
		t.Error("no lease after a second try")
	}
}

// A deadline set before the first address is armed is not lost.
func TestNFTDeadlineBeforeArm(t *testing.T) {
	_, g, b := openNFTGuard(t)
	start(t, g)
	g.SetDeadline(1, boottime.Now()+time.Hour)
	time.Sleep(20 * time.Millisecond)
	if err := g.Arm(1, vips); err != nil {
		t.Fatal(err)
	}
	eventually(t, "lease", func() bool { return b.lockedLeft(t, 1) > 0 })
}

func TestNFTFlushBetweenArms(t *testing.T) {
	ns, g, b := openNFTGuard(t)
	if err := g.Arm(1, []netip.Addr{vip4}); err != nil {
		t.Fatal(err)
	}
	run(t, ns, "nft", "flush", "ruleset")
	if err := g.Arm(1, []netip.Addr{vip6}); err != nil {
		t.Fatal(err)
	}
	run(t, ns, "nft", "flush", "ruleset")
	g.SetDeadline(1, boottime.Now()+time.Hour)
	if err := b.writeDirty(); err != nil {
		t.Fatal(err)
	}
	run(t, ns, "nft", "flush", "ruleset")
	if err := g.Disarm(1, []netip.Addr{vip4}); err != nil {
		t.Fatal(err)
	}
	if out := run(t, ns, "nft", "list", "ruleset"); !strings.Contains(out, vip6.String()+" :") || strings.Contains(out, vip4.String()+" :") {
		t.Errorf("after three flushes:\n%s", out)
	}
	if n := g.Status().Repairs; n != 3 {
		t.Errorf("repairs %d, want 3", n)
	}
}

// Many addresses and groups go through in pieces.
func TestManyAddresses(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		ns := newNS(t)
		g := open(t, ns, opts)
		stop := start(t, g)
		var all []netip.Addr
		for i := range 1000 {
			all = append(all, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
		}
		begin := time.Now()
		for group := range uint32(40) {
			if err := g.Arm(group, all[group*25:(group+1)*25]); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("armed 1000 addresses in 40 groups in %v", time.Since(begin))
		for group := range uint32(40) {
			g.SetDeadline(group, boottime.Now()+time.Hour)
		}
		if b, ok := g.backend.(*nftBackend); ok {
			eventually(t, "40 leases", func() bool {
				for group := range uint32(40) {
					if b.lockedLeft(t, group) == 0 {
						return false
					}
				}
				return true
			})
		}
		if n := g.Status().Armed; n != 1000 {
			t.Errorf("armed %d", n)
		}
		for group := range uint32(40) {
			if err := g.Disarm(group, all[group*25:(group+1)*25]); err != nil {
				t.Fatal(err)
			}
		}
		begin = time.Now()
		if err := g.Arm(7, all); err != nil {
			t.Fatal(err)
		}
		t.Logf("armed 1000 addresses in one group in %v", time.Since(begin))
		stop()
	})
}

func BenchmarkNFTWriteLease(b *testing.B) {
	_, g, be := openNFTGuard(b)
	if err := g.Arm(1, vips); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.SetDeadline(1, boottime.Now()+time.Hour)
		if err := be.writeDirty(); err != nil {
			b.Fatal(err)
		}
	}
}
