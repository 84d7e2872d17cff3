package trial

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const bpffsPrefix = "raftvip-bpffs-"

// A BPFFS is a file system for pins, so that the guard does not use that of the
// machine.
type BPFFS struct{ Dir string }

// BPFFSName is what the directories of this process begin with.
func BPFFSName() string { return fmt.Sprintf("%s%d-", bpffsPrefix, os.Getpid()) }

// MountBPFFS mounts one on a temporary directory, after unmounting those of dead
// processes.
func MountBPFFS() (*BPFFS, error) {
	sweepBPFFS()
	dir, err := os.MkdirTemp("", BPFFSName())
	if err != nil {
		return nil, fmt.Errorf("mount bpffs: %w", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return nil, errors.Join(fmt.Errorf("mount bpffs: %w", err), os.Remove(dir))
	}
	return &BPFFS{dir}, nil
}

// Close unmounts it, with the pins that are left.
func (b *BPFFS) Close() error {
	if err := unix.Unmount(b.Dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount bpffs %s: %w", b.Dir, err)
	}
	return os.Remove(b.Dir)
}

func sweepBPFFS() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), bpffsPrefix+"*"))
	for _, d := range dirs {
		num, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), bpffsPrefix), "-")
		pid, err := strconv.Atoi(num)
		if err != nil || pid <= 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		_ = unix.Unmount(d, unix.MNT_DETACH)
		_ = os.Remove(d)
	}
}
