package guard

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// selfTestAddr is in the discard-only prefix (RFC 6666), so no real packet has it.
var selfTestAddr = netip.MustParseAddr("100::7661")

// selfTestFrame is an IPv6 frame to and from selfTestAddr.
func selfTestFrame() []byte {
	f := make([]byte, 14+40)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IPV6)
	f[14] = 6 << 4
	f[20] = 59 // no next header
	a := selfTestAddr.As16()
	copy(f[22:], a[:])
	copy(f[38:], a[:])
	return f
}

// selfTest runs the loaded programs over the real maps (BPF_PROG_TEST_RUN) and
// compares the kernel's clock with now. A daemon in a time namespace reads a
// CLOCK_BOOTTIME other than the kernel's; unnoticed, its leases would end early or
// never.
func selfTest(m *gateMaps, progs [2]*program, now func() time.Duration) error {
	defer m.setDeadline(slotSelfTest, 0)
	for _, dir := range []direction{ingress, egress} {
		run := func(what string, want uint32) error {
			got, err := progs[dir].Run(&ebpf.RunOptions{Data: selfTestFrame()})
			if err != nil {
				return fmt.Errorf("bpf: self-test: run program %s: %w", dir, err)
			}
			if got != want {
				return fmt.Errorf("bpf: self-test: %s, program %s answered %d instead of %d (is this process in a time namespace?)", what, dir, int32(got), int32(want))
			}
			return nil
		}
		if err := run("address not armed", verdictPass); err != nil {
			return err
		}
		if err := m.put(selfTestAddr, slotSelfTest); err != nil {
			return err
		}
		err := func() error {
			m.setDeadline(slotSelfTest, 0)
			if err := run("deadline 0", verdictDrop); err != nil {
				return err
			}
			m.setDeadline(slotSelfTest, now()-time.Microsecond)
			if err := run("deadline 1us ago", verdictDrop); err != nil {
				return err
			}
			return openTest(m, run, now)
		}()
		if err != nil {
			m.remove(selfTestAddr)
			return err
		}
		if err := m.remove(selfTestAddr); err != nil {
			return err
		}
	}
	return nil
}

// openTest sets a deadline 5 ms ahead, which must pass. On a busy machine the run
// itself may come too late, which proves nothing and is repeated.
func openTest(m *gateMaps, run func(string, uint32) error, now func() time.Duration) error {
	const ahead, tries = 5 * time.Millisecond, 50
	for range tries {
		end := now() + ahead
		m.setDeadline(slotSelfTest, end)
		err := run("deadline 5ms ahead", verdictPass)
		if err == nil || now() < end {
			return err
		}
	}
	return fmt.Errorf("bpf: self-test: %d runs took longer than %v each", tries, ahead)
}
