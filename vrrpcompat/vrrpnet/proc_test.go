package vrrpnet

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// A router lives in the network namespace of its process, so the test binary starts
// itself again in a host of the lab, to run routers that the test speaks to through
// a Unix socket.
const envRouters = "VRRPNET_TEST_ROUTERS"

func TestMain(m *testing.M) {
	if os.Getenv(envRouters) != "" {
		if err := routersMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The labs are apart and mostly wait.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// routersConfig is what the process is told.
type routersConfig struct {
	Socket  string
	Routers map[string]routerConfig
}

type routerConfig struct {
	Options Options
	Machine vrrpcompat.MachineConfig
	Expect  vrrpcompat.Expect
	// SinkDelay is how long the Sink takes to shut the gate.
	SinkDelay time.Duration
}

// An order is what the test asks of one router; all it does is answered by the
// state after it.
type order struct {
	Router     string
	Do         string // status, priority, entitle, disentitle, shutdown, startup, fellows, addresses
	Priority   uint8
	Fellow     bool
	HandedOver bool
	Addrs      []netip.Addr
}

// A report is the Status in a form that can be sent, and what the Sink was told.
type report struct {
	Status
	DownText, SendText, Error string
	Drops                     map[string]uint64
	Accepted                  uint64
	Told                      []told
	Renewed                   int
}

// told is one call of Sink.Backup; At is the wall clock when it returned, which is
// what packets are stamped with.
type told struct {
	Reason string
	At     time.Time
}

type testSink struct {
	delay   time.Duration
	mu      sync.Mutex
	told    []told
	renewed int
}

func (s *testSink) Renew(time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed++
}

func (s *testSink) Backup(reason string) {
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, told{reason, time.Now()})
}

type testRouter struct {
	r    *Router
	sink *testSink
}

func routersMain() error {
	var c routersConfig
	if err := json.Unmarshal([]byte(os.Getenv(envRouters)), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	all := map[string]testRouter{}
	var running sync.WaitGroup
	for name, rc := range c.Routers {
		sink := &testSink{delay: rc.SinkDelay}
		r, err := NewRouter(Config{Options: rc.Options, Machine: rc.Machine, Expect: rc.Expect, Sink: sink, Log: log.With("router", name)})
		if err != nil {
			return fmt.Errorf("router %s: %w", name, err)
		}
		all[name] = testRouter{r, sink}
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "run:", err)
			}
		})
	}
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		var o order
		if json.NewDecoder(conn).Decode(&o) == nil {
			_ = json.NewEncoder(conn).Encode(all[o.Router].do(o))
		}
		_ = conn.Close()
	}
	running.Wait()
	return nil
}

func (t testRouter) do(o order) report {
	var out report
	switch o.Do {
	case "priority":
		t.r.SetPriority(o.Priority)
	case "entitle":
		t.r.Entitle(o.Fellow)
	case "disentitle":
		t.r.Disentitle(o.HandedOver)
	case "shutdown":
		t.r.Shutdown()
	case "startup":
		t.r.Startup()
	case "fellows":
		t.r.SetFellows(o.Addrs)
	case "addresses":
		if err := t.r.SetAddresses(o.Addrs); err != nil {
			out.Error = err.Error()
		}
	}
	out.Status = t.r.Status()
	if out.Down != nil {
		out.DownText, out.Down = out.Down.Error(), nil
	}
	if out.SendError != nil {
		out.SendText, out.SendError = out.SendError.Error(), nil
	}
	out.Accepted, out.Drops = out.Received.Accepted(), map[string]uint64{}
	for _, d := range vrrpcompat.Drops() {
		if n := out.Received.Dropped(d); n > 0 {
			out.Drops[d.String()] = n
		}
	}
	t.sink.mu.Lock()
	defer t.sink.mu.Unlock()
	out.Told, out.Renewed = append([]told(nil), t.sink.told...), t.sink.renewed
	return out
}

// routers is the process, seen from the test.
type routers struct {
	t      *testing.T
	proc   *testnet.Proc
	socket string
}

var socketSeq struct {
	sync.Mutex
	n int
}

// startRouters starts a process with these routers in the host.
func startRouters(t *testing.T, l *testnet.Lab, h *testnet.Host, all map[string]routerConfig) *routers {
	t.Helper()
	socketSeq.Lock()
	socketSeq.n++
	c := routersConfig{Socket: filepath.Join(l.Dir(), fmt.Sprintf("routers%d.sock", socketSeq.n)), Routers: all}
	socketSeq.Unlock()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start(testnet.Cmd{Args: []string{"/proc/self/exe"}, Env: []string{envRouters + "=" + string(b)}, Name: "routers"})
	if err != nil {
		t.Fatal(err)
	}
	r := &routers{t: t, proc: p, socket: c.Socket}
	testnet.MustWait(t, 20*time.Second, "routers to start", func() error {
		select {
		case <-p.Done():
			t.Fatalf("routers ended: %s", p.Tail(4000))
		default:
		}
		conn, err := net.Dial("unix", c.Socket)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	return r
}

func (r *routers) ask(o order) (report, error) {
	var out report
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return out, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := json.NewEncoder(c).Encode(o); err != nil {
		return out, err
	}
	return out, json.NewDecoder(c).Decode(&out)
}

// do has one router do something and returns its state.
func (r *routers) do(o order) report {
	r.t.Helper()
	out, err := r.ask(o)
	if err != nil {
		r.t.Fatalf("%s %s: %v", o.Do, o.Router, err)
	}
	return out
}

func (r *routers) status(name string) report {
	r.t.Helper()
	return r.do(order{Router: name, Do: "status"})
}

// wait waits until the router's state satisfies ok, which says why not.
func (r *routers) wait(name, what string, ok func(report) error) report {
	r.t.Helper()
	var last report
	testnet.MustWait(r.t, 20*time.Second, fmt.Sprintf("router %s: %s", name, what), func() error {
		var err error
		if last, err = r.ask(order{Router: name, Do: "status"}); err != nil {
			return err
		}
		return ok(last)
	})
	return last
}

func (r *routers) waitState(name string, s vrrpcompat.State) report {
	r.t.Helper()
	return r.wait(name, "to be "+s.String(), func(p report) error {
		if p.State != s {
			return fmt.Errorf("is %v (%s), down %q", p.State, p.Reason, p.DownText)
		}
		return nil
	})
}

// end ends the process as a service manager does.
func (r *routers) end() {
	r.t.Helper()
	if err := r.proc.Term(); err != nil {
		r.t.Fatal(err)
	}
	if code, err := r.proc.Wait(20 * time.Second); err != nil || code != 0 {
		r.t.Fatalf("routers: exit %d, %v: %s", code, err, r.proc.Tail(4000))
	}
}

// kill ends it without notice.
func (r *routers) kill() {
	r.t.Helper()
	if err := r.proc.Kill(); err != nil {
		r.t.Fatal(err)
	}
	<-r.proc.Done()
}
