package testnet

import (
	"testing"
	"time"
)

// TestNFTLoad: the lock of nftables is really held for long, again and again.
func TestNFTLoad(t *testing.T) {
	Require(t)
	lab := ForTest(t, Options{Nodes: 1})
	l, err := lab.Nodes()[0].LoadNFTables()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	times, longest, err := l.Stop()
	t.Logf("held %d times, for %v at the longest", times, longest)
	if err != nil || times == 0 || longest < time.Millisecond {
		t.Errorf("held %d times, for %v at the longest: %v", times, longest, err)
	}
}
