// Package boottime reads the clock that leases are measured by: the time since
// boot, including suspend. An instant of this clock is a time.Duration; it means
// nothing on another machine and is never stored or sent.
package boottime
