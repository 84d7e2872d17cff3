package vrrpnet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// sysctlDir is where the kernel's network settings are.
const sysctlDir = "/proc/sys/net/"

// A setting is one of the kernel's network settings with the value that a virtual
// MAC needs.
type setting struct {
	path  string // below sysctlDir
	value string
}

// baseSettings are those of the interface below a virtual MAC. Both keep it from
// answering, with its own MAC address, for the addresses on the virtual MAC.
func baseSettings(base string) []setting {
	return []setting{
		{"ipv4/conf/" + base + "/arp_ignore", "1"},
		{"ipv4/conf/" + base + "/arp_filter", "1"},
	}
}

// vmacSettings are those of the virtual MAC's interface, which are gone with it.
func vmacSettings(name string) []setting {
	return []setting{
		// It answers for its own addresses only.
		{"ipv4/conf/" + name + "/arp_ignore", "1"},
		// It hears routers of the base's subnet without an address in it, and those
		// sources are reached by the base.
		{"ipv4/conf/" + name + "/accept_local", "1"},
		{"ipv4/conf/" + name + "/rp_filter", "0"},
		// No address is made from the virtual MAC: every router would make the same.
		{"ipv6/conf/" + name + "/accept_ra", "0"},
		{"ipv6/conf/" + name + "/autoconf", "0"},
	}
}

// apply gives the setting its value, unless it has it.
func (s setting) apply() error {
	path := sysctlDir + s.path
	now, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.path, "ipv6/") {
		return nil // a kernel without IPv6
	}
	if err == nil && string(bytes.TrimSpace(now)) == s.value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(s.value), 0)
	}
	if err != nil {
		return fmt.Errorf("set net/%s to %s: %w", s.path, s.value, err)
	}
	return nil
}

// held are the settings of base interfaces that virtual MACs of this process need,
// several of which may be on one base.
var held = holds{by: map[string]*hold{}}

type holds struct {
	mu sync.Mutex
	by map[string]*hold // by path
}

type hold struct {
	count  int
	before string
}

// acquire applies the settings and keeps what they were, until release.
func (h *holds) acquire(all []setting) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range all {
		if err := h.acquireOne(s); err != nil {
			h.releaseLocked(all[:i])
			return err
		}
	}
	return nil
}

func (h *holds) acquireOne(s setting) error {
	if x := h.by[s.path]; x != nil {
		x.count++
		return s.apply() // the interface may be a new one of the same name
	}
	before, err := os.ReadFile(sysctlDir + s.path)
	if err != nil {
		return fmt.Errorf("read net/%s: %w", s.path, err)
	}
	if err := s.apply(); err != nil {
		return err
	}
	h.by[s.path] = &hold{count: 1, before: string(bytes.TrimSpace(before))}
	return nil
}

// release puts the settings back that nobody needs any more. One that somebody
// changed meanwhile is left as it is.
func (h *holds) release(all []setting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.releaseLocked(all)
}

func (h *holds) releaseLocked(all []setting) {
	for _, s := range all {
		x := h.by[s.path]
		if x == nil {
			continue
		}
		if x.count--; x.count > 0 {
			continue
		}
		delete(h.by, s.path)
		if now, err := os.ReadFile(sysctlDir + s.path); err == nil && string(bytes.TrimSpace(now)) == s.value {
			// The interface may be gone, and the setting with it.
			_ = os.WriteFile(sysctlDir+s.path, []byte(x.before), 0)
		}
	}
}

var reversePathMu sync.Mutex

// narrowReversePath moves net.ipv4.conf.all.rp_filter to each interface. What holds
// for an interface is the larger of "all" and its own value (ip-sysctl), so that
// with "all" set no interface can be without the filter, and a virtual MAC without
// an address would hear nothing. Nothing changes for the others, nor for new ones,
// so it is not undone. keepalived does the same.
func narrowReversePath() error {
	reversePathMu.Lock()
	defer reversePathMu.Unlock()
	const conf = sysctlDir + "ipv4/conf/"
	read := func(name string) (int, error) {
		b, err := os.ReadFile(conf + name + "/rp_filter")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(string(bytes.TrimSpace(b)))
	}
	all, err := read("all")
	if err != nil || all == 0 {
		return err
	}
	entries, err := os.ReadDir(conf)
	if err != nil {
		return err
	}
	names := []string{"default"} // first: an interface that comes meanwhile has it
	for _, e := range entries {
		if e.Name() != "all" && e.Name() != "default" {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		own, err := read(name)
		if err == nil && own < all {
			err = os.WriteFile(conf+name+"/rp_filter", []byte(strconv.Itoa(all)), 0)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it may have gone
			return fmt.Errorf("set rp_filter of %s: %w", name, err)
		}
	}
	if err := os.WriteFile(conf+"all/rp_filter", []byte("0"), 0); err != nil {
		return fmt.Errorf("set rp_filter of all: %w", err)
	}
	return nil
}
