// Package sched owns how urgently the kernel treats the daemon's own process:
// priority and locked memory. All of it is off unless the environment asks for it,
// as the systemd unit does for a priority. What the garbage collector does is Go's
// own affair: GOGC and GOMEMLIMIT.
package sched
