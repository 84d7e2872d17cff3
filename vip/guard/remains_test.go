package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// own opens a guard that owns the addresses, which are on the node's eth0, for a
// lease from now.
func own(t *testing.T, w *wire, opts Options, lease time.Duration) (*Guard, time.Duration) {
	t.Helper()
	g, err := tryOpen(w.node, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Arm(1, vips); err != nil {
		t.Fatal(err)
	}
	if err := addVIPs(w.node); err != nil {
		t.Fatal(err)
	}
	until := boottime.Now() + lease
	g.SetDeadline(1, until)
	return g, until
}

// Whoever closes a guard, or cleans up, while an armed address is still on an
// interface leaves it in place, shut, until the address is gone.
func TestGuardOutlivesItsProcess(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g, _ := own(t, w, opts, time.Hour)
		p := newProber(t, w, time.Millisecond)
		p.waitAnswered(t)

		if err := g.Close(); !errors.Is(err, ErrAddressLeft) || !strings.Contains(err.Error(), vip4.String()) {
			t.Errorf("close with addresses on the interface: %v, want ErrAddressLeft", err)
		}
		shut := boottime.Now()
		p.checkSilent(t, shut)

		clean := func() (err error) {
			in(t, w.node, func() error { err = Cleanup(Options{PinDir: opts.PinDir}); return nil })
			return err
		}
		if err := clean(); !errors.Is(err, ErrAddressLeft) {
			t.Errorf("cleanup with addresses on the interface: %v, want ErrAddressLeft", err)
		}
		p.checkSilent(t, shut)

		// A process that comes and goes, and gets rid of nothing, changes nothing.
		for _, kind := range []Kind{opts.Kind, Lifetime, Off} {
			again, err := tryOpen(w.node, Options{Kind: kind, PinDir: opts.PinDir})
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Check(); err != nil {
				t.Errorf("%s: check: %v", kind, err)
			}
			if err := again.Close(); !errors.Is(err, ErrAddressLeft) {
				t.Errorf("%s: close: %v, want ErrAddressLeft", kind, err)
			}
		}
		p.checkSilent(t, shut)

		delVIPs(t, w.node)
		if err := clean(); err != nil {
			t.Errorf("cleanup when the addresses are gone: %v", err)
		}
		if left := leftovers(t, w.node, opts.PinDir); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

// A process that cannot open any guard leaves that of the dead one in force.
func TestFailedOpenKeepsShut(t *testing.T) {
	spoil := map[Kind]func(t *testing.T, w *wire, opts *Options){
		BPFTCX: func(t *testing.T, w *wire, opts *Options) {
			addDevice(t, w.node, "extra0")
			pin := filepath.Join(opts.PinDir, instanceDir(defaultInstance, w.node.inode), fmt.Sprintf("link_%d_out", indexOf(t, w.node, "extra0")))
			if err := os.MkdirAll(filepath.Join(pin, "in-the-way"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		BPFClsact: func(t *testing.T, w *wire, _ *Options) {
			addDevice(t, w.node, "extra0")
			run(t, w.node, "tc", "qdisc", "add", "dev", "extra0", "ingress")
		},
		NFT: func(_ *testing.T, _ *wire, opts *Options) {
			var calls atomic.Int64 // A clock that runs away: no lease passes the test.
			opts.Now = func() time.Duration { return boottime.Now() + time.Duration(calls.Add(1))*time.Hour }
		},
	}
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g, _ := own(t, w, opts, 0)
		p := newProber(t, w, time.Millisecond)
		shut := boottime.Now()
		crash(t, g)
		bad := opts
		spoil[opts.Kind](t, w, &bad)
		if g, err := tryOpen(w.node, bad); err == nil {
			g.Close()
			t.Fatal("it opened: this test proves nothing")
		}
		p.checkSilent(t, shut)
		// And it is found by who has no such trouble, and by one that attaches nothing.
		bad.Kind = Auto
		bad.Now = nil
		again := open(t, w.node, bad)
		if n := again.Status().Inherited; n != 2 {
			t.Errorf("%d addresses inherited by %s, want 2", n, again.Kind())
		}
		p.checkSilent(t, shut)
	})
}

// Await returns when the lease of the dead process has ended, until which its
// addresses are answered, and not at once or much later.
func TestAwait(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		p := newProber(t, w, time.Millisecond)
		g, until := own(t, w, opts, 1500*time.Millisecond)
		g.Settle(1)
		p.waitAnswered(t)
		crash(t, g)
		var left, capped time.Duration
		in(t, w.node, func() error {
			r, err := Seize(Options{PinDir: opts.PinDir})
			if err != nil {
				return err
			}
			defer r.Close()
			if _, err := Seize(Options{}); !errors.Is(err, ErrInUse) {
				t.Errorf("seized twice: %v", err)
			}
			if _, err := Open(Options{Kind: Off}); !errors.Is(err, ErrInUse) {
				t.Errorf("opened what is seized: %v", err)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if err := r.Await(ended, time.Hour); !errors.Is(err, context.Canceled) {
				t.Errorf("await with an ended context: %v", err)
			}
			began := boottime.Now()
			if err := r.Await(t.Context(), 20*time.Millisecond); err != nil {
				return err
			}
			capped = boottime.Now() - began
			if err := r.Await(t.Context(), time.Hour); err != nil {
				return err
			}
			left = until - boottime.Now()
			return r.Await(t.Context(), time.Hour) // the lease is over
		})
		if capped < 20*time.Millisecond || until-left < until-time.Second {
			t.Errorf("bounded to 20 ms it waited %v", capped)
		}
		if left > 100*time.Millisecond {
			t.Errorf("it returned %v before the lease had ended", left)
		}
		answered := p.answersSince(until - 300*time.Millisecond)
		for kind, n := range answered {
			if n == 0 {
				t.Errorf("no %s probe was answered in the last part of the lease", probeNames[kind])
			}
		}
		p.checkSilent(t, until)
	})
}

// Where the lifetime is the only guard, Await waits until the address has gone.
func TestAwaitLifetime(t *testing.T) {
	needKernel(t)
	w := newWire(t)
	run(t, w.node, "ip", "address", "add", vip4.String()+"/32", "dev", "eth0", "valid_lft", "1", "preferred_lft", "1")
	run(t, w.node, "ip", "address", "add", "10.0.9.9/32", "dev", "eth0", "valid_lft", "300", "preferred_lft", "300")
	in(t, w.node, func() error {
		r, err := Seize(Options{Leftovers: vips[:1]})
		if err != nil {
			return err
		}
		defer r.Close()
		return r.Await(t.Context(), time.Hour)
	})
	if out := run(t, w.node, "ip", "address", "show"); strings.Contains(out, vip4.String()) {
		t.Errorf("still there:\n%s", out)
	}
}

// Filters are taken over without a gap by a process that may not look behind them, as
// under the shipped unit: by the notes in a bpffs, else by what it is told of.
func TestAdoptFiltersWithoutRights(t *testing.T) {
	needKernel(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal("no setpriv: make setup")
	}
	for name, noted := range map[string]bool{"noted": true, "told": false} {
		t.Run(name, func(t *testing.T) {
			pins := newBPFFS(t)
			w := newWire(t)
			g, _ := own(t, w, Options{Kind: BPFClsact, PinDir: pins}, 0)
			p := newProber(t, w, time.Millisecond)
			shut := boottime.Now()
			crash(t, g)
			args := childArgs{Kind: BPFClsact, PinDir: pins, Stay: 300 * time.Millisecond}
			if !noted {
				args.Leftovers = vips
				if err := os.RemoveAll(filepath.Join(pins, instanceDir(defaultInstance, w.node.inode))); err != nil {
					t.Fatal(err)
				}
			}
			s := statusUnder(t, w.node, args, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
			if s.Inherited != 2 || s.Kind != BPFClsact {
				t.Errorf("%d addresses inherited by %s, want 2: %v", s.Inherited, s.Kind, s.Warnings)
			}
			p.checkSilent(t, shut)
		})
	}
}

// Settle returns when the kernel is shut, however long others have the lock of
// nftables, and no later than the lease would have ended by itself.
func TestSettleUnderLockWait(t *testing.T) {
	needKernel(t)
	w := newWire(t)
	g, _ := own(t, w, Options{Kind: NFT}, time.Hour)
	defer g.Close()
	var rules strings.Builder
	rules.WriteString("table inet busy {\n set s { type ipv4_addr; flags interval; elements = { ")
	for i := range 60000 {
		fmt.Fprintf(&rules, "10.%d.%d.%d,", i>>15&255, i>>7&255, i<<1&255)
	}
	rules.WriteString(" } }\n}\n")
	file := filepath.Join(t.TempDir(), "busy.nft")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProber(t, w, time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	busy := make(chan error, 1)
	go func() {
		busy <- w.node.do(func() error {
			for ctx.Err() == nil {
				if err := exec.Command("nft", "-f", file).Run(); err != nil {
					return err
				}
				if err := exec.Command("nft", "delete", "table", "inet", "busy").Run(); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	var longest time.Duration
	for range 30 {
		g.SetDeadline(1, boottime.Now()+2*time.Second)
		p.waitAnswered(t)
		began := boottime.Now()
		g.SetDeadline(1, 0)
		g.Settle(1)
		shut := boottime.Now()
		longest = max(longest, shut-began)
		time.Sleep(20 * time.Millisecond)
		if n := p.answersSince(shut); n != [probeKinds]int{} {
			t.Fatalf("after Settle, which took %v, questions were answered: %v", shut-began, n)
		}
	}
	t.Logf("longest wait for the kernel: %v", longest)
	stop()
	if err := <-busy; err != nil {
		t.Errorf("keep nftables busy: %v", err)
	}
	// With nftables out of reach the end of the lease is the bound.
	b := g.backend.(*nftBackend)
	b.mu.Lock()
	until := boottime.Now() + 300*time.Millisecond
	for i := range b.latest {
		b.latest[i].Store(0)
	}
	g.SetDeadline(1, until)
	g.SetDeadline(1, 0)
	g.Settle(1)
	if now := boottime.Now(); now < until || now > until+2*time.Second {
		t.Errorf("bounded by the lease, it returned %v after its end", now-until)
	}
	b.mu.Unlock()
	delVIPs(t, w.node)
}

// Any user may bind the names of the lock; only root's count.
func TestLockIsRoots(t *testing.T) {
	needKernel(t)
	ns := newNS(t)
	bind := func(uid int, name string) (fd int) {
		t.Helper()
		ready := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // Never unlocked: the thread's user is another one.
			ready <- func() error {
				if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
					return err
				}
				// The thread alone: the wrappers of the library change all of them.
				if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
					return errno
				}
				var err error
				if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
			}()
		}()
		if err := <-ready; err != nil {
			t.Fatalf("bind %s as user %d: %v", name, uid, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	bind(65534, lockPrefix+defaultInstance)
	bind(65534, lockPrefix+defaultInstance+"/squatter")
	g, err := tryOpen(ns, Options{Kind: Off})
	if err != nil {
		t.Fatalf("a user without rights keeps the daemon from starting: %v", err)
	}
	in(t, ns, func() error {
		if _, err := Open(Options{Kind: Off}); !errors.Is(err, ErrInUse) {
			t.Errorf("opened twice: %v", err)
		}
		if err := Cleanup(Options{Instance: "another"}); err != nil {
			t.Errorf("another instance: %v", err)
		}
		return nil
	})
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	fd := bind(0, lockPrefix+defaultInstance+"/0")
	if _, err := tryOpen(ns, Options{Kind: Off}); !errors.Is(err, ErrInUse) {
		t.Errorf("held by another process of root: %v, want ErrInUse", err)
	}
	unix.Close(fd)
}

// Of processes that begin at once one at most has the instance.
func TestLockRace(t *testing.T) {
	needKernel(t)
	ns := newNS(t)
	var have, won atomic.Int32
	done := make(chan error)
	const n = 8
	for range n {
		go func() {
			for range 20 {
				fd, err := lockInstance(ns, defaultInstance)
				if err == nil {
					won.Add(1)
					if have.Add(1) > 1 {
						err = errors.New("two have the lock")
					}
					time.Sleep(time.Millisecond)
					have.Add(-1)
					unix.Close(fd)
				}
				if err != nil && !errors.Is(err, ErrInUse) {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("taken %d times", won.Load())
}

func TestHolds(t *testing.T) {
	const name, mine = "@raftvip-guard/x", "@raftvip-guard/x/mine"
	for _, tt := range []struct {
		what string
		s    unixSocket
		want bool
	}{
		{"one's own", unixSocket{name: mine, known: true}, false},
		{"root's", unixSocket{name: name + "/other", known: true}, true},
		{"root's of an earlier version", unixSocket{name: name, known: true}, true},
		{"of the same user", unixSocket{name: name + "/other", uid: 7, known: true}, true},
		{"of another user", unixSocket{name: name + "/other", uid: 8, known: true}, false},
		{"another user's with the plain name", unixSocket{name: name, uid: 8, known: true}, false},
		{"whose, is not told", unixSocket{name: name + "/other"}, true},
		{"root's of another instance", unixSocket{name: name + "y/other", known: true}, false},
		{"something else of root", unixSocket{name: "@other", known: true}, false},
	} {
		if got := holds([]unixSocket{tt.s}, name, mine, 7); got != tt.want {
			t.Errorf("%s: held %v, want %v", tt.what, got, tt.want)
		}
	}
}
