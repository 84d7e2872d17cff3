//go:build !linux

package vip

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"
)

var errNotLinux = errors.New("virtual addresses need Linux")

// Netlink is the Host of Linux.
type Netlink struct{ Host }

// OpenHost fails: only Linux is supported.
func OpenHost() (*Netlink, error) { return nil, errNotLinux }

// Close does nothing.
func (*Netlink) Close() {}

// PacketAnnouncer is the Announcer of Linux.
type PacketAnnouncer struct{}

// NewAnnouncer returns an announcer that always fails.
func NewAnnouncer() *PacketAnnouncer { return &PacketAnnouncer{} }

// Prepare fails: only Linux is supported.
func (*PacketAnnouncer) Prepare() error { return errNotLinux }

// Announce fails: only Linux is supported.
func (*PacketAnnouncer) Announce(Link, netip.Addr) error { return errNotLinux }

// Close does nothing.
func (*PacketAnnouncer) Close() error { return nil }

// ProbeConflict fails: only Linux is supported.
func ProbeConflict(context.Context, string, netip.Addr) (net.HardwareAddr, bool, error) {
	return nil, false, errNotLinux
}

// Control fails: only Linux is supported.
func (Source) Control(context.Context, string, string, syscall.RawConn) error { return errNotLinux }

// An Observation is what one node saw of an address on the network.
type Observation struct {
	Asked, Answers int
	Gaps           []time.Duration
	Holders        []net.HardwareAddr
}

// Observe is for Linux only.
func Observe(context.Context, string, netip.Addr, time.Duration) (Observation, error) {
	return Observation{}, errNotLinux
}

// ClaimListener hears nothing.
type ClaimListener struct{}

// NewClaimListener returns a listener that hears nothing.
func NewClaimListener(*slog.Logger, func(Claim)) *ClaimListener { return &ClaimListener{} }

// Listen does nothing.
func (*ClaimListener) Listen([]netip.Addr) {}

// Run waits for the end of ctx.
func (*ClaimListener) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// BridgePort knows no bridges.
func BridgePort(int, net.HardwareAddr) string { return "" }

func listenOnce(context.Context, Link, netip.Addr) error { return errNotLinux }
