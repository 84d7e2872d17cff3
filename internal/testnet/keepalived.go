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
	base := filepath.Join(l.dir, h.name+"-keepalived")
	if err := os.WriteFile(base+".conf", []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write keepalived configuration of %s: %w", h.name, err)
	}
	return h.Start(Cmd{Args: []string{
		"keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file", base + ".conf",
		"--pid", base + ".pid",
		"--vrrp_pid", base + ".vrrp.pid",
		"--checkers_pid", base + ".checkers.pid",
	}})
}
