// Command demo shows what raftvip is for, in less than a minute and on one
// machine: three nodes in network namespaces joined by a bridge, three real
// daemons founded by the real commands, and a client that asks the virtual address
// for an answer every millisecond. It kills the owner, moves the address, and says
// how long the client was without an answer.
//
//	sudo make demo           # or: go run ./internal/demo
//	sudo make demo KEEP=1    # leaves the cluster up to look around
//
// The exit code is 0 only if everything it tells of has happened.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/raftvip/raftvip/internal/e2e"
	"github.com/raftvip/raftvip/internal/testnet"
)

// patience bounds the whole demonstration; it takes some ten seconds.
const patience = 90 * time.Second

func main() { os.Exit(run()) }

func run() int {
	if os.Geteuid() != 0 {
		return failed(errors.New("the demonstration makes network namespaces and needs root"), "sudo make demo")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	switch {
	case os.Getenv("KEEP") == "" || os.Getenv("KEEP") == "0":
		if err := demonstrate(ctx, nil); err != nil {
			return failed(err, "")
		}
		return 0
	case os.Getenv(envKeeper) == "":
		return runKeeper(ctx)
	}
	syscall.CloseOnExec(keeperPipe)
	if err := demonstrate(ctx, keep); err != nil {
		return failed(err, "")
	}
	return 0
}

func failed(err error, hint string) int {
	fmt.Fprintln(os.Stderr, "error:", err)
	if hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	return 1
}

// demonstrate builds everything, shows it and removes it. after is called at the
// end with everything still there.
func demonstrate(ctx context.Context, after func(context.Context, *e2e.Cluster)) (err error) {
	showing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	started := time.Now()
	say("raftvip demonstration: three nodes, one virtual address, and a client that")
	say("asks the address for an answer every millisecond\n")

	lab, err := testnet.New(showing, testnet.Options{Nodes: 3})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := lab.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		} else if after == nil {
			say("\nEverything is removed again. It took %.0f s.", time.Since(started).Seconds())
		}
	}()
	say("  building raftvip ...")
	binary, err := e2e.Build(showing, lab.Dir())
	if err != nil {
		return err
	}
	s := &show{Cluster: e2e.New(lab, binary), vip: lab.VIP4(100)}
	if err := s.play(showing); err != nil {
		s.blame()
		return err
	}
	if after != nil {
		after(ctx, s.Cluster)
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
