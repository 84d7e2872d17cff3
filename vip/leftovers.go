package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
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
	changes, names, err := leftovers(host, journalPath, logger)
	if err != nil {
		return nil, fmt.Errorf("remove leftover addresses: %w", err)
	}
	var errs []error
	var removed []Leftover
	slices.Reverse(changes) // as in removeAll
	for i, err := range deletePersistently(host, changes) {
		link, p := names[changes[i].Link], changes[i].Address.Prefix
		switch {
		case err == nil:
			logger.Info("leftover address removed", "vip", p, "link", link)
			removed = append(removed, Leftover{Link: link, Prefix: p})
		case errors.Is(err, ErrGone):
		default:
			err = fmt.Errorf("remove leftover address %s from %s: %w", p, link, err)
			logger.Error("leftover address not removed", "vip", p, "link", link, "reason", err)
			errs = append(errs, err)
		}
	}
	if journalPath != "" && len(errs) == 0 {
		if err := os.Remove(journalPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove address journal: %w", err))
		}
	}
	return removed, errors.Join(errs...)
}

// Leftovers returns what RemoveLeftovers would remove, and changes nothing. The
// guard is told of it before it takes over from that of the earlier run.
func Leftovers(host Host, journalPath string) ([]Leftover, error) {
	changes, names, err := leftovers(host, journalPath, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("list leftover addresses: %w", err)
	}
	var out []Leftover
	for _, c := range changes {
		out = append(out, Leftover{Link: names[c.Link], Prefix: c.Address.Prefix})
	}
	return out, nil
}

// leftovers returns the deletions of all addresses that are provably raftvip's, and
// the names of their links.
func leftovers(host Host, journalPath string, logger *slog.Logger) (changes []Change, names map[int]string, err error) {
	links, err := host.Links()
	if err != nil {
		return nil, nil, err
	}
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
	names = map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
		for _, a := range l.Addresses {
			if a.Protocol == AddrProtocol || recorded[place{link: l.Index, prefix: a.Prefix}] {
				changes = append(changes, Change{Kind: DeleteAddress, Link: l.Index, Address: a})
			}
		}
	}
	return changes, names, nil
}

// deletePersistently tries three times within 30 ms, and returns an error for each.
func deletePersistently(host Host, changes []Change) []error {
	errs := make([]error, len(changes))
	left := make([]int, len(changes)) // indexes of those still to be deleted
	for i := range left {
		left[i] = i
	}
	for try := 0; try < 3 && len(left) > 0; try++ {
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
		part := make([]Change, len(left))
		for i, at := range left {
			part[i] = changes[at]
		}
		result := host.Change(part)
		var failed []int
		for i, at := range left {
			errs[at] = errorOf(result, i)
			if errs[at] != nil && !errors.Is(errs[at], ErrGone) {
				failed = append(failed, at)
			}
		}
		left = failed
	}
	return errs
}
