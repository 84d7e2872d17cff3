package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// frrDir is where Debian's package frr has its daemons.
const frrDir = "/usr/lib/frr"

// StartFRR runs the installed FRR's zebra and vrrpd in the host, logging to their
// output, and returns vrrpd. The macvlan interfaces with the virtual MAC
// addresses, which vrrpd needs, have to be there. At most once for each host.
func (l *Lab) StartFRR(h *Host, config string) (*Proc, error) {
	for _, name := range []string{"zebra", "vrrpd"} {
		if _, err := os.Stat(filepath.Join(frrDir, name)); err != nil {
			return nil, fmt.Errorf("start FRR: package frr is not installed (make setup): %w", err)
		}
	}
	// Both change to the user frr at once, before they open any file.
	dir := filepath.Join(l.dir, h.name+"-frr")
	conf, sock := filepath.Join(dir, "frr.conf"), filepath.Join(dir, "zebra.sock")
	err := errors.Join(os.Chmod(l.dir, 0o711), os.Mkdir(dir, 0o755), giveTo("frr", dir), os.WriteFile(conf, []byte(config), 0o644))
	if err != nil {
		return nil, fmt.Errorf("prepare FRR of %s: %w", h.name, err)
	}
	start := func(name, config string) (*Proc, error) {
		return h.Start(Cmd{Args: []string{
			filepath.Join(frrDir, name), "--config_file", config, "--socket", sock,
			"--pid_file", filepath.Join(dir, name+".pid"), "--vty_socket", dir, "--vty_port", "0", "--log", "stdout",
		}})
	}
	zebra, err := start("zebra", os.DevNull)
	if err != nil {
		return nil, err
	}
	// vrrpd tries again only after seconds if it is there first.
	for range 500 {
		if _, err = os.Stat(sock); err == nil {
			return start("vrrpd", conf)
		}
		select {
		case <-zebra.Done():
			return nil, fmt.Errorf("start FRR in %s: zebra ended: %s", h.name, zebra.Tail(2000))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil, fmt.Errorf("start FRR in %s: no socket of zebra: %s", h.name, zebra.Tail(2000))
}

func giveTo(name, path string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, -1)
}
