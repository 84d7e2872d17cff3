package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"time"
)

// A Leftover is an address of an earlier run that was removed.
type Leftover struct {
	Link   string
	Prefix netip.Prefix
}

// RemoveLeftovers removes all addresses that are provably raftvip's: those with
// the address protocol number, and, on a kernel that does not keep it, those in
// the journal at journalPath (empty: none). It is for the start of the daemon,
// before any Keeper runs and with the guard shut, and for the clean-up command,
// never beside a running daemon. An address that anyone else has configured stays.
//
// It goes on after an error and returns what was removed together with all errors;
// the journal file is removed only if there was none.
func RemoveLeftovers(host Host, journalPath string, logger *slog.Logger) ([]Leftover, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	links, err := host.Links()
	if err != nil {
		return nil, fmt.Errorf("remove leftover addresses: %w", err)
	}
	var errs []error
	recorded := map[place]bool{}
	if journalPath != "" && !host.Marks() {
		entries, err := readJournal(journalPath)
		if err != nil {
			// A damaged journal must not keep the daemon from starting: it is what a
			// crash of the machine leaves, and then there are no leftovers.
			logger.Warn("address journal ignored", "reason", err)
		}
		for _, e := range entries {
			recorded[place{link: e.Index, prefix: e.Address}] = true
		}
	}
	var removed []Leftover
	for _, l := range links {
		for _, a := range l.Addresses {
			if a.Protocol != AddrProtocol && !recorded[place{link: l.Index, prefix: a.Prefix}] {
				continue
			}
			switch err := deletePersistently(host, l.Index, a); {
			case err == nil:
				logger.Info("leftover address removed", "vip", a.Prefix, "link", l.Name)
				removed = append(removed, Leftover{Link: l.Name, Prefix: a.Prefix})
			case errors.Is(err, ErrGone):
			default:
				err = fmt.Errorf("remove leftover address %s from %s: %w", a.Prefix, l.Name, err)
				logger.Error("leftover address not removed", "vip", a.Prefix, "link", l.Name, "reason", err)
				errs = append(errs, err)
			}
		}
	}
	if journalPath != "" && len(errs) == 0 {
		if err := os.Remove(journalPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove address journal: %w", err))
		}
	}
	return removed, errors.Join(errs...)
}

// deletePersistently tries three times within 30 ms.
func deletePersistently(host Host, link int, a KernelAddress) (err error) {
	for try := range 3 {
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
		if err = host.DeleteAddress(link, a); err == nil || errors.Is(err, ErrGone) {
			return err
		}
	}
	return err
}
