package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProcSignals(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	for _, sysfs := range []bool{false, true} {
		p, err := l.Node(0).Start(Cmd{Args: []string{"bash", "-c", "trap 'echo bye; exit 3' TERM; ls /sys/class/net; while :; do echo x >> $F; sleep 0.005; done"},
			Env: []string{"F=" + filepath.Join(l.Dir(), fmt.Sprint("ticks", sysfs))}, Sysfs: sysfs})
		if err != nil {
			t.Fatal(err)
		}
		if _, ppid := procStat(p.Pid()); ppid != os.Getpid() {
			t.Errorf("sysfs %v: parent is %d, not this process", sysfs, ppid)
		}
		ticks := func() int64 {
			st, err := os.Stat(filepath.Join(l.Dir(), fmt.Sprint("ticks", sysfs)))
			if err != nil {
				return 0
			}
			return st.Size()
		}
		moves := func(want bool) {
			t.Helper()
			MustWait(t, 5*time.Second, fmt.Sprintf("ticking %v", want), func() error {
				n := ticks()
				time.Sleep(100 * time.Millisecond)
				if got := ticks() > n; got != want {
					return fmt.Errorf("ticking is %v", got)
				}
				return nil
			})
		}
		moves(true)
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		moves(false)
		if _, err := p.Wait(10 * time.Millisecond); !errors.Is(err, ErrStillRunning) {
			t.Errorf("frozen: %v", err)
		}
		if err := p.Cont(); err != nil {
			t.Fatal(err)
		}
		moves(true)
		if err := p.Term(); err != nil {
			t.Fatal(err)
		}
		if code, err := p.Wait(5 * time.Second); code != 3 || err == nil {
			t.Errorf("after TERM: code %d, %v", code, err)
		}
		if out := p.Output(); !strings.Contains(out, "bye") || sysfs && out != "eth0\nlo\nbye\n" {
			t.Errorf("sysfs %v: output %q", sysfs, out)
		}
		if err := p.Kill(); err != nil {
			t.Errorf("signal to a program that has ended: %v", err)
		}
	}
	if _, err := l.Node(0).Start(Cmd{Args: []string{"no-such-program"}}); err == nil {
		t.Error("started what does not exist")
	}
}

func TestProcOwnPIDs(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	named := filepath.Join(l.Dir(), "rvt-named")
	if err := os.Symlink("/bin/sleep", named); err != nil {
		t.Fatal(err)
	}
	sees := func(h *Host) bool {
		p, err := h.Start(Cmd{Args: []string{"pkill", "-0", "rvt-named"}, OwnPIDs: true})
		if err != nil {
			t.Fatal(err)
		}
		code, err := p.Wait(5 * time.Second)
		if code != 0 && code != 1 {
			t.Fatalf("pkill: exit %d, %v: %s", code, err, p.Output())
		}
		return code == 0
	}
	p, err := l.Node(0).Start(Cmd{Args: []string{named, "600"}, OwnPIDs: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, ppid := procStat(p.Pid()); ppid != os.Getpid() {
		t.Errorf("parent is %d, not this process", ppid)
	}
	MustWait(t, 5*time.Second, "the node to see its own process", func() error {
		if !sees(l.Node(0)) {
			return errors.New("not seen")
		}
		return nil
	})
	if sees(l.Node(1)) {
		t.Error("the other node sees it too")
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(5 * time.Second); errors.Is(err, ErrStillRunning) {
		t.Error(err)
	}
	if sees(l.Node(0)) {
		t.Error("seen after its end")
	}
}

func TestThrottle(t *testing.T) {
	l := ForTest(t, Options{Nodes: 1})
	p, err := l.Node(0).Start(Cmd{Args: []string{"bash", "-c", "while :; do :; done"}})
	if err != nil {
		t.Fatal(err)
	}
	used := func() float64 {
		ticks := func() int {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
			f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
			u, _ := strconv.Atoi(f[11])
			s, _ := strconv.Atoi(f[12])
			return u + s
		}
		n := ticks()
		time.Sleep(time.Second)
		return float64(ticks()-n) / 100
	}
	free := used()
	th, err := l.Throttle(0.05, p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	starved := used()
	t.Logf("CPU: free %.2f, throttled to 0.05: %.2f", free, starved)
	if starved > 0.12 { // on a loaded machine free may be little more
		t.Errorf("not throttled")
	}
	if err := th.Set(0.001); err != nil {
		t.Error(err)
	}
	if err := th.Set(0.0001); err == nil {
		t.Error("impossible fraction accepted")
	}
	if err := th.Lift(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(th.dir); !os.IsNotExist(err) {
		t.Errorf("group left behind: %v", err)
	}
}

// TestCrashingProcess is the process that TestSweep kills.
func TestCrashingProcess(t *testing.T) {
	file := os.Getenv("RAFTVIP_TESTNET_CRASH")
	if file == "" {
		t.Skip("only as a child of TestSweep")
	}
	l, err := New(t.Context(), Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Node(0).Start(Cmd{Args: []string{"bash", "-c", "sleep 600 & echo $!; wait"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Throttle(0.5, p.Pid()); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "grandchild", func() error {
		if strings.TrimSpace(p.Output()) == "" {
			return errors.New("nothing printed")
		}
		return nil
	})
	s := fmt.Sprintf("%s %s %d %s", l.prefix, l.dir, p.Pid(), strings.TrimSpace(p.Output()))
	if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

func TestSweep(t *testing.T) {
	Require(t)
	ForTest(t, Options{Nodes: 1}) // one that must survive
	file := filepath.Join(t.TempDir(), "crashed")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCrashingProcess$")
	cmd.Env = append(os.Environ(), "RAFTVIP_TESTNET_CRASH="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("helper did not crash: %s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var prefix, dir string
	var child, grandchild int
	if _, err := fmt.Sscan(string(b), &prefix, &dir, &child, &grandchild); err != nil {
		t.Fatal(err)
	}
	if left := namespacesOf(t, prefix); len(left) == 0 {
		t.Fatal("nothing left to sweep")
	}
	gone := func(pid int) error {
		if s := procState(pid); s != 0 && s != 'Z' {
			return fmt.Errorf("pid %d is in state %c", pid, s)
		}
		return nil
	}
	MustWait(t, 5*time.Second, "child to die with its parent", func() error { return gone(child) })
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	MustWait(t, 5*time.Second, "grandchild to be swept", func() error { return gone(grandchild) })
	if left := namespacesOf(t, prefix); len(left) != 0 {
		t.Errorf("namespaces left: %v", left)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("directory left: %v", err)
	}
	if root, _, err := cpuController(); err == nil {
		if left, _ := filepath.Glob(filepath.Join(root, prefix+"*")); len(left) != 0 {
			t.Errorf("CPU groups left: %v", left)
		}
	}
	if left := namespacesOf(t, fmt.Sprintf("%s%d-", namePrefix, os.Getpid())); len(left) == 0 {
		t.Error("swept the lab of a living process")
	}
}

func TestOrphan(t *testing.T) {
	for name, want := range map[string]bool{
		fmt.Sprintf("rvt-%d-1-n1", os.Getpid()): false,
		"rvt-1-1-n1":                            false,
		"rvt-4194305-1-n1":                      true, // above the largest pid there is
		"rvt--1-n1":                             false,
		"rvt-0-1-n1":                            false,
		"rvt-x-1-n1":                            false,
		"rvt-4194305":                           false,
		"mine":                                  false,
	} {
		if got := orphan(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
