package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/internal/daemon"
	"github.com/raftvip/raftvip/internal/sched"
)

func runCommand(g *globals) *cobra.Command {
	var level, format string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground. SIGTERM and SIGINT release the addresses, hand
over and end; SIGHUP reads the configuration again.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runDaemon(g, level, format) },
	}
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}

// newLogger writes to w, which is the journal or not. The journal knows the time, and
// gets each line's priority.
func newLogger(w io.Writer, journal bool, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{fmt.Errorf("log level %q: must be debug, info, warn or error", level)}
	}
	o := &slog.HandlerOptions{Level: l}
	if journal {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	var handler func(io.Writer) slog.Handler
	switch format {
	case "text":
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, o) }
	case "json":
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, o) }
	default:
		return nil, usageError{fmt.Errorf("log format %q: must be text or json", format)}
	}
	if journal {
		return slog.New(newJournalHandler(w, handler)), nil
	}
	return slog.New(handler(w)), nil
}

func runDaemon(g *globals, level, format string) error {
	log, err := newLogger(os.Stderr, inJournal(os.Stderr, os.Getenv), level, format)
	if err != nil {
		return err
	}
	slog.SetDefault(log) // what libraries print, such as net/http, is logged too
	urgent, err := sched.FromEnv(os.Getenv)
	if err != nil {
		return usageError{err}
	}
	if err := sched.Apply(urgent); err != nil {
		log.Warn("not as urgent as asked for", "error", err)
	}
	// Signals count from now on: a SIGTERM during start must not leave anything.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	d, err := daemon.New(g.settings(), log)
	if err != nil {
		return err
	}
	reloads, stopReloads := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hup:
				bounded, cancel := context.WithTimeout(reloads, 30*time.Second)
				_, _ = d.Reload(bounded, false) // it has logged the result, and status shows it
				cancel()
			case <-reloads.Done():
				return
			}
		}
	}()
	err = d.Run(ctx, func() { log.Info("ready") })
	stopReloads()
	<-done
	return err
}
