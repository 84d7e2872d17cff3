package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since boot by CLOCK_BOOTTIME. It is monotonic and, other
// than the monotonic clock of package time, goes on while the machine is
// suspended (clock_gettime(2)).
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Only an unknown clock or a bad pointer can fail, and neither is possible
		// on a kernel that runs Go (CLOCK_BOOTTIME: Linux 2.6.39).
		panic("boottime: clock_gettime(CLOCK_BOOTTIME): " + err.Error())
	}
	return time.Duration(ts.Nano())
}
