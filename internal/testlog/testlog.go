// Package testlog makes the logs of tests.
package testlog

import (
	"log/slog"
	"os"
	"testing"
)

// New returns a log that is discarded, or goes to standard error if RAFTVIP_TEST_LOG
// is set. node is whose log it is.
func New(t testing.TB, node string) *slog.Logger {
	t.Helper()
	if os.Getenv("RAFTVIP_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", node)
}
