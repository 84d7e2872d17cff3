package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Directories tried for pins when none is given. The second is a bpffs mounted by
// raftvip itself.
const (
	systemPinDir = "/sys/fs/bpf"
	ownMount     = "/run/raftvip/bpf"
)

// pidNSInit is the inode of the initial process namespace (linux/proc_ns.h,
// PROC_PID_INIT_INO).
const pidNSInit = 0xEFFFFFFC

// A pinDir is the directory of one instance in a bpffs.
type pinDir struct {
	path string
	// parents may be removed when empty: those made by raftvip.
	parents []string
	mounted string // bpffs to unmount when empty, or ""
}

// pinBase is a directory that holds the directories of instances.
type pinBase struct {
	dir     string
	parents []string
	mount   string
}

// pinBases lists the places for pins, the given one first.
func pinBases(given string) []pinBase {
	var bases []pinBase
	if given != "" {
		bases = append(bases, pinBase{dir: given})
	}
	return append(bases,
		pinBase{dir: filepath.Join(systemPinDir, "raftvip"), parents: []string{filepath.Join(systemPinDir, "raftvip")}},
		pinBase{dir: ownMount, mount: ownMount})
}

// instanceDir is the name of the directory of an instance. Daemons in several
// namespaces share one bpffs and may have equal interface numbers, hence the inode
// of the namespace. (bpffs refuses names with a dot.)
func instanceDir(instance string, netns uint64) string {
	return fmt.Sprintf("%s@%d", instance, netns)
}

// splitInstanceDir is the inverse of instanceDir.
func splitInstanceDir(name string) (instance string, netns uint64, ok bool) {
	instance, inode, found := strings.Cut(name, "@")
	n, err := strconv.ParseUint(inode, 10, 64)
	return instance, n, found && err == nil
}

// openPinDir finds and makes the directory of an instance. The error tells of every
// place that was tried. With noted it is only for maps, as notes to a later process:
// then no bpffs is mounted for it, and one that ends with a container is as good.
func openPinDir(given, instance string, netns uint64, noted bool) (*pinDir, error) {
	var errs []error
	for _, b := range pinBases(given) {
		if noted {
			b.mount = ""
		}
		p, err := b.open(noted || given != "" && b.dir == given, instanceDir(instance, netns))
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no bpffs for pins: %w", errors.Join(errs...))
}

func (b pinBase) open(given bool, name string) (*pinDir, error) {
	p := &pinDir{path: filepath.Join(b.dir, name), parents: b.parents}
	if !given {
		// A bpffs of a container ends with the container, and the pinned links with
		// it, although the addresses may live on in a shared network namespace.
		// Filters at clsact do not have this weakness.
		if err := hostProcesses(); err != nil {
			return nil, fmt.Errorf("%s: %w", b.dir, err)
		}
	}
	if given && isBPFFS(filepath.Dir(b.dir)) == nil {
		if err := os.Mkdir(b.dir, 0o700); err == nil {
			p.parents = []string{b.dir}
		}
	}
	root := b.dir
	for _, dir := range b.parents { // The bpffs is above them.
		root = filepath.Dir(dir)
	}
	if err := isBPFFS(root); err != nil {
		if b.mount == "" {
			return nil, err
		}
		if mErr := mountBPFFS(b.mount); mErr != nil {
			return nil, errors.Join(err, mErr)
		}
	}
	if b.mount != "" {
		p.mounted = b.mount
	}
	if err := os.MkdirAll(p.path, 0o700); err != nil {
		return nil, fmt.Errorf("make pin directory: %w", err)
	}
	return p, nil
}

// hostProcesses reports an error in a process namespace other than the initial one.
func hostProcesses() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("stat process namespace: %w", err)
	}
	if st.Ino != pidNSInit {
		return errors.New("not used in a container, where pins end with it (a pin directory that is the host's can be configured)")
	}
	return nil
}

func isBPFFS(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if int64(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not a bpffs", dir)
	}
	return nil
}

// mountBPFFS mounts a bpffs for raftvip. In a mount namespace of its own the mount,
// and the pins, would end with the daemon, so only the first process's will do.
func mountBPFFS(dir string) error {
	var self, first unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &self); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := unix.Stat("/proc/1/ns/mnt", &first); err != nil {
		return fmt.Errorf("mount %s: cannot tell whether the mount would outlive the daemon: %w", dir, err)
	}
	if self.Ino != first.Ino {
		return fmt.Errorf("mount %s: not in a private mount namespace, where it ends with the daemon", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// pinMaps pins the maps, in place of those of an earlier process.
func (p *pinDir) pinMaps(m *gateMaps) error {
	for name, of := range map[string]*ebpf.Map{vipsPin: m.vips, deadlinesPin: m.deadlines} {
		pin := filepath.Join(p.path, name)
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove pinned map: %w", err)
		}
		if err := of.Pin(pin); err != nil {
			return fmt.Errorf("pin map at %s: %w", pin, err)
		}
	}
	return nil
}

// remove takes away the maps, the directory, and the parents and the mount
// that nobody else uses.
func (p *pinDir) remove() error {
	for _, name := range []string{vipsPin, deadlinesPin} {
		if err := os.Remove(filepath.Join(p.path, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove pinned map: %w", err)
		}
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove pin directory: %w", err)
	}
	for _, dir := range p.parents {
		_ = os.Remove(dir) // Fails while another instance is in it.
	}
	if p.mounted != "" {
		if left, err := os.ReadDir(p.mounted); err == nil && len(left) == 0 && isBPFFS(p.mounted) == nil {
			_ = unix.Unmount(p.mounted, 0)
			_ = os.Remove(p.mounted)
		}
	}
	return nil
}
