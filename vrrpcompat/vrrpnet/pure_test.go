package vrrpnet

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestOptions(t *testing.T) {
	good := Options{Interface: "eth0", VRID: 51}
	for _, x := range []struct {
		name   string
		change func(*Options)
		want   string // in the error; "" for none
	}{
		{"as it is", func(*Options) {}, ""},
		{"all there is", func(o *Options) {
			*o = Options{Interface: "eth0", IPv6: true, VRID: 255, Group: ip("ff02::99"), Source: ip("fe80::1"), TTL: 1, VMAC: &VMAC{Name: "vm"}}
		}, ""},
		{"unicast without interface", func(o *Options) { o.Interface, o.Source, o.Peers = "", ip("10.0.0.1"), []netip.Addr{ip("10.0.0.2")} }, ""},
		{"no VRID", func(o *Options) { o.VRID = 0 }, "VRID 0: must be 1 to 255"},
		{"no interface", func(o *Options) { o.Interface = "" }, "no interface: may be left out only with"},
		{"no source", func(o *Options) { o.Interface, o.Peers = "", []netip.Addr{ip("10.0.0.2")} }, "no interface: may be left out only with"},
		{"long name", func(o *Options) { o.Interface = strings.Repeat("x", 16) }, "at most 15 characters"},
		{"long virtual name", func(o *Options) { o.VMAC = &VMAC{Name: strings.Repeat("x", 16)} }, "at most 15 characters"},
		{"on itself", func(o *Options) { o.VMAC = &VMAC{Name: "eth0"} }, "is the base interface"},
		{"group of IPv6", func(o *Options) { o.Group = vrrpcompat.Group6 }, "group ff02::12: must be an IPv4 multicast address"},
		{"no group", func(o *Options) { o.Group = ip("10.0.0.1") }, "group 10.0.0.1: must be an IPv4 multicast address"},
		{"source of IPv6", func(o *Options) { o.Source = ip("fe80::1") }, "source fe80::1: must be an IPv4 unicast address"},
		{"source of IPv4", func(o *Options) { o.IPv6, o.Source = true, ip("::ffff:10.0.0.1") }, "must be an IPv6 unicast address"},
		{"source with zone", func(o *Options) { o.IPv6, o.Source = true, ip("fe80::1%eth0") }, "must be an IPv6 unicast address"},
		{"virtual source", func(o *Options) { o.Source, o.Virtual = ip("10.0.0.1"), []netip.Addr{ip("10.0.0.1")} }, "must not be a virtual address"},
		{"TTL", func(o *Options) { o.TTL = 256 }, "unicast TTL 256: must be 1 to 255"},
		{"peer", func(o *Options) { o.Peers = []netip.Addr{ip("224.0.0.18")} }, "peer 224.0.0.18: must be an IPv4 unicast address"},
		{"peer twice", func(o *Options) { o.Peers = []netip.Addr{ip("10.0.0.1"), ip("10.0.0.1")} }, "peer 10.0.0.1: named twice"},
		{"all at once", func(o *Options) { *o = Options{TTL: -1} }, "unicast TTL -1"},
	} {
		o := good
		x.change(&o)
		got, err := o.ready()
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.want == "" && (got.TTL == 0 || !got.Group.IsMulticast()):
			t.Errorf("%s: defaults are missing: %+v", x.name, got)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want) || !errors.Is(err, errOptions)):
			t.Errorf("%s: %v, want %s", x.name, err, x.want)
		}
	}
	if _, err := (Options{TTL: -1}).ready(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not all errors: %v", err)
	}
}

func TestVMACNames(t *testing.T) {
	for _, x := range []struct {
		o    Options
		want []string // the first ones
		mac  string
	}{
		{Options{VRID: 51, VMAC: &VMAC{}}, []string{"vrrp.51", "vrrp1.51", "vrrp2.51"}, "00:00:5e:00:01:33"},
		{Options{VRID: 51, IPv6: true, VMAC: &VMAC{}}, []string{"vrrp.51", "vrrp6.51", "vrrp1.51"}, "00:00:5e:00:02:33"},
		{Options{VRID: 255, VMAC: &VMAC{Name: "vip"}}, []string{"vip"}, "00:00:5e:00:01:ff"},
	} {
		names := x.o.vmacNames()
		if len(names) < len(x.want) || !slices.Equal(names[:len(x.want)], x.want) || x.o.mac().String() != x.mac {
			t.Errorf("%+v: %v, %v", x.o, names, x.o.mac())
		}
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n] || len(n) > maxInterfaceName {
				t.Errorf("%q: twice or too long", n)
			}
			seen[n] = true
		}
	}
}

func TestTransmitsVMAC(t *testing.T) {
	peers := []netip.Addr{ip("10.0.0.1")}
	for _, x := range []struct {
		o    Options
		want bool
	}{
		{Options{}, false},
		{Options{VMAC: &VMAC{}}, true},
		{Options{VMAC: &VMAC{TransmitBase: true}}, false},
		{Options{VMAC: &VMAC{}, Peers: peers}, false},
	} {
		if got := x.o.transmitsVMAC(); got != x.want {
			t.Errorf("%+v: %v", x.o, got)
		}
	}
}

func TestSource(t *testing.T) {
	const dev, other = 2, 3
	v4 := Options{Interface: "eth0"}
	v6 := Options{Interface: "eth0", IPv6: true}
	far := v6
	far.Peers = []netip.Addr{ip("2001:db8::2")}
	near := v6
	near.Peers = []netip.Addr{ip("fe80::2")}
	with := func(o Options, change func(*Options)) Options { change(&o); return o }
	a := func(s string, change ...func(*address)) address {
		x := address{addr: ip(s), index: dev}
		for _, f := range change {
			f(&x)
		}
		return x
	}
	on := func(i int) func(*address) { return func(x *address) { x.index = i } }
	unusable, passing := func(x *address) { x.unusable = true }, func(x *address) { x.passing = true }
	secondary, narrow := func(x *address) { x.secondary = true }, func(x *address) { x.narrow = true }
	for _, x := range []struct {
		name  string
		o     Options
		addrs []address
		want  string // "" for none
	}{
		{"none", v4, nil, ""},
		{"other interface only", v4, []address{a("10.0.0.1", on(other))}, ""},
		{"other family only", v4, []address{a("fe80::1")}, ""},
		{"first", v4, []address{a("10.0.0.1"), a("10.0.1.1")}, "10.0.0.1"},
		{"primary", v4, []address{a("10.0.0.9", secondary), a("10.0.1.1")}, "10.0.1.1"},
		{"secondary if need be", v4, []address{a("169.254.0.1", narrow), a("10.0.0.9", secondary)}, "10.0.0.9"},
		{"lasting", v4, []address{a("10.0.0.1", passing), a("10.0.1.1")}, "10.0.1.1"},
		{"leased", v4, []address{a("10.0.0.1", passing)}, "10.0.0.1"},
		{"link scope if need be", v4, []address{a("169.254.0.1", narrow)}, "169.254.0.1"},
		{"never virtual", with(v4, func(o *Options) { o.Virtual = []netip.Addr{ip("10.0.0.1"), ip("10.0.0.9")} }), []address{a("10.0.0.1"), a("10.0.0.9", secondary), a("10.0.1.1", passing)}, "10.0.1.1"},
		{"only virtual", with(v4, func(o *Options) { o.Virtual = []netip.Addr{ip("10.0.0.1")} }), []address{a("10.0.0.1")}, ""},
		{"loopback", v4, []address{a("127.0.0.1")}, ""},
		{"asked for", with(v4, func(o *Options) { o.Source = ip("10.0.1.1") }), []address{a("10.0.0.1"), a("10.0.1.1")}, "10.0.1.1"},
		{"asked for, elsewhere", with(v4, func(o *Options) { o.Source = ip("10.0.1.1") }), []address{a("10.0.0.1"), a("10.0.1.1", on(other))}, "10.0.1.1"},
		{"asked for, not there", with(v4, func(o *Options) { o.Source = ip("10.0.1.1") }), []address{a("10.0.0.1")}, ""},
		{"link-local", v6, []address{a("2001:db8::1"), a("fe80::1", narrow)}, "fe80::1"},
		{"no link-local", v6, []address{a("2001:db8::1")}, ""},
		{"link-local, tentative", v6, []address{a("fe80::1", narrow, unusable)}, ""},
		{"virtual link-local", with(v6, func(o *Options) { o.Virtual = []netip.Addr{ip("fe80::99")} }), []address{a("fe80::99"), a("fe80::1")}, "fe80::1"},
		{"far peer", far, []address{a("fe80::1", narrow), a("2001:db8::1")}, "2001:db8::1"},
		{"far peer, lasting", far, []address{a("2001:db8::8", passing), a("2001:db8::1")}, "2001:db8::1"},
		{"far peer, no global", far, []address{a("fe80::1", narrow)}, "fe80::1"},
		{"near peer", near, []address{a("2001:db8::1"), a("fe80::1", narrow)}, "fe80::1"},
		{"near peer, no link-local", near, []address{a("2001:db8::1")}, "2001:db8::1"},
		{"link-local asked for, elsewhere", with(v6, func(o *Options) { o.Source = ip("fe80::1") }), []address{a("fe80::1", on(other))}, ""},
	} {
		got, err := x.o.source(x.addrs, dev)
		switch {
		case x.want == "":
			if !errors.Is(err, ErrNoSource) {
				t.Errorf("%s: %v, %v", x.name, got.addr, err)
			}
		case err != nil || got.addr != ip(x.want):
			t.Errorf("%s: %v, %v, want %s", x.name, got.addr, err, x.want)
		}
	}
	o := Options{Source: ip("10.0.1.1"), Peers: []netip.Addr{ip("10.0.0.2")}}
	if got, err := o.source([]address{a("10.0.0.1"), a("10.0.1.1", on(other))}, 0); err != nil || got.index != other {
		t.Errorf("interface by source: %d, %v", got.index, err)
	}
}

func TestSamePlace(t *testing.T) {
	at := func(index int, name, source string) place {
		return place{base: &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name}}, source: ip(source)}
	}
	p := at(2, "eth0", "10.0.0.1")
	for _, x := range []struct {
		q    place
		want bool
	}{
		{at(2, "eth0", "10.0.0.1"), true},
		{at(3, "eth0", "10.0.0.1"), false}, // another interface of this name
		{at(2, "eth1", "10.0.0.1"), false}, // renamed
		{at(2, "eth0", "10.0.0.2"), false},
	} {
		if got := p.same(x.q); got != x.want {
			t.Errorf("%+v: %v", x.q, got)
		}
	}
}

// packet4 is an IPv4 packet of protocol 112 with header words of options.
func packet4(options int, payload ...byte) []byte {
	b := make([]byte, 20+4*options, 64)
	b[0] = byte(0x45 + options)
	b[3] = byte(len(b) + len(payload))
	b[8], b[9] = 255, vrrpcompat.Protocol
	copy(b[12:], []byte{10, 0, 0, 1, 224, 0, 0, 18})
	return append(b, payload...)
}

func TestParseIPv4(t *testing.T) {
	change := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	for _, x := range []struct {
		name string
		b    []byte
		want []byte
		ok   bool
	}{
		{"plain", packet4(0, 0x31, 51, 100), []byte{0x31, 51, 100}, true},
		{"options", packet4(2, 0x31, 51), []byte{0x31, 51}, true},
		{"padded", append(packet4(0, 0x31, 51), 0, 0, 0), []byte{0x31, 51}, true},
		{"nothing in it", packet4(0), []byte{}, true},
		{"empty", nil, nil, false},
		{"cut off", packet4(0, 1, 2, 3)[:22], nil, false},
		{"half a header", packet4(0)[:19], nil, false},
		{"header too short", change(packet4(0), 0, 0x44), nil, false},
		{"header longer than packet", change(packet4(0), 0, 0x4f), nil, false},
		{"IPv6", change(packet4(0), 0, 0x65), nil, false},
		{"other protocol", change(packet4(0), 9, 17), nil, false},
	} {
		src, dst, ttl, payload, ok := parseIPv4(x.b)
		if ok != x.ok || ok && (!slices.Equal(payload, x.want) || src != ip("10.0.0.1") || dst != vrrpcompat.Group4 || ttl != 255) {
			t.Errorf("%s: %v, %v, %d, %x, %v", x.name, src, dst, ttl, payload, ok)
		}
	}
}

func FuzzParseIPv4(f *testing.F) {
	f.Add(packet4(0, 0x31, 51, 100))
	f.Add(packet4(2))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, _, payload, ok := parseIPv4(b); ok && len(payload) > len(b)-20 {
			t.Errorf("%d bytes of %d", len(payload), len(b))
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte{28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { parseControl(b) })
}

func TestFilterVRID(t *testing.T) {
	for _, x := range []struct {
		name string
		ipv6 bool
		b    []byte
		want bool
	}{
		{"ours", false, packet4(0, 0x31, 51, 100), true},
		{"ours behind options", false, packet4(3, 0x31, 51, 100), true},
		{"another", false, packet4(0, 0x31, 52, 100), false},
		{"too short", false, packet4(0, 0x31), false},
		{"ours, IPv6", true, []byte{0x31, 51, 100}, true},
		{"another, IPv6", true, []byte{0x31, 50, 51}, false},
		{"too short, IPv6", true, []byte{0x31}, false},
	} {
		vm, err := bpf.NewVM(filterVRID(x.ipv6, 51))
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(x.b)
		if err != nil || (n > 0) != x.want || n > 0 && n < 1<<16 {
			t.Errorf("%s: passes %d bytes, %v", x.name, n, err)
		}
	}
}

func TestNotes(t *testing.T) {
	var all notes
	n := Note{Reason: "version", Sender: ip("10.0.0.1"), Detail: "version 2", Dropped: true}
	for i, want := range []bool{true, false, false} {
		if got := all.add(time.Duration(i)*time.Second, n); got != want {
			t.Errorf("%d: fresh %v", i, got)
		}
	}
	n.Detail = "version 4"
	if !all.add(noteAgain+3*time.Second, n) {
		t.Error("not fresh after a long time")
	}
	want := Note{Reason: "version", Sender: n.Sender, Detail: "version 4", Dropped: true, Count: 4, Last: noteAgain + 3*time.Second}
	if len(all) != 1 || all[0] != want {
		t.Fatalf("%+v", all)
	}
	// Forged senders push each other out, not what is still being seen.
	for i := range 1000 {
		now := noteAgain + time.Minute + time.Duration(i)*time.Second
		all.add(now, Note{Reason: "ttl", Sender: netip.AddrFrom4([4]byte{10, 1, byte(i / 256), byte(i)})})
		all.add(now, n)
	}
	if len(all) != maxNotes || all[0].Count != 1004 {
		t.Errorf("%d notes, the first %+v", len(all), all[0])
	}
}

func TestDetail(t *testing.T) {
	adv := vrrpcompat.Advertisement{Version: 2, VRID: 51, Priority: 100, Interval: 3 * time.Second, AuthType: vrrpcompat.AuthPass, Auth: vrrpcompat.Password("hunter2")}
	for i := range 10 {
		adv.Addresses = append(adv.Addresses, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	b, err := adv.Append(nil, ip("10.0.0.1"), vrrpcompat.Group4, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := vrrpcompat.Datagram{Payload: b, Source: ip("10.0.0.1"), Destination: vrrpcompat.Group4, TTL: 64}
	for drop, want := range map[vrrpcompat.Drop]string{
		vrrpcompat.DropLength: "56 bytes", vrrpcompat.DropTTL: "TTL 64", vrrpcompat.DropPeerTTL: "TTL 64", vrrpcompat.DropVersion: "version 2",
		vrrpcompat.DropType: "type 1", vrrpcompat.DropNotUnicast: "to 224.0.0.18", vrrpcompat.DropAuthType: "authentication type 1",
		vrrpcompat.DropInterval:    "interval 3s",
		vrrpcompat.DropAddressList: "addresses 10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7 and 2 more",
		vrrpcompat.DropAuthData:    "", vrrpcompat.DropChecksum: "",
	} {
		if got := detail(d, drop); got != want {
			t.Errorf("%v: %q, want %q", drop, got, want)
		}
	}
	// None is too short for it, and none tells a password.
	for n := range len(b) + 1 {
		for _, drop := range vrrpcompat.Drops() {
			if drop != vrrpcompat.DropLength && n < 8 {
				continue // shorter ones are dropped for their length
			}
			d.Payload = b[:n]
			if s := detail(d, drop); strings.Contains(s, "hunter") {
				t.Errorf("%v: %q", drop, s)
			}
		}
	}
}

func TestCoalesce(t *testing.T) {
	type actions = []vrrpcompat.Action
	send := func(p uint8) vrrpcompat.Action { return vrrpcompat.SendAdvertisement{Priority: p} }
	for _, x := range []struct {
		name string
		in   []actions
		want actions
	}{
		{"nothing", []actions{nil, nil}, nil},
		{"one answer to many", []actions{{send(100), vrrpcompat.Announce{}}, {send(100), vrrpcompat.Announce{}}, {send(100), vrrpcompat.Announce{}}}, actions{send(100), vrrpcompat.Announce{}}},
		{"none when a better one follows", []actions{{send(100), vrrpcompat.Announce{}}, {vrrpcompat.BecomeBackup{Reason: "x"}}}, nil},
		{"but what it says then", []actions{{vrrpcompat.Announce{}}, {send(100), vrrpcompat.BecomeBackup{Reason: "x"}}}, actions{send(100)}},
		{"and what comes after", []actions{{vrrpcompat.BecomeBackup{Reason: "x"}}, {send(100), vrrpcompat.BecomeMaster{Reason: "y"}}}, actions{send(100), vrrpcompat.BecomeMaster{Reason: "y"}}},
	} {
		var got actions
		for _, next := range x.in {
			got = coalesce(got, next)
		}
		if len(got)+len(x.want) > 0 && !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestNewRouterErrors(t *testing.T) {
	good := func() Config {
		return Config{
			Options: Options{Interface: "eth0", VRID: 51},
			Machine: vrrpcompat.MachineConfig{Version: 3, Priority: 100, Interval: time.Second},
			Expect:  vrrpcompat.Expect{Addresses: vrrpcompat.AddressList{Addresses: []netip.Addr{ip("10.0.0.100")}}},
		}
	}
	for _, x := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"good", func(*Config) {}, nil},
		{"version 2 over IPv6", func(c *Config) { c.Machine.Version, c.Options.IPv6 = 2, true }, []string{"version 2: must be 2 or 3, and 3 for IPv6"}},
		{"interval", func(c *Config) { c.Machine.Version, c.Machine.Interval = 2, 100*time.Millisecond }, []string{"whole seconds"}},
		{"password in version 3", func(c *Config) { c.Expect.AuthType = vrrpcompat.AuthPass }, []string{"authentication: needs version 2"}},
		{"address of the other family", func(c *Config) { c.Expect.Addresses.Addresses = []netip.Addr{ip("fe80::1")} }, []string{"address fe80::1"}},
		{"virtual source", func(c *Config) { c.Options.Source = ip("10.0.0.100") }, []string{"must not be a virtual address"}},
		{"several", func(c *Config) { c.Options.VRID, c.Machine.Priority, c.Machine.Version = 0, 0, 4 }, []string{"VRID 0", "priority 0", "version 4"}},
		{"peer", func(c *Config) { c.Expect.Peers = []vrrpcompat.Peer{{Address: ip("fe80::1")}} }, []string{"peer fe80::1"}},
	} {
		c := good()
		x.change(&c)
		_, err := NewRouter(c)
		if x.want == nil && err != nil || x.want != nil && (err == nil || !errors.Is(err, errOptions)) {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		for _, want := range x.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", x.name, err, want)
			}
		}
	}
}

// Without a socket everything can be called, and Changed is closed by a change.
func TestRouterWithoutSocket(t *testing.T) {
	r, err := NewRouter(Config{
		Options: Options{Interface: "eth0", VRID: 51},
		Machine: vrrpcompat.MachineConfig{Version: 3, Priority: 100, Interval: time.Second, Hybrid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	changed := r.Changed()
	r.SetPriority(100)
	r.Startup()
	r.Shutdown()
	r.Disentitle(true)
	select {
	case <-changed:
		t.Error("changed by nothing")
	default:
	}
	r.Entitle(false)
	<-changed
	if s := r.Status(); !s.Entitled || s.State != vrrpcompat.Initialize || s.Down == nil {
		t.Errorf("%+v", s)
	}
	changed = r.Changed()
	r.SetPriority(42)
	<-changed
	if s := r.Status(); s.Priority != 42 {
		t.Errorf("%+v", s)
	}
	if err := r.SetAddresses([]netip.Addr{ip("fe80::1")}); err == nil {
		t.Error("IPv6 address taken")
	}
	if err := r.SetAddresses([]netip.Addr{ip("10.0.0.1")}); err != nil {
		t.Error(err)
	}
}

// Our own advertisement that comes back is told from another router's with our
// address.
func TestOwnOrSameAddress(t *testing.T) {
	r := &Router{machine: vrrpcompat.MachineConfig{Interval: time.Second}}
	d := vrrpcompat.Datagram{Payload: []byte{0x31, 51, 100}}
	for _, x := range []struct {
		name string
		said said
		want string
	}{
		{"never spoke", said{}, ReasonSameAddress},
		{"just now", said{at: 9900 * time.Millisecond, priority: 100, ok: true}, ReasonLooped},
		{"with another priority", said{at: 9900 * time.Millisecond, priority: 99, ok: true}, ReasonSameAddress},
		{"long ago", said{at: 9 * time.Second, priority: 100, ok: true}, ReasonSameAddress},
	} {
		r.said = x.said
		if got := r.own(10*time.Second, d); got != x.want {
			t.Errorf("%s: %s", x.name, got)
		}
	}
}
