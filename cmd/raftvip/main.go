// Command raftvip keeps virtual IP addresses alive where multicast does not work:
// the daemon (raftvip run) and the commands to operate it.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/daemon"
	"github.com/raftvip/raftvip/internal/printable"
)

// Exit codes, as documented in docs/commands.md.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitNoDaemon = 3
	exitNoQuorum = 4
	// Of status, the worst first; see exitOf.
	exitNobody  = 5
	exitUnknown = 6
	exitStray   = 7
	exitDown    = 8
	// exitNeedsForce: refused, as it would silence all addresses or undo newer changes.
	exitNeedsForce = 9
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if usage := (usageError{}); cmd != root && errors.As(err, &usage) && api.HintOf(err) == "" {
		err = api.WithHint(err, fmt.Sprintf("see %q", cmd.CommandPath()+" --help"))
	}
	report(err)
	return exitCode(err)
}

// usageError is an error in how the command was called.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// quietError ends with an exit code and says nothing more.
type quietError struct{ code int }

func (q quietError) Error() string { return fmt.Sprintf("exit code %d", q.code) }

// report prints "error:" and "hint:" lines to stderr.
func report(err error) { printError(os.Stderr, inJournal(os.Stderr, os.Getenv), err) }

func printError(w io.Writer, journal bool, err error) {
	var quiet quietError
	if errors.As(err, &quiet) {
		return
	}
	say := func(priority int, line string) {
		text := []byte(line + "\n")
		if journal {
			text = prioritized(priority, text)
		}
		w.Write(text) // who cannot be told is not told
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		say(priorityError, "error: "+printable.Line(line))
	}
	if hint := hintOf(err); hint != "" {
		say(priorityInfo, "hint: "+printable.Text(hint))
	}
}

func hintOf(err error) string {
	if hint := api.HintOf(err); hint != "" {
		return hint
	}
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return `see "raftvip help"`
	case errors.Is(err, api.ErrNoDaemon):
		return "start it with: systemctl start raftvip (or: raftvip run); another daemon's socket is named with --socket"
	case errors.Is(err, fs.ErrPermission):
		return "run as root"
	}
	return ""
}

func exitCode(err error) int {
	var usage usageError
	var quiet quietError
	var refusal *state.Refusal
	switch {
	case errors.As(err, &quiet):
		return quiet.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	case errors.As(err, &refusal) && refusal.Code == state.CodeNoLeader:
		return exitNoQuorum
	case errors.As(err, &refusal) && (refusal.Code == state.CodeSilences || refusal.Code == state.CodeOlder):
		return exitNeedsForce
	}
	return exitError
}

// globals are the flags that every command has.
type globals struct {
	config, configID, dataDir, socket string
	json                              bool
}

// settings merges flags and environment; a flag wins.
func (g *globals) settings() daemon.Settings {
	pick := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return os.Getenv(env)
	}
	return daemon.Settings{
		ConfigPath: pick(g.config, "RAFTVIP_CONFIG"), ConfigID: g.configID,
		DataDir: pick(g.dataDir, "RAFTVIP_DATA_DIR"), Socket: pick(g.socket, "RAFTVIP_SOCKET"),
		Program: version,
	}
}

// client returns a client of the daemon. The configuration file is only looked at
// for the socket's path, so a file with errors does not stop "raftvip status".
func (g *globals) client() *api.Client {
	s := g.settings()
	if s.Socket != "" {
		return api.NewClient(s.Socket)
	}
	if c, _, err := s.LoadConfig(); err == nil {
		return api.NewClient(c.Raft.Socket)
	}
	return api.NewClient(daemon.DefaultSocket)
}

func rootCommand() *cobra.Command {
	g := &globals{}
	var legacy keepalivedFlags
	root := &cobra.Command{
		Use:           "raftvip",
		Short:         "Virtual IP addresses that survive without multicast",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return legacy.run(cmd, g)
		},
	}
	p := root.PersistentFlags()
	p.StringVarP(&g.config, "config", "f", "", "configuration `FILE` (default /etc/raftvip/raftvip.conf; RAFTVIP_CONFIG)")
	p.StringVarP(&g.configID, "config-id", "i", "", "use the @`ID` lines of the file (default: host name)")
	p.StringVar(&g.dataDir, "data-dir", "", "data directory `DIR` (default /var/lib/raftvip; RAFTVIP_DATA_DIR)")
	p.StringVar(&g.socket, "socket", "", "control socket `PATH` (default /run/raftvip/raftvip.sock; RAFTVIP_SOCKET)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	legacy.register(root)
	root.AddCommand(
		runCommand(g), initCommand(g), joinCommand(g), tokenCommand(g),
		statusCommand(g), vipCommand(g), transferCommand(g), drillCommand(g), doctorCommand(g), drainCommand(g), undrainCommand(g),
		historyCommand(g), nodeCommand(g), leaveCommand(g),
		reloadCommand(g), checkConfigCommand(g), cleanupCommand(g), versionCommand(g),
	)
	wrapArgs(root)
	return root
}

// needCommand makes a command of a group, such as vip, usable with one of its own
// commands only; the alternative is help and exit code 0 for a misspelt one.
func needCommand(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}
		what := "a command is missing"
		if len(args) > 0 {
			what = fmt.Sprintf("unknown command %q", args[0])
		}
		return usageError{fmt.Errorf("%s: %s; must be %s", cmd.CommandPath(), what, strings.Join(names, ", "))}
	}
}

// wrapArgs makes wrong arguments usage errors.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
			}
			// As of "$NODE" where that is not set; it must not mean "any node".
			if slices.Contains(args, "") {
				return usageError{fmt.Errorf("%s: an argument is empty", cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

const rootHelp = `raftvip keeps virtual IP addresses alive where multicast does not work. Nodes
form a Raft group over TCP; its leader owns the addresses.

  first node:    raftvip init --vip 192.0.2.10/24@eth0
  other nodes:   raftvip join 192.0.2.11 --token-file FILE
  on each:       raftvip run        (or: systemctl enable --now raftvip)
  then:          raftvip status

keepalived's flags -f -n -D -l -t -P are understood without a command.`
