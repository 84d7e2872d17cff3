package sched

import (
	"errors"
	"fmt"
	"strconv"
)

// The environment of `raftvip run`.
const (
	// EnvNice is the nice value of all threads, -20 to 19; less is more urgent.
	EnvNice = "RAFTVIP_NICE"
	// EnvRealTime is a real-time priority, 1 to 99, under SCHED_RR (sched(7)).
	EnvRealTime = "RAFTVIP_RT_PRIORITY"
	// EnvLock set to 1 keeps what the process has used from being paged out
	// (mlockall(2), MCL_ONFAULT).
	EnvLock = "RAFTVIP_LOCK_MEMORY"
)

// Settings say how urgent the process is. The zero value changes nothing.
type Settings struct {
	Nice       int // 0: as started
	RealTime   int // 0: none
	LockMemory bool
}

// FromEnv reads the settings from the environment. The error names every variable
// that is wrong, and what is allowed.
func FromEnv(getenv func(string) string) (Settings, error) {
	var s Settings
	var errs []error
	number := func(name string, low, high int, into *int) {
		text := getenv(name)
		if text == "" {
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < low || n > high {
			errs = append(errs, fmt.Errorf("%s=%s: must be %d to %d", name, text, low, high))
			return
		}
		*into = n
	}
	number(EnvNice, -20, 19, &s.Nice)
	number(EnvRealTime, 1, 99, &s.RealTime)
	switch text := getenv(EnvLock); text {
	case "", "0":
	case "1":
		s.LockMemory = true
	default:
		errs = append(errs, fmt.Errorf("%s=%s: must be 0 or 1", EnvLock, text))
	}
	return s, errors.Join(errs...)
}
