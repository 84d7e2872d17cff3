package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/daemon"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

func checkConfigCommand(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "check-config [FILE]",
		Short: "Check a configuration file",
		Long: `Check a configuration file, all of it, and print every problem with file and line,
and the ownership groups: the instances of one always have the same owner.
The exit code is 0 if it can be used, also with warnings, and 1 if not.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := g.settings().ConfigPath
			if len(args) == 1 {
				path = args[0]
			}
			return checkConfig(cmd.OutOrStdout(), g, path)
		},
	}
	g.jsonFlag(c)
	return c
}

// checkResult is what check-config prints with --json.
type checkResult struct {
	File     string   `json:"file"`
	OK       bool     `json:"ok"`
	Errors   []string `json:"errors"`
	Warnings []string `json:"warnings"`
	// Ownership and Groups are who owns what; not in a file that cannot be used.
	Ownership string        `json:"ownership,omitempty"`
	Groups    []place.Group `json:"groups,omitempty"`
}

func checkConfig(w io.Writer, g *globals, path string) error {
	if path == "" {
		path = daemon.DefaultConfigPath
	}
	c, diags := config.Load(path, config.System(config.Options{ConfigID: g.configID}))
	r := checkResult{File: path, OK: c != nil && !config.HasErrors(diags), Errors: []string{}, Warnings: []string{}}
	for _, d := range diags {
		if d.Severity == config.SeverityError {
			r.Errors = append(r.Errors, d.String())
		} else {
			r.Warnings = append(r.Warnings, d.String())
		}
	}
	if r.OK {
		r.Ownership, r.Groups = string(c.Raft.Ownership), place.GroupsOf(c)
	}
	if g.json {
		if err := printJSON(w, r); err != nil {
			return err
		}
	} else {
		for _, d := range diags {
			fmt.Fprintln(w, d)
		}
		fmt.Fprintf(w, "%s: %s, %s\n", path, count(len(r.Errors), "error"), count(len(r.Warnings), "warning"))
		for _, group := range r.Groups {
			fmt.Fprintf(w, "ownership %s: group %s: %s\n", r.Ownership, group.Name, strings.Join(group.Instances, ", "))
		}
		if r.OK {
			if n := len(c.Raft.Peers); n > 0 && operate.SurvivalWarning(n) != "" {
				fmt.Fprintln(w, "warning:", operate.SurvivalWarning(n))
			}
		}
	}
	if !r.OK {
		return quietError{exitError}
	}
	return nil
}

func cleanupCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove the addresses and guards that a dead daemon left",
		Long: `Remove the addresses and guards that a dead daemon left in this network namespace.
If its lease still runs, the addresses are removed when that has ended, since no other
node can take them over earlier. It needs neither a daemon nor a data directory;
addresses that raftvip did not add stay. It does nothing while a daemon runs. The
guard of an address that is still on an interface stays and keeps it silent.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cleanup(cmd, g)
		},
	}
}

func cleanup(cmd *cobra.Command, g *globals) error {
	if err := requireRoot(); err != nil {
		return api.WithHint(err, "run as root")
	}
	if err := noDaemon(cmd.Context(), g); err != nil {
		return err
	}
	s := g.settings()
	dir, pins := s.DataDir, ""
	if c, _, err := s.LoadConfig(); err == nil {
		dir, pins = c.Raft.DataDir, c.Raft.GuardPinDir
	} else if dir == "" {
		dir = daemon.DefaultDataDir
	}
	journal := filepath.Join(dir, daemon.JournalFile)
	host, err := vip.OpenHost()
	if err != nil {
		return err
	}
	defer host.Close()
	left, err := vip.Leftovers(host, journal)
	if err != nil {
		return err
	}
	options := guard.Options{PinDir: pins}
	for _, l := range left {
		options.Leftovers = append(options.Leftovers, l.Prefix.Addr())
	}
	// Whoever runs holds the guard of this network namespace, whatever its socket is.
	// Held here it keeps a daemon from starting meanwhile.
	remains, err := guard.Seize(options)
	if err != nil {
		if errors.Is(err, guard.ErrInUse) {
			err = api.WithHint(fmt.Errorf("a daemon is running in this network namespace: %w", err), "stop it first; it cleans up when it ends")
		}
		return err
	}
	defer remains.Close()
	// No other node can own before the lease has ended. To be silent earlier would only
	// have clients wait.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := remains.Await(ctx, daemon.LongestLease(dir)); err != nil {
		return fmt.Errorf("wait for the dead daemon's lease to end, nothing was removed: %w", err)
	}
	removed, err := vip.RemoveLeftovers(host, journal, nil)
	for _, l := range removed {
		fmt.Fprintf(cmd.OutOrStdout(), "removed %s from %s\n", l.Prefix, l.Link)
	}
	// The guard goes last: until the addresses are gone it keeps them silent.
	if err != nil {
		return api.WithHint(fmt.Errorf("remove addresses: %w", err), "the guard stays and keeps them silent: remove them by hand (ip address del), then run raftvip cleanup again")
	}
	if err := remains.Remove(); err != nil {
		if errors.Is(err, guard.ErrAddressLeft) {
			err = api.WithHint(err, "raftvip did not put it there: remove it (ip address del), run raftvip cleanup again, then it may come back")
		}
		return err
	}
	return nil
}

// noDaemonWait bounds the question whether a daemon runs: one that is frozen takes
// the question and does not answer.
const noDaemonWait = 3 * time.Second

// noDaemon returns an error unless nobody listens on the control socket.
func noDaemon(ctx context.Context, g *globals) error {
	ctx, cancel := context.WithTimeout(ctx, noDaemonWait)
	defer cancel()
	var st api.Status
	err := g.client().Call(ctx, api.PathStatus, struct{}{}, &st)
	switch {
	case err == nil:
		return api.WithHint(fmt.Errorf("a daemon is running here (node %s)", st.Node.Name), "stop it first; it cleans up when it ends")
	case errors.Is(err, api.ErrNoDaemon):
		return nil
	}
	return api.WithHint(fmt.Errorf("a daemon has the control socket but does not answer: %w", err), "end it first, with kill -9 if it is frozen")
}

func versionCommand(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				API     int    `json:"api"`
			}{version, runtime.Version(), api.Version}
			if g.json {
				return printJSON(cmd.OutOrStdout(), v)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "raftvip %s (%s)\n", v.Version, v.Go)
			return nil
		},
	}
	g.jsonFlag(c)
	return c
}
