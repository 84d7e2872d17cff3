package testnet

import (
	"fmt"
	"os"
	"path/filepath"
)

// StartKeepalived runs the installed keepalived in the host, in the foreground,
// logging to its output, with pid files of its own: the stock ones would clash
// with other hosts of the lab. keepalived is a parent and a VRRP child; use
// SignalTree to freeze or kill both.
func (l *Lab) StartKeepalived(h *Host, config string) (*Proc, error) {
	if err := l.WriteKeepalived(h, config); err != nil {
		return nil, err
	}
	base := l.keepalived(h)
	return h.Start(Cmd{Args: []string{
		"keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file", base + ".conf",
		"--pid", base + ".pid",
		"--vrrp_pid", base + ".vrrp.pid",
		"--checkers_pid", base + ".checkers.pid",
	}})
}

// WriteKeepalived replaces the configuration of the keepalived that was started in
// the host; SIGHUP has it read.
func (l *Lab) WriteKeepalived(h *Host, config string) error {
	if err := os.WriteFile(l.keepalived(h)+".conf", []byte(config), 0o600); err != nil {
		return fmt.Errorf("write keepalived configuration of %s: %w", h.name, err)
	}
	return nil
}

// keepalived is what the names of the files of the host's keepalived begin with.
func (l *Lab) keepalived(h *Host) string { return filepath.Join(l.dir, h.name+"-keepalived") }
