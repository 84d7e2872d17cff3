package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
)

// The test binary runs itself as a daemon in another process:
//
//	RAFTVIP_GUARD_CHILD=hold|keep|status  KIND PINDIR FILE LEASE
//
// "hold" owns the addresses and renews the lease until it is stopped or killed; it
// notes each deadline in FILE before the guard gets it. "keep" does so with a keeper,
// which puts the addresses on eth0 whenever there is one. "status" opens a guard and
// prints its status.
const childEnv = "RAFTVIP_GUARD_CHILD"

type childArgs struct {
	Kind   Kind
	PinDir string
	File   string
	Lease  time.Duration
	// Leftovers are what "status" tells the guard; it stays as long as Stay.
	Leftovers []netip.Addr
	Stay      time.Duration
}

func childMain() int {
	var args childArgs
	err := json.Unmarshal([]byte(os.Getenv("RAFTVIP_GUARD_ARGS")), &args)
	if err == nil {
		switch os.Getenv(childEnv) {
		case "hold":
			err = childHold(args)
		case "keep":
			err = childKeep(args)
		case "status":
			err = childStatus(args)
		}
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func childStatus(args childArgs) error {
	g, err := Open(Options{Kind: args.Kind, PinDir: args.PinDir, Leftovers: args.Leftovers})
	if err != nil {
		return err
	}
	time.Sleep(args.Stay)
	if err := json.NewEncoder(os.Stdout).Encode(g.Status()); err != nil {
		return err
	}
	if err := g.Close(); !errors.Is(err, ErrAddressLeft) {
		return err
	}
	return nil
}

func childHold(args childArgs) error {
	note, err := sharedDeadline(args.File)
	if err != nil {
		return err
	}
	g, err := Open(Options{Kind: args.Kind, PinDir: args.PinDir})
	if err != nil {
		return err
	}
	go g.Run(context.Background())
	if err := g.Arm(1, vips); err != nil {
		return err
	}
	renew := func() {
		d := boottime.Now() + args.Lease
		note.Store(int64(d))
		g.SetDeadline(1, d)
	}
	renew()
	if err := addVIPs(g.ns); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		time.Sleep(args.Lease / 10)
		renew()
	}
}

func childKeep(args childArgs) error {
	note, err := sharedDeadline(args.File)
	if err != nil {
		return err
	}
	g, err := Open(Options{Kind: args.Kind, PinDir: args.PinDir})
	if err != nil {
		return err
	}
	go g.Run(context.Background())
	host, err := vip.OpenHost()
	if err != nil {
		return err
	}
	gate := vip.NewGate(g, 1, nil)
	k := vip.NewKeeper(vip.KeeperConfig{Host: host, Announcer: vip.NewAnnouncer(), Guard: g, Lifetime: 30 * time.Second})
	h := k.Hold(gate)
	go k.Run(context.Background())
	gate.Open(1)
	w := vip.Wanted{Own: true, Term: 1}
	for _, a := range vips {
		w.Addresses = append(w.Addresses, vip.Address{Prefix: netip.PrefixFrom(a, a.BitLen()), Link: "eth0"})
	}
	h.Set(w)
	for said := false; ; time.Sleep(args.Lease / 10) {
		d := boottime.Now() + args.Lease
		note.Store(int64(d))
		gate.Renew(1, d)
		if !said {
			fmt.Println("ready")
			said = true
		}
	}
}

// sharedDeadline maps a file that holds the latest granted deadline.
func sharedDeadline(file string) (*atomic.Int64, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Int64)(unsafe.Pointer(&b[0])), nil
}

func childCommand(t *testing.T, mode string, args childArgs, wrap ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	argv := append(wrap, self)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+mode, "RAFTVIP_GUARD_ARGS="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// hold starts a child that owns the addresses, and waits until it does.
func hold(t *testing.T, ns *netNS, args childArgs) *exec.Cmd {
	t.Helper()
	return startChild(t, ns, "hold", args)
}

func startChild(t *testing.T, ns *netNS, mode string, args childArgs) *exec.Cmd {
	t.Helper()
	cmd := childCommand(t, mode, args)
	cmd.SysProcAttr = nil // The starting thread may end before the test.
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in(t, ns, cmd.Start)
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	return cmd
}

func processState(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	s := string(b)
	return s[strings.LastIndex(s, ")")+2:][:1]
}

// The promise of this package: an owner that is stopped or killed is silent from the
// deadline on. The other tests are details of it.
func TestFrozenOwnerIsSilent(t *testing.T) {
	trials := 2 // RAFTVIP_GUARD_TRIALS asks for more.
	if n, err := strconv.Atoi(os.Getenv("RAFTVIP_GUARD_TRIALS")); err == nil {
		trials = n
	}
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			forKinds(t, func(t *testing.T, opts Options) {
				for range trials {
					freezeOnce(t, opts, sig)
				}
			})
		})
	}
}

func freezeOnce(t *testing.T, opts Options, sig syscall.Signal) {
	w := newWire(t)
	args := childArgs{Kind: opts.Kind, PinDir: opts.PinDir, File: filepath.Join(t.TempDir(), "deadline"), Lease: 300 * time.Millisecond}
	note, err := sharedDeadline(args.File)
	if err != nil {
		t.Fatal(err)
	}
	child := hold(t, w.node, args)
	p := newProber(t, w, time.Millisecond)
	p.waitAnswered(t)
	if err := child.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	want := map[syscall.Signal]string{syscall.SIGSTOP: "T", syscall.SIGKILL: "Z"}[sig]
	eventually(t, "signal in effect", func() bool { return processState(child.Process.Pid) == want })
	p.checkSilent(t, time.Duration(note.Load()))

	// It fell silent because of the deadline, not before.
	last := [probeKinds]time.Duration{}
	p.mu.Lock()
	for kind := range p.answered {
		if n := len(p.answered[kind]); n > 0 {
			last[kind] = p.answered[kind][n-1] - time.Duration(note.Load())
		}
	}
	p.mu.Unlock()
	t.Logf("last question answered, relative to the deadline: ARP %v, NS %v, ping %v", last[0], last[1], last[2])

	// The next process takes over what is there, still silent, and can leave.
	child.Process.Kill()
	child.Wait()
	since := time.Duration(note.Load())
	g := open(t, w.node, opts)
	if s := g.Status(); s.Inherited != 2 {
		t.Errorf("inherited %d addresses, want 2: %+v", s.Inherited, s)
	}
	p.checkSilent(t, max(since, boottime.Now()-time.Second))
}

// A guard that is thawed must not open again by itself: nothing of it runs on a
// timer.
func TestThawedOwnerStaysSilent(t *testing.T) {
	forKinds(t, func(t *testing.T, opts Options) {
		w := newWire(t)
		g := open(t, w.node, opts)
		start(t, g)
		if err := g.Arm(1, vips); err != nil {
			t.Fatal(err)
		}
		d := boottime.Now() + 300*time.Millisecond
		g.SetDeadline(1, d)
		if err := addVIPs(w.node); err != nil {
			t.Fatal(err)
		}
		p := newProber(t, w, time.Millisecond)
		p.waitAnswered(t)
		p.checkSilent(t, d)
		g.SetDeadline(1, boottime.Now()-time.Millisecond) // What a thawed daemon stores.
		p.checkSilent(t, d)
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		p.checkSilent(t, d)
		g.SetDeadline(1, boottime.Now()+time.Hour)
		p.waitAnswered(t)
	})
}

// status runs a child under a wrapper command and returns the status it prints.
func statusUnder(t *testing.T, ns *netNS, args childArgs, wrap ...string) Status {
	t.Helper()
	var out []byte
	in(t, ns, func() error {
		var err error
		out, err = childCommand(t, "status", args, wrap...).CombinedOutput()
		if err != nil {
			t.Fatalf("child: %v: %s", err, out)
		}
		return nil
	})
	var s Status
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	return s
}

// In a time namespace the eBPF gate would never shut. nftables counts relatively.
func TestTimeNamespace(t *testing.T) {
	needKernel(t)
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Fatal("no unshare: make setup")
	}
	for _, offset := range []string{"1000", "-10"} {
		s := statusUnder(t, newNS(t), childArgs{PinDir: newBPFFS(t)}, "unshare", "--time", "--boottime", offset, "--")
		if s.Kind != NFT || len(s.Refused) != 2 || !strings.Contains(s.Refused[0].Reason, "time namespace") {
			t.Errorf("offset %s: %+v", offset, s)
		}
	}
}

// A rootless container may not use bpf(2), but nftables.
func TestUserNamespace(t *testing.T) {
	needKernel(t)
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Fatal("no unshare: make setup")
	}
	s := statusUnder(t, newNS(t), childArgs{PinDir: newBPFFS(t)}, "unshare", "--user", "--map-root-user", "--net", "--")
	if s.Kind != NFT || len(s.Refused) != 2 || !strings.Contains(s.Refused[1].Reason, "not permitted") {
		t.Errorf("user namespace: %+v", s)
	}
	t.Logf("refused: %+v", s.Refused)
}

// Without any privilege the lifetime of addresses is all that is left, and the
// status says why.
func TestNoPrivilege(t *testing.T) {
	needKernel(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal("no setpriv: make setup")
	}
	s := statusUnder(t, newNS(t), childArgs{PinDir: newBPFFS(t)}, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
	if s.Kind != Lifetime || len(s.Refused) != 3 || s.Lateness < 2*time.Second || s.AddressLifetime != 2*time.Second {
		t.Errorf("no privilege: %+v", s)
	}
	t.Logf("refused: %+v", s.Refused)
}
