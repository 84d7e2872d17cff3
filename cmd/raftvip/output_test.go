package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
)

// What other nodes say of themselves does nothing to the operator's terminal, and makes
// no line of its own in a table.
func TestOthersWordsAreHarmless(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	bad := "n\x1b[2J\u009b1m"
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(api.Status{Nodes: []api.Node{{Name: bad + "\nn9  10.0.0.9:1  voter", Address: bad, Role: "voter", Why: bad + "\n", Alive: true}}})
	})
	mux.HandleFunc("/v1/vips", func(w http.ResponseWriter, _ *http.Request) {
		api.Answer(w, nil, state.Refuse(state.CodeBadRequest, bad, "%s", bad))
	})
	server := &http.Server{Handler: mux}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })

	for _, args := range [][]string{{"node", "list"}, {"node", "list", "--json"}, {"status"}} {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(args, "--socket", socket))
		err := root.Execute()
		if text := out.String(); strings.ContainsAny(text, "\x1b\u009b") || !strings.Contains(text, `x1b[2J`) {
			t.Errorf("%v: %v: %q", args, err, text)
		}
		if !strings.Contains(strings.Join(args, " "), "json") && strings.Contains(out.String(), "\nn9  ") {
			t.Errorf("%v: a name makes a line: %q", args, out.String())
		}
	}
	root := rootCommand()
	root.SetArgs([]string{"vip", "list", "--socket", socket})
	err = root.Execute()
	var text bytes.Buffer
	printError(&text, false, err)
	if _, ok := errors.AsType[*state.Refusal](err); !ok || strings.ContainsAny(text.String(), "\x1b\u009b") {
		t.Errorf("%v: %q", err, text.String())
	}
}
