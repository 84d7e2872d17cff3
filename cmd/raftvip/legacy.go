package main

import (
	"github.com/spf13/cobra"
)

// keepalivedFlags are keepalived's options, so that a unit file or script written
// for it goes on working: without a command they mean run, -t check-config.
type keepalivedFlags struct {
	dontFork, vrrp, logConsole, configTest bool
	logDetail                              int
}

func (k *keepalivedFlags) register(root *cobra.Command) {
	f := root.Flags()
	f.BoolVarP(&k.dontFork, "dont-fork", "n", false, "stay in the foreground (raftvip always does)")
	f.BoolVarP(&k.logConsole, "log-console", "l", false, "log to the console (raftvip always does)")
	f.CountVarP(&k.logDetail, "log-detail", "D", "log more; twice: debug")
	f.BoolVarP(&k.configTest, "config-test", "t", false, "check the configuration and exit")
	f.BoolVarP(&k.vrrp, "vrrp", "P", false, "run the VRRP part only (raftvip has no other)")
}

func (k *keepalivedFlags) run(cmd *cobra.Command, g *globals) error {
	switch {
	case k.configTest:
		path := g.settings().ConfigPath
		return checkConfig(cmd.OutOrStdout(), g, path)
	case k.dontFork || k.logConsole || k.vrrp || k.logDetail > 0 || g.config != "":
		level := "info"
		if k.logDetail > 1 {
			level = "debug"
		}
		return runDaemon(g, level, "text")
	}
	return cmd.Help()
}
