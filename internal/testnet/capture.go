package testnet

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is the form of an announcement.
type Kind int

// The three forms in which a node tells everyone who has an address.
const (
	KindUnknown     Kind = iota
	GratuitousReq        // ARP request whose sender and target address are the same
	GratuitousReply      // ARP reply likewise (RFC 5227 section 3)
	UnsolicitedNA        // neighbour advertisement nobody asked for (RFC 4861 section 7.2.6)
)

// String returns the name of the form.
func (k Kind) String() string {
	return [...]string{"unknown", "gratuitous ARP request", "gratuitous ARP reply", "unsolicited NA"}[k]
}

// Announcement is a claim to an address that nobody had asked about.
type Announcement struct {
	At       time.Duration
	Addr     netip.Addr
	MAC      net.HardwareAddr
	Holder   string // host with that MAC, else the MAC
	Kind     Kind
	Override bool // of an advertisement
}

// Capture records the announcements that pass a host's interface, in either
// direction. Going out they are seen after every filter of the host, coming in
// before any.
type Capture struct {
	lab    *Lab
	fd     int
	rx     *batch
	m      *metronome
	once   sync.Once
	forget func()

	mu    sync.Mutex
	anns  []Announcement
	drops int
}

// StartCapture starts recording on the host's interface.
func (h *Host) StartCapture(on Network) (*Capture, error) {
	if int(on) >= len(h.links) {
		return nil, fmt.Errorf("start capture: %s is not on %v", h.name, on)
	}
	c := &Capture{lab: h.lab}
	err := h.Do(func() error {
		var err error
		c.fd, err = packetSocket(h.links[on], unix.ETH_P_ALL, filterARPAndNA, func(fd int) error {
			var err error
			c.rx, err = newBatch(fd)
			return err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start capture on %s: %w", h.name, err)
	}
	// Times are the kernel's; this is only how often the socket is emptied.
	c.m = startMetronome(20*time.Millisecond, -1, func(_, _ time.Duration) { c.collect() })
	c.forget = h.lab.onClose(c.Stop)
	return c, nil
}

func (c *Capture) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		c.rx.drain(c.record)
	}
}

func (c *Capture) record(at time.Duration, data []byte) {
	cl, ok := parseClaim(data)
	if !ok {
		return
	}
	a := Announcement{At: at, Addr: cl.addr, MAC: append(net.HardwareAddr(nil), cl.mac[:]...), Override: cl.flags&0x20 != 0}
	switch {
	case cl.op == icmp6NA && !cl.solicited():
		a.Kind = UnsolicitedNA
	case cl.op == arpRequest && cl.addr == cl.to:
		a.Kind = GratuitousReq
	case cl.op == arpReply && cl.addr == cl.to:
		a.Kind = GratuitousReply
	default:
		return
	}
	a.Holder = c.lab.holderName(cl.mac)
	c.anns = append(c.anns, a)
}

// Stop ends the recording, with what has arrived until now.
func (c *Capture) Stop() {
	c.once.Do(func() {
		c.m.stop()
		c.forget()
		c.collect()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drops += lost(c.fd)
		_ = unix.Close(c.fd)
		c.fd = -1
	})
}

// Announcements returns those for the address so far, by time; for the zero
// Addr those for any.
func (c *Capture) Announcements(a netip.Addr) []Announcement {
	c.collect()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Announcement
	for _, x := range c.anns {
		if !a.IsValid() || x.Addr == a {
			out = append(out, x)
		}
	}
	return out
}

// Count returns how often the holder announced the address so far.
func (c *Capture) Count(a netip.Addr, holder string) int {
	n := 0
	for _, x := range c.Announcements(a) {
		if x.Holder == holder {
			n++
		}
	}
	return n
}

// Dropped returns how many packets the socket had no room for, after Stop.
func (c *Capture) Dropped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// Tcpdump starts tcpdump on the host's interface, writing to a file in the lab's
// directory, for a person to read. Its filter is that of pcap-filter(7).
func (h *Host) Tcpdump(on Network, file string, filter ...string) (*Proc, error) {
	return h.Start(Cmd{Args: append([]string{"tcpdump", "-U", "-i", on.String(), "-w", file, "-Z", "root"}, filter...), Dir: h.lab.dir})
}
