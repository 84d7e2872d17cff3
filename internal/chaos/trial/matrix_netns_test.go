package trial

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/internal/testnet"
)

// built is the program, built once per run of the tests, and the bpffs they share.
var built struct {
	once  sync.Once
	dir   string
	path  string
	bpffs *BPFFS
	err   error
}

func setup(t *testing.T) (path, pinDir string) {
	t.Helper()
	testnet.Require(t)
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "raftvip-chaos-"); built.err != nil {
			return
		}
		if built.path, built.err = e2e.Build(context.Background(), built.dir); built.err == nil {
			built.bpffs, built.err = MountBPFFS()
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path, built.bpffs.Dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.bpffs != nil {
		if err := built.bpffs.Close(); err != nil {
			code = max(code, 1)
		}
	}
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func open(t *testing.T, p Product, s Setup) *Rig {
	t.Helper()
	r, err := Open(t.Context(), p, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.Logs(3000))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestFaults is the short form of the fault matrix: the faults that found the
// most, for each guard that silences a dead daemon.
func TestFaults(t *testing.T) {
	// The two one-way cuts take turns, to keep this short.
	for guard, oneWay := range map[string]string{"bpf-tcx": "cut-out", "bpf-clsact": "cut-in", "nft": "cut-out"} {
		t.Run(guard, func(t *testing.T) {
			path, pins := setup(t)
			t.Parallel()
			r := open(t, Raftvip{Binary: path, Guard: guard, PinDir: pins}, Setup{})
			faults, err := Find("kill", "freeze", "isolate", oneWay, "slow-transfer", "clone")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range faults {
				res, err := r.Try(t.Context(), f, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %s -> %s -> %s, gap %v, machine stalled %v, took %v", f.Name, res.From, res.During, res.To, res.Gap, res.Stall, res.Took)
				if !res.OK() {
					t.Errorf("%s: %+v", f.Name, res)
				}
			}
			testnet.MustHoldP1(t, r.Prober)
		})
	}
}

// TestChangeOfHeartbeat changes the heartbeat timeout up and down under the prober: two
// nodes never answer, and somebody always does. A cluster with the slow guard has changed
// it once by itself when it has settled.
func TestChangeOfHeartbeat(t *testing.T) {
	for _, guard := range []string{"bpf-tcx", "lifetime"} {
		t.Run(guard, func(t *testing.T) {
			path, pins := setup(t)
			t.Parallel()
			r := open(t, Raftvip{Binary: path, Guard: guard, PinDir: pins}, Setup{})
			faults, err := Find("retime")
			if err != nil {
				t.Fatal(err)
			}
			res, err := r.Try(t.Context(), faults[0], time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s -> %s, gap %v, machine stalled %v, took %v", res.From, res.To, res.Gap, res.Stall, res.Took)
			if !res.OK() {
				t.Errorf("%+v", res)
			}
			testnet.MustHoldP1(t, r.Prober)
		})
	}
}

// TestMembership changes who the nodes are under the prober: two never answer, and where
// the owner stays there is no gap. The guards take turns, to keep this short.
func TestMembership(t *testing.T) {
	for guard, names := range map[string][]string{
		"bpf-tcx": {"join", "remove-frozen"},
		"nft":     {"replace", "leave", "remove-killed"},
	} {
		t.Run(guard, func(t *testing.T) {
			path, pins := setup(t)
			t.Parallel()
			r := open(t, Raftvip{Binary: path, Guard: guard, PinDir: pins}, Setup{Spare: true})
			faults, err := Find(names...)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range faults {
				res, err := r.Try(t.Context(), f, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %s -> %s -> %s, gap %v, after it %v, machine stalled %v, took %v", f.Name, res.From, res.During, res.To, res.Gap, res.HealGap, res.Stall, res.Took)
				if !res.OK() {
					t.Errorf("%s: %+v", f.Name, res)
				}
				if bound := 10*res.Detection + res.Stall; res.Gap > bound {
					t.Errorf("%s: nobody answered for %v, more than %v", f.Name, res.Gap, bound)
				}
			}
			testnet.MustHoldP1(t, r.Prober)
		})
	}
}

// TestOffOverlaps shows that the tests above can fail: without a guard, a frozen
// owner goes on answering, and the judge sees it.
func TestOffOverlaps(t *testing.T) {
	path, _ := setup(t)
	t.Parallel()
	r := open(t, Raftvip{Binary: path, Guard: "off"}, Setup{})
	owner, err := r.Settle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from := boottime.Now()
	if err := r.System.Freeze(owner); err != nil {
		t.Fatal(err)
	}
	testnet.MustWait(t, 30*time.Second, "two holders to be seen", func() error {
		if testnet.CheckP1(r.Prober.Since(from), testnet.DefaultWindow).Err() == nil {
			return syscall.EAGAIN
		}
		return nil
	})
	if err := r.System.Thaw(owner); err != nil {
		t.Fatal(err)
	}
}
