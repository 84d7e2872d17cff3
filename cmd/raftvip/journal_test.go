package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/raftvip/raftvip/internal/api"
)

// TestJournalPriorities: each level has its priority, in the text and in the JSON
// format, in loggers made from the first one too, and no line is without one.
func TestJournalPriorities(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, true, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("d")
		log.Info("i")
		log.With("node", "lb1").Warn("w")
		log.WithGroup("g").Error("e", "error", errors.New("one\ntwo"))
		log.Log(t.Context(), slog.LevelWarn+1, "between")
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, line[:min(3, len(line))])
			if strings.Contains(line, "time") {
				t.Errorf("%s: the journal knows the time: %s", format, line)
			}
		}
		if want := []string{"<7>", "<6>", "<4>", "<3>", "<4>"}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: priorities %v, want %v, in\n%s", format, got, want, out.String())
		}
	}
}

// TestJournalLines: a text of several lines has the priority on each.
func TestJournalLines(t *testing.T) {
	if got, want := string(prioritized(4, []byte("a\nb\nc"))), "<4>a\n<4>b\n<4>c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var out bytes.Buffer
	printError(&out, true, api.WithHint(errors.New("a.conf:1: one\na.conf:2: two"), "mend it"))
	if got, want := out.String(), "<3>error: a.conf:1: one\n<3>error: a.conf:2: two\n<6>hint: mend it\n"; got != want {
		t.Errorf("report: got %q, want %q", got, want)
	}
}

// TestNoJournal: elsewhere there are no prefixes, and the time is there.
func TestNoJournal(t *testing.T) {
	var out bytes.Buffer
	log, err := newLogger(&out, false, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("w")
	if !strings.HasPrefix(out.String(), "time=") {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	printError(&out, false, errors.New("e"))
	if got := out.String(); got != "error: e\n" {
		t.Errorf("report: got %q", got)
	}
}

// TestInJournal: the variable counts only for the file that it names.
func TestInJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]bool{
		"": false, "nonsense": false,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
	} {
		if got := inJournal(f, func(string) string { return stream }); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %v", stream, got, want)
		}
	}
}

// TestJournalConcurrent: records of several goroutines do not mix (with -race).
func TestJournalConcurrent(t *testing.T) {
	var out bytes.Buffer
	log, err := newLogger(&out, true, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	for i := range 20 {
		tasks.Go(func() { log.With("i", i).Warn("w") })
	}
	tasks.Wait()
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "<4>level=WARN msg=w i=") {
			t.Errorf("got %q", line)
		}
	}
}
