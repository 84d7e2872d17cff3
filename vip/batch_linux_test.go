package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopbackHost is a Host in the test's own network namespace, where lo has index 1.
func loopbackHost(t *testing.T) *Netlink {
	t.Helper()
	if os.Getenv("RAFTVIP_NETNS_INSIDE") == "" {
		t.Skip("needs root and RAFTVIP_NETNS=1")
	}
	h, err := OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// changesOf makes changes of n addresses of lo.
func changesOf(kind ChangeKind, n int) []Change {
	var changes []Change
	for i := range n {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 5, byte(i / 250), byte(1 + i%250)}), 32)
		changes = append(changes, Change{Kind: kind, Link: 1, Address: KernelAddress{Prefix: p, Protocol: AddrProtocol, NoPrefixRoute: true}})
	}
	return changes
}

// has returns how many of the changes' addresses are on lo.
func has(t *testing.T, h *Netlink, changes []Change) int {
	t.Helper()
	links, err := h.Links()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		for _, a := range l.Addresses {
			if slices.ContainsFunc(changes, func(c Change) bool { return c.Link == l.Index && c.Address.Prefix == a.Prefix }) {
				n++
			}
		}
	}
	return n
}

func TestNetnsBatch(t *testing.T) {
	h := loopbackHost(t)
	add, del := changesOf(AddAddress, 1000), changesOf(DeleteAddress, 1000)
	if errs := h.Change(add); errs != nil || has(t, h, add) != 1000 {
		t.Fatalf("add: %v, %d are there", errors.Join(errs...), has(t, h, add))
	}
	// All fail, each with an answer of its own.
	for i, err := range h.Change(add) {
		if !errors.Is(err, ErrExists) {
			t.Errorf("%d again: %v", i, err)
		}
	}
	// One in four is there no more, one in five is for no link.
	for i := range del {
		if i%5 == 1 {
			del[i].Link = 12345
		}
	}
	gone := slices.Collect(func(yield func(Change) bool) {
		for i := 0; i < len(del); i += 4 {
			if del[i].Link == 1 && !yield(del[i]) {
				return
			}
		}
	})
	if errs := h.Change(gone); errs != nil {
		t.Error(errors.Join(errs...))
	}
	for i, err := range h.Change(del) {
		if want := i%5 == 1 || i%4 == 0; errors.Is(err, ErrGone) != want || (err != nil) != want {
			t.Errorf("delete %d: %v", i, err)
		}
	}
	if n := has(t, h, add); n != 200 {
		t.Errorf("%d are left, want those that were to be deleted from no link", n)
	}
	if errs := h.Change(changesOf(RefreshAddress, 1000)); errs != nil || has(t, h, add) != 1000 {
		t.Errorf("refresh: %v, %d are there", errors.Join(errs...), has(t, h, add))
	}
	if errs := h.Change(changesOf(DeleteAddress, 1000)); errs != nil || has(t, h, add) != 0 {
		t.Errorf("delete: %v, %d are there", errors.Join(errs...), has(t, h, add))
	}
	if errs := h.Change(nil); errs != nil {
		t.Error(errs)
	}
}

// A batch of which answers are lost is one that failed in part: what is not known
// is not taken for done, and the next batch is not answered with what is left of it.
func TestNetnsBatchLosesAnswers(t *testing.T) {
	h := loopbackHost(t)
	if err := unix.SetsockoptInt(h.changes.s.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the least there is
		t.Fatal(err)
	}
	add := changesOf(AddAddress, 200)
	if errs := h.Change(add); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	start := time.Now()
	lost := 0
	for i, err := range h.Change(add) {
		if errors.Is(err, errNoAnswer) {
			lost++
		} else if !errors.Is(err, ErrExists) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if lost == 0 || time.Since(start) > time.Second {
		t.Errorf("%d answers were lost, it took %v", lost, time.Since(start))
	}
	if errs := h.Change(changesOf(DeleteAddress, 200)); errs != nil {
		t.Error(errors.Join(errs...))
	}
}

// A watcher that cannot keep up gets a Snapshot in place of what was lost.
func TestNetnsWatchOverflow(t *testing.T) {
	h := loopbackHost(t)
	h2 := loopbackHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	var snapshots, events atomic.Int64
	ready, hold := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- h.Watch(ctx, func(e Event) {
			if e.Kind != Snapshot {
				events.Add(1)
			} else if snapshots.Add(1) == 1 {
				close(ready)
				<-hold
			}
		})
	}()
	<-ready
	for range 20 {
		if errs := h2.Change(changesOf(RefreshAddress, 1000)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	close(hold)
	for start := time.Now(); snapshots.Load() < 2 && time.Since(start) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	if errs := h2.Change(changesOf(DeleteAddress, 1000)); errs != nil {
		t.Error(errors.Join(errs...))
	}
	for start := time.Now(); events.Load() < 2500 && time.Since(start) < 5*time.Second; {
		time.Sleep(time.Millisecond) // the overflow is told before what is in the buffer
	}
	if n := snapshots.Load(); n < 2 {
		t.Errorf("%d snapshots, want a second one", n)
	}
	if n := events.Load(); n < 2500 {
		t.Errorf("%d events: the buffer does not hold two takes of a thousand", n)
	}
	start := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(start) > time.Second {
		t.Errorf("Watch returned %v after %v", err, time.Since(start))
	}
}

func TestAnswers(t *testing.T) {
	answer := func(size int, flags uint16, seq uint32, errno int32, rest ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(size))
		b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_ERROR)
		b = binary.NativeEndian.AppendUint16(b, flags)
		b = binary.NativeEndian.AppendUint32(b, seq)
		b = binary.NativeEndian.AppendUint32(b, 7)
		b = binary.NativeEndian.AppendUint32(b, uint32(errno))
		return append(b, rest...)
	}
	text := binary.NativeEndian.AppendUint16(nil, 8)
	text = append(binary.NativeEndian.AppendUint16(text, unix.NLMSGERR_ATTR_MSG), "no!\x00"...)
	header := func(size uint32) []byte {
		return append(binary.NativeEndian.AppendUint32(nil, size), make([]byte, 12)...)
	}
	capped := answer(44, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, 5, -int32(unix.EEXIST), append(header(100), text...)...)
	whole := answer(48, unix.NLM_F_ACK_TLVS, 6, -int32(unix.ENODEV), append(append(header(20), 1, 2, 3, 4), text...)...)
	for name, tt := range map[string]struct {
		b    []byte
		want []answerMessage
	}{
		"nothing":   {nil, nil},
		"ack":       {answer(20, 0, 3, 0), []answerMessage{{seq: 3}}},
		"two":       {append(slices.Clone(capped), whole...), []answerMessage{{5, unix.EEXIST, "no!"}, {6, unix.ENODEV, "no!"}}},
		"cut":       {capped[:43], nil},
		"too short": {answer(12, 0, 3, 0), nil},
		"no text":   {answer(36, 0, 3, -1, header(36)...), []answerMessage{{3, unix.EPERM, ""}}},
		"request too long": {answer(48, unix.NLM_F_ACK_TLVS, 6, -1, append(append(header(2000), 1, 2, 3, 4), text...)...),
			[]answerMessage{{6, unix.EPERM, ""}}},
		"request too short": {answer(48, unix.NLM_F_ACK_TLVS, 6, -1, append(append(header(3), 1, 2, 3, 4), text...)...),
			[]answerMessage{{6, unix.EPERM, ""}}},
		"other first": {append([]byte{17, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, answer(20, 0, 9, 0)...), []answerMessage{{seq: 9}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []answerMessage
			for b := tt.b; ; {
				m, rest, ok := nextAnswer(b)
				if !ok {
					break
				}
				got, b = append(got, m), rest
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// members returns how many of the solicited-node groups ff02::1:ff05:x a link of
// that name is in.
func members(t *testing.T, link string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/net/igmp6")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == link && strings.HasPrefix(f[2], "ff0200000000000000000001ff05") {
			n++
		}
	}
	return n
}

// The groups of many addresses outlive them, those of a few do not.
func TestNetnsLinger(t *testing.T) {
	h := loopbackHost(t)
	must := func(errs []error) {
		t.Helper()
		if errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "d0"}, PeerName: "d1"}); err != nil {
		t.Fatal(err)
	}
	d0, err := netlink.LinkByName("d0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(d0) }()
	for _, name := range []string{"d1", "d0"} {
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	change := func(kind ChangeKind, n int) (changes []Change) {
		for i := range n {
			ip := netip.AddrFrom16([16]byte{0: 0xfd, 13: 5, 14: byte(i / 250), 15: byte(1 + i%250)})
			changes = append(changes, Change{Kind: kind, Link: d0.Attrs().Index, Address: KernelAddress{Prefix: netip.PrefixFrom(ip, 128), NoDAD: true}})
		}
		return changes
	}
	joined := func(n int) {
		t.Helper()
		for range 200 {
			if members(t, "d0") == n {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("member of %d groups, want %d", members(t, "d0"), n)
	}
	must(h.Change(change(AddAddress, 3)))
	joined(3)
	must(h.Change(change(DeleteAddress, 3)))
	joined(0)
	for range 2 {
		must(h.Change(change(AddAddress, 500)))
		joined(500)
		must(h.Change(change(DeleteAddress, 500)))
		joined(500)
	}
	if n := len(h.linger.socks); n != 3 {
		t.Errorf("%d sockets, want 3", n)
	}
	h.linger.end() // as after a minute
	joined(0)
	must(h.Change(change(AddAddress, 20)))
	joined(20) // the kernel leaves also what it has not joined yet
	must(h.Change(change(DeleteAddress, 20)))
	joined(20)
	h.linger.close()
	joined(0)
	// A link that is gone is nothing to stumble over.
	gone := change(DeleteAddress, 20)
	for i := range gone {
		gone[i].Link = 12345
	}
	for _, err := range h.Change(gone) {
		if !errors.Is(err, ErrGone) {
			t.Error(err)
		}
	}
}
