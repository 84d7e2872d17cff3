//go:build !linux

package sched

import "errors"

// Apply gives the whole process these settings.
func Apply(s Settings) error {
	if s == (Settings{}) {
		return nil
	}
	return errors.ErrUnsupported
}

// Ordinary makes the calling thread as urgent as any other program.
func Ordinary() error { return nil }
