package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Environment of a build.
const (
	// EnvBinary names a program that is built already.
	EnvBinary = "RAFTVIP_BINARY"
	// EnvRace is set to 1 for the race detector.
	EnvRace = "RAFTVIP_E2E_RACE"
)

// Build builds the program into dir and returns its path, or that of the one
// named in the environment.
func Build(ctx context.Context, dir string) (string, error) {
	if given := os.Getenv(EnvBinary); given != "" {
		path, err := filepath.Abs(given)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", EnvBinary, err)
		}
		return path, nil
	}
	path := filepath.Join(dir, "raftvip")
	args := []string{"build", "-o", path}
	if os.Getenv(EnvRace) == "1" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/raftvip/raftvip/cmd/raftvip")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build raftvip: %w: %s", err, out)
	}
	return path, nil
}
