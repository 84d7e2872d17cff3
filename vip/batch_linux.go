package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// maxBatch bounds the messages of one system call. The kernel answers each that
	// fails, about 1 KiB of its memory, and changeBuffer has room for all.
	maxBatch     = largestBatch
	changeBuffer = 1 << 20
	// answerTimeout bounds waiting for an answer that the kernel gives before the send
	// returns.
	answerTimeout = 5000 // ms
)

// errNoAnswer is for a change of which the kernel said neither that it worked nor
// that it failed. Whoever tries again is told: the address exists, or is gone.
var errNoAnswer = errors.New("the kernel's answer was lost")

// Change implements Host.
func (h *Netlink) Change(changes []Change) []error {
	promote := map[int]bool{}
	for _, c := range changes {
		if a := c.Address.Prefix; a.Addr().Is4() && !a.IsSingleIP() {
			// The end of a primary address takes its secondaries along, which may be the
			// operator's, unless promote_secondaries is set.
			if c.Kind == DeleteAddress {
				promote[c.Link] = true
			} else if !c.Address.NoPrefixRoute {
				h.keepSecondaries(c.Link, a)
			}
		}
	}
	var errs []error
	if len(promote) > 0 {
		restore := promoteSecondaries(promote)
		defer func() {
			restore()
			for i, c := range changes {
				if err := errorOf(errs, i); c.Kind == DeleteAddress && (err == nil || errors.Is(err, ErrGone)) {
					h.forgetPrimary(c.Link, c.Address.Prefix)
				}
			}
		}()
	}
	for start := 0; start < len(changes); start += maxBatch {
		part := changes[start:min(start+maxBatch, len(changes))]
		h.linger.before(part)
		for i, err := range h.changes.do(part) {
			if errs == nil {
				errs = make([]error, len(changes))
			}
			errs[start+i] = err
		}
	}
	return errs
}

// A changeSocket sends changes of addresses, many with one system call, and only
// the last of them asks for an acknowledgement: the kernel answers a failure in any
// case, and what it does not answer has worked.
type changeSocket struct {
	mu      sync.Mutex
	s       *nl.NetlinkSocket
	seq     uint32 // of the last message
	request []byte
	answer  []byte
}

func openChangeSocket() (*changeSocket, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	// The kernel's own words about an error, without a copy of the request; old
	// kernels have neither.
	_ = s.SetExtAck(true)
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// Forcing needs CAP_NET_ADMIN, as the changes do. With the usual buffer some
	// answers of a batch that fails as a whole are lost, and it is tried again.
	_ = s.SetReceiveBufferSize(changeBuffer, true)
	return &changeSocket{s: s, answer: make([]byte, 64<<10)}, nil
}

func (c *changeSocket) close() { c.s.Close() }

// do makes at most maxBatch changes. It returns nil if all worked.
func (c *changeSocket) do(changes []Change) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, n := c.seq+1, uint32(len(changes))
	c.seq += n
	c.request = c.request[:0]
	for i, ch := range changes {
		c.request = appendChange(c.request, ch, first+uint32(i), i == len(changes)-1)
	}
	if err := unix.Sendto(c.s.GetFd(), c.request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		// Nothing was done.
		return fill(len(changes), fmt.Errorf("send to route netlink: %w", err))
	}

	var errs []error
	lost := false
	answered := make([]bool, n)
	for !answered[n-1] {
		size, err := c.receive(!lost)
		if errors.Is(err, unix.ENOBUFS) {
			lost = true // and go on reading: some answers are there
			continue
		}
		if err != nil {
			lost = true
			break
		}
		for b := c.answer[:size]; ; {
			var m answerMessage
			var ok bool
			if m, b, ok = nextAnswer(b); !ok {
				break
			}
			i := m.seq - first
			if i >= n { // of an earlier batch
				continue
			}
			answered[i] = true
			if err := changeError(changes[i].Kind, m); err != nil {
				if errs == nil {
					errs = make([]error, n)
				}
				errs[i] = err
			}
		}
	}
	if !lost {
		return errs
	}
	if errs == nil {
		errs = make([]error, n)
	}
	for i, ok := range answered {
		if !ok {
			errs[i] = errNoAnswer
		}
	}
	return errs
}

// receive reads one datagram. The kernel queues its answers before the send
// returns, so that there should be nothing to wait for.
func (c *changeSocket) receive(wait bool) (int, error) {
	fd := c.s.GetFd()
	for {
		n, _, err := unix.Recvfrom(fd, c.answer, unix.MSG_DONTWAIT)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !wait || !errors.Is(err, unix.EAGAIN):
			return 0, err
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, answerTimeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if err == nil && ready == 0 {
			return 0, unix.ETIMEDOUT
		}
	}
}

// fill returns n times err.
func fill(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// An answerMessage is NLMSG_ERROR: what became of one message.
type answerMessage struct {
	seq   uint32
	errno unix.Errno // 0 for an acknowledgement
	text  string     // the kernel's words, or empty
}

// nextAnswer takes the next answer from a datagram, passing over other messages.
func nextAnswer(b []byte) (m answerMessage, rest []byte, ok bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return m, nil, false
		}
		msg := b[:size]
		b = b[min(nlAlign(size), len(b)):]
		if binary.NativeEndian.Uint16(msg[4:]) != unix.NLMSG_ERROR || size < unix.SizeofNlMsghdr+4 {
			continue
		}
		m.seq = binary.NativeEndian.Uint32(msg[8:])
		m.errno = unix.Errno(-int32(binary.NativeEndian.Uint32(msg[unix.SizeofNlMsghdr:])))
		m.text = answerText(binary.NativeEndian.Uint16(msg[6:]), msg[unix.SizeofNlMsghdr+4:])
		return m, b, true
	}
	return m, nil, false
}

// answerText returns the kernel's words about an error. b begins with the request,
// of which only the header is there if flags has NLM_F_CAPPED.
func answerText(flags uint16, b []byte) string {
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(b) < unix.SizeofNlMsghdr {
		return ""
	}
	skip := unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 {
		skip = nlAlign(int(binary.NativeEndian.Uint32(b)))
	}
	if skip < unix.SizeofNlMsghdr || skip > len(b) {
		return ""
	}
	return unix.ByteSliceToString(attribute(b[skip:], unix.NLMSGERR_ATTR_MSG))
}

func nlAlign(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// changeError translates the kernel's answer.
func changeError(kind ChangeKind, m answerMessage) error {
	if m.errno == 0 {
		return nil
	}
	err := error(m.errno)
	if m.text != "" {
		err = fmt.Errorf("%w: %s", err, m.text)
	}
	switch {
	case m.errno == unix.EEXIST:
		return fmt.Errorf("%w: %w", ErrExists, err)
	case m.errno == unix.ENODEV, m.errno == unix.EADDRNOTAVAIL,
		// A link without any IPv6 address has no IPv6 state to delete one from.
		kind == DeleteAddress && m.errno == unix.ENXIO:
		return fmt.Errorf("%w: %w", ErrGone, err)
	case m.errno == unix.EPERM:
		return fmt.Errorf("%w (CAP_NET_ADMIN is needed)", err)
	case m.errno == unix.EACCES:
		return fmt.Errorf("%w (is net.ipv6.conf.*.disable_ipv6 set for the interface?)", err)
	}
	return err
}
