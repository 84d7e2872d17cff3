package vip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkStatus is how long an observer of a thousand addresses keeps the lock, about.
func BenchmarkStatus(b *testing.B) {
	h := &Holding{k: &Keeper{byIP: make(map[netip.Addr]*entry)}, gate: NewGate(nil, 1, nil), byKey: make(map[key]*entry)}
	for i := range 1000 {
		h.wanted.Addresses = append(h.wanted.Addresses, Address{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/16", i/200, i%200)), Link: "eth0"})
	}
	h.listEntries(time.Second)
	for b.Loop() {
		h.Status()
	}
}
