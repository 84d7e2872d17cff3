// Package raftlog brings the log of hashicorp/raft to log/slog.
package raftlog

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// New gives Raft's own log to slog, all of it at the debug level: Raft
// repeats itself while a peer is away, and what an operator has to know is logged
// once by this project.
func New(l *slog.Logger) hclog.Logger {
	return &raftLogger{log: l}
}

// A raftLogger is an hclog.Logger on top of slog.
type raftLogger struct {
	log     *slog.Logger
	name    string
	implied []any
}

func (r *raftLogger) emit(msg string, args []any) {
	if !r.IsDebug() {
		return
	}
	attrs := append(append([]any{}, r.implied...), args...)
	// hclog permits a lone value after the pairs; slog calls that !BADKEY.
	if len(attrs)%2 == 1 {
		attrs = append(attrs[:len(attrs)-1], "value", attrs[len(attrs)-1])
	}
	for i := 1; i < len(attrs); i += 2 {
		if f, ok := attrs[i].(hclog.Format); ok && len(f) > 0 {
			attrs[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		if s, ok := attrs[i].(fmt.Stringer); ok {
			attrs[i] = s.String()
		}
	}
	r.log.Debug("raft: "+msg, attrs...)
}

// Log implements hclog.Logger.
func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	if level != hclog.Off {
		r.emit(msg, args)
	}
}
func (r *raftLogger) Trace(msg string, args ...any) { r.Log(hclog.Trace, msg, args...) }
func (r *raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r *raftLogger) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r *raftLogger) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r *raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }
func (r *raftLogger) IsTrace() bool                 { return false }
func (r *raftLogger) IsDebug() bool                 { return r.log.Enabled(context.Background(), slog.LevelDebug) }
func (r *raftLogger) IsInfo() bool                  { return r.IsDebug() }
func (r *raftLogger) IsWarn() bool                  { return r.IsDebug() }
func (r *raftLogger) IsError() bool                 { return r.IsDebug() }
func (r *raftLogger) ImpliedArgs() []any            { return r.implied }
func (r *raftLogger) Name() string                  { return r.name }
func (r *raftLogger) SetLevel(hclog.Level)          {}
func (r *raftLogger) GetLevel() hclog.Level         { return hclog.Debug }

// With implements hclog.Logger.
func (r *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{log: r.log, name: r.name, implied: append(append([]any{}, r.implied...), args...)}
}

// Named implements hclog.Logger.
func (r *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{log: r.log, name: name, implied: r.implied}
}

// ResetNamed implements hclog.Logger.
func (r *raftLogger) ResetNamed(name string) hclog.Logger { return r.Named(name) }

// StandardLogger implements hclog.Logger.
func (r *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(r.StandardWriter(nil), "", 0)
}

// StandardWriter implements hclog.Logger.
func (r *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return logWriter{r}
}

type logWriter struct{ r *raftLogger }

func (w logWriter) Write(p []byte) (int, error) {
	w.r.Debug(string(p))
	return len(p), nil
}
