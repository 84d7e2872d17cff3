package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"raftvip": func() { os.Exit(run(os.Args[1:])) },
	})
}

// TestScripts runs the commands as an operator does, without a cluster around
// them. What needs a network is in package e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("RAFTVIP_DATA_DIR", e.WorkDir+"/data")
			e.Setenv("RAFTVIP_SOCKET", e.WorkDir+"/sock")
			return nil
		},
	})
}
