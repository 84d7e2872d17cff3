package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// inJournal tells whether what is written to the file goes to systemd's journal. The
// variable alone does not say so: a child of a service inherits it, wherever its own
// output goes (systemd.exec(5), $JOURNAL_STREAM).
func inJournal(f *os.File, getenv func(string) string) bool {
	stream := getenv("JOURNAL_STREAM")
	if stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// Priorities of the journal (syslog(3)).
const (
	priorityError   = 3
	priorityWarning = 4
	priorityInfo    = 6
	priorityDebug   = 7
)

func priorityOf(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return priorityError
	case l >= slog.LevelWarn:
		return priorityWarning
	case l >= slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}

// prioritized puts the prefix "<N>" before each line, by which the journal knows the
// priority (sd-daemon(3)). Without it everything is of priority 6.
func prioritized(priority int, text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		out = fmt.Appendf(out, "<%d>", priority)
		out = append(out, line...)
	}
	return out
}

// A journalHandler gives each record the priority of its level.
type journalHandler struct {
	inner slog.Handler // writes to line
	line  *journalLine // shared with the handlers made from this one
}

type journalLine struct {
	mu  sync.Mutex
	buf bytes.Buffer
	out io.Writer
}

// newJournalHandler returns a handler that writes to out what the inner one, which
// is made for the writer it is given, makes of a record.
func newJournalHandler(out io.Writer, inner func(io.Writer) slog.Handler) slog.Handler {
	line := &journalLine{out: out}
	return &journalHandler{inner(&line.buf), line}
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.inner.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.buf.Reset()
	if err := h.inner.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.line.out.Write(prioritized(priorityOf(r.Level), h.line.buf.Bytes()))
	return err
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.inner.WithAttrs(attrs), h.line}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.inner.WithGroup(name), h.line}
}
