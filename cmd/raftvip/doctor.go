package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/daemon"
	"github.com/raftvip/raftvip/internal/doctor"
	"github.com/raftvip/raftvip/internal/printable"
)

// exitNotExamined is the exit code of a doctor that could not run.
const exitNotExamined = 2

// doctorTalk is how often a waiting doctor says that it waits.
const doctorTalk = 3 * time.Second

func doctorCommand(g *globals) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with the network and the nodes, and which transport works",
		Long: `Have every member look at itself and probe the way to the others: TCP, MTU, clocks,
multicast and protocol 112, firewall rules, kernel settings, guard, disk. The last
line says which transport works here: multicast VRRP, only unicast VRRP, or only
TCP, which is all that raftvip itself needs. A few packets are sent to members and
to the groups of VRRP; nothing is changed.

Without a running daemon only this node is looked at, and whether TCP reaches the
others that it knows. The exit code is 0 if nothing failed (warnings do not count),
1 if something did, and 2 if doctor could not run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := examine(cmd.Context(), cmd.ErrOrStderr(), g)
			if err != nil {
				report(err)
				return quietError{exitNotExamined}
			}
			if err := printReport(cmd.OutOrStdout(), r, g.json, all); err != nil {
				return err
			}
			if r.Count(doctor.Fail) > 0 {
				return quietError{exitError}
			}
			return nil
		},
	}
	g.jsonFlag(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "show also what is as it should be")
	return c
}

// examine asks the daemon, or looks alone where there is none that answers.
func examine(ctx context.Context, talk io.Writer, g *globals) (doctor.Report, error) {
	fmt.Fprintln(talk, "asking the daemon to examine all members; this takes some seconds ...")
	var r doctor.Report
	err := waiting(talk, func() error {
		// A daemon that is frozen is found out sooner by what it could answer at once.
		var st api.Status
		if err := g.client().Call(ctx, api.PathStatus, struct{}{}, &st); err != nil {
			return err
		}
		return g.client().Call(ctx, api.PathDoctor, struct{}{}, &r)
	})
	finding := doctor.Finding{Check: doctor.CheckDaemon, Result: doctor.Warn}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return r, api.WithHint(err, "run as root: only who may use the daemon may look at the node")
	case errors.Is(err, api.ErrNoDaemon):
		finding.Seen = "no daemon is running here: only this node and the way to the others were looked at"
		finding.Do = "start it (systemctl start raftvip, or raftvip run) and run doctor again"
	case errors.Is(err, api.ErrNoAnswer):
		finding.Result, finding.Seen = doctor.Fail, "the daemon does not answer: only this node and the way to the others were looked at"
		finding.Do = "it is frozen or starved: look at it with ps, or restart it"
	default:
		return r, err
	}
	fmt.Fprintln(talk, "no daemon answers; looking at this node alone ...")
	err = waiting(talk, func() (err error) {
		r, err = daemon.DoctorAlone(ctx, g.settings(), finding)
		return err
	})
	return r, err
}

// waiting runs f and says from time to time that it still does.
func waiting(talk io.Writer, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	tick := time.NewTicker(doctorTalk)
	defer tick.Stop()
	for start := time.Now(); ; {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			fmt.Fprintf(talk, "still waiting, %s so far ...\n", time.Since(start).Round(time.Second))
		}
	}
}

// printReport prints the findings, failures first, each advice once, and the verdict
// as the last line.
func printReport(w io.Writer, r doctor.Report, asJSON, all bool) error {
	printable.Value(&r) // facts are other nodes' words
	if asJSON {
		return printJSON(w, r)
	}
	var rows [][]string
	var advice []string
	for _, result := range []doctor.Result{doctor.Fail, doctor.Warn, doctor.OK} {
		for _, f := range r.Findings {
			if f.Result != result || result == doctor.OK && !all {
				continue
			}
			where := dash(f.Node)
			if f.Peer != "" {
				where += " -> " + f.Peer
			}
			seen := f.Seen
			if f.Do != "" {
				n := slices.Index(advice, f.Do)
				if n < 0 {
					n, advice = len(advice), append(advice, f.Do)
				}
				seen += fmt.Sprintf(" [%d]", n+1)
			}
			rows = append(rows, []string{string(f.Result), string(f.Check), where, dash(f.Interface), seen})
		}
	}
	if len(rows) > 0 {
		table(w, "RESULT\tCHECK\tNODE\tINTERFACE\tSEEN", rows)
		fmt.Fprintln(w)
	}
	for i, text := range advice {
		fmt.Fprintf(w, "[%d] %s\n", i+1, text)
	}
	if len(advice) > 0 {
		fmt.Fprintln(w)
	}
	hidden := ""
	if r.Count(doctor.OK) > 0 && !all {
		hidden = " (shown with --all)"
	}
	fmt.Fprintf(w, "%s, %s, %d ok%s\n", count(r.Count(doctor.Fail), "failure"), count(r.Count(doctor.Warn), "warning"), r.Count(doctor.OK), hidden)
	fmt.Fprintln(w, r.Verdict)
	return nil
}
