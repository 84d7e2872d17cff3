package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestNoQuorum: one of three is left.
func TestNoQuorum(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	// On a busy machine the leader may have changed before.
	again := func() int { return strings.Count(o.Daemon().Output(), "there is a leader again") }
	before := again()
	for _, n := range c.Others(o) {
		must(t, n.Kill())
	}
	testnet.MustWait(t, 10*time.Second, "the address to be silent", func() error {
		owners, err := c.Lab.Owners(vip4)
		if err == nil && len(owners) > 0 {
			err = fmt.Errorf("%v", owners)
		}
		return err
	})
	testnet.MustWait(t, 10*time.Second, "exit code 4", func() error {
		r, err := o.Run(t.Context(), "status")
		if err == nil && r.Code != 4 {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
	testnet.MustWait(t, 10*time.Second, "the node to have asked who is there", func() error {
		if st := status(t, o); !strings.HasPrefix(st.Groups[0].Why, "no quorum") {
			return fmt.Errorf("%s", st.Groups[0].Why)
		}
		return nil
	})
	if r, err := o.Run(t.Context(), "status"); err != nil || !strings.Contains(r.Stdout, "warning: no quorum") || !strings.Contains(r.Stdout, "owner     not known here") {
		t.Errorf("status: %v %v", r, err)
	}
	fails(t, o, 4, []string{"no quorum: 1 of 3 voters answer"}, "vip", "add", "10.99.0.101/24@eth0")
	fails(t, o, 4, []string{"no quorum"}, "transfer")
	// The log says once who is missing, and again when one of them is back.
	a, b := c.Others(o)[0], c.Others(o)[1]
	missing := fmt.Sprintf("1 of 3 voters answer; missing: %s and %s", a.Name, b.Name)
	testnet.MustWait(t, 10*time.Second, "the log to say who is missing", func() error {
		if log := o.Daemon().Output(); strings.Count(log, missing) != 1 {
			return fmt.Errorf("%s", log)
		}
		return nil
	})
	for _, n := range c.Others(o) {
		must(t, n.Start())
	}
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	now := owner(t, c, nil)
	// The history has the loss, where it was, and blames it and not the owner.
	testnet.MustWait(t, 10*time.Second, "the loss in the history", func() error {
		moves, err := now.History(t.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(moves, func(m api.Move) bool { return m.Loss })
		if i < 1 || i+1 >= len(moves) {
			return fmt.Errorf("%+v", moves)
		}
		l, next := moves[i], moves[i+1]
		if l.From != o.Name || l.To != "" || !strings.Contains(l.Reason, a.Name+" and "+b.Name+" did not answer") {
			return fmt.Errorf("loss: %+v", l)
		}
		if strings.Contains(next.Reason, "election: "+o.Name) || next.To != now.Name {
			return fmt.Errorf("blamed: %+v", next)
		}
		// Who was there all the time knows why nobody owned.
		if next.To == o.Name && !strings.HasPrefix(next.Reason, "quorum is back after ") {
			return fmt.Errorf("not told as the end of the loss: %+v", next)
		}
		t.Logf("%s: %s", next.To, next.Reason)
		return nil
	})
	if told := again() - before; told != 1 {
		t.Errorf("the end of the loss is told %d times:\n%s", told, o.Daemon().Output())
	}
}

// TestTokens: a wrong one, an old one, a used one, one of another cluster.
func TestTokens(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	member := owner(t, c, nil)
	newcomer := func(name string) *Node { return c.NewNode(c.Lab.Client(0), name) }
	create := func(args ...string) api.Token {
		t.Helper()
		var token api.Token
		must(t, member.JSON(t.Context(), &token, append([]string{"token", "create"}, args...)...))
		return token
	}
	host := get[Ticket](t)(TicketFrom(create().Join)).Host
	join := func(name, token string, code int, says ...string) {
		t.Helper()
		n := newcomer(name)
		fails(t, n, code, says, "join", host, "--token", token, "--name", name)
		if _, err := os.Stat(n.DataDir + "/node.json"); err == nil {
			t.Errorf("a refused join has left an identity")
		}
	}
	good := create()
	join("a", "nonsense", 1, "token")
	join("a", wrongSecret(good.Text), 1)
	join("a", good.Text[:len(good.Text)-4], 1, "token")

	old := create("--ttl", "1s")
	testnet.MustWait(t, 10*time.Second, "the token to expire", func() error {
		if left := time.Until(old.Expires); left > 0 {
			return fmt.Errorf("good for another %v", left)
		}
		return nil
	})
	join("a", old.Text, 1, "expired")

	other := newcomer("other")
	r, err := other.Must(t.Context(), "init", "--name", "other")
	must(t, err)
	join("a", get[Ticket](t)(TicketFrom(r.Stdout)).Token, 1, "the token is of another cluster")

	// The name of a member, and a token that has been used.
	join(member.Name, good.Text, 1, "name "+member.Name, "taken")
	run(t, newcomer("a"), "join", host, "--token", good.Text, "--name", "a")
	join("b", good.Text, 1, "does not know the token")
	revoked := create()
	run(t, member, "token", "revoke", revoked.ID)
	join("b", revoked.Text, 1, "does not know the token")

	// A data directory that is somebody's, for join and for init.
	fails(t, other, 1, []string{other.DataDir, "already belongs to node other"}, "join", host, "--token", create().Text, "--name", "c")
	fails(t, other, 1, []string{"already belongs to node other"}, "init", "--name", "c")
	fails(t, newcomer("d"), 1, []string{"reach 10.99.0.199:7355"}, "join", "10.99.0.199", "--token", create().Text, "--name", "d")
	owner(t, c, member)
}

// wrongSecret changes a character in the middle of a token.
func wrongSecret(token string) string {
	b := []byte(token)
	i := len(b) * 3 / 4
	if b[i] == 'a' {
		b[i] = 'b'
	} else {
		b[i] = 'a'
	}
	return string(b)
}

// TestBadStart: a daemon that cannot start says why and ends.
func TestBadStart(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	running := owner(t, c, nil)
	h := c.Lab.Client(0)

	empty := c.NewNode(h, "empty")
	must(t, empty.Start())
	ends(t, empty, "belongs to no cluster yet", "raftvip init")

	var ln net.Listener
	must(t, h.Do(func() (err error) { ln, err = net.Listen("tcp", ":7355"); return err }))
	t.Cleanup(func() { _ = ln.Close() })
	busy := c.NewNode(h, "busy")
	run(t, busy, "init", "--name", "busy")
	must(t, busy.Start())
	ends(t, busy, "the port is in use", "ss -ltnp")

	// The same data directory twice, and the socket of another.
	twin := c.NewNode(running.Host, "twin")
	twin.DataDir = running.DataDir
	must(t, twin.Start())
	ends(t, twin, "another raftvip process uses the data dir", "--data-dir")

	// The secret of another cluster beside a data directory of this one.
	const file = "raft {\n secret_file %s\n}\n"
	stranger := c.NewNode(h, "stranger")
	run(t, stranger, "init", "--name", "stranger")
	mixed := c.NewNode(h, "mixed")
	run(t, mixed, "init", "--name", "mixed")
	mixed.Config = get[string](t)(mixed.WriteFile("raftvip.conf", fmt.Sprintf(file, stranger.DataDir+"/secret")))
	must(t, mixed.Start())
	ends(t, mixed, "belongs to cluster", mixed.DataDir)

	// Two instances with one address; an interface that is not there.
	const instance = "vrrp_instance %s {\n interface %s\n virtual_router_id %d\n virtual_ipaddress {\n %v/24\n }\n}\n"
	twice := c.NewNode(h, "twice")
	twice.Config = get[string](t)(twice.WriteFile("raftvip.conf",
		fmt.Sprintf(instance, "a", "eth0", 51, vip4)+fmt.Sprintf(instance, "b", "eth0", 52, vip4)))
	fails(t, twice, 1, []string{twice.Config + ":12", vip4.String()}, "init", "--name", "twice")
	must(t, twice.Start())
	ends(t, twice, twice.Config+":12", vip4.String(), "check-config")
	if _, err := twice.WriteFile("raftvip.conf", fmt.Sprintf(instance, "a", "eth7", 51, vip4)); err != nil {
		t.Fatal(err)
	}
	must(t, twice.Start())
	ends(t, twice, twice.Config, "eth7")

	// Commands without a daemon.
	fails(t, empty, 3, []string{"no raftvip daemon is running here"}, "status")
	fails(t, empty, 2, nil, "transfer", "a", "b")
	owner(t, c, running)
}

// TestNoRoot: as a user that may do nothing.
func TestNoRoot(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	running := owner(t, c, nil)
	n := c.NewNode(c.Lab.Client(0), "nobody")
	dir, err := os.MkdirTemp("", "raftvip-e2e-nobody-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	const nobody = 65534
	as := func(n *Node, says string, args ...string) {
		t.Helper()
		r, err := n.RunAs(t.Context(), nobody, nobody, args...)
		must(t, err)
		refused(t, strings.Join(args, " "), r, 1, []string{says})
	}
	// A data directory that only root can make, and one that it may use.
	n.DataDir, n.Socket = dir+"/data", dir+"/sock"
	as(n, "permission denied", "run")
	as(n, "permission denied", "init", "--name", "nobody")
	must(t, os.Mkdir(n.DataDir, 0o700))
	must(t, os.Chown(n.DataDir, nobody, nobody))
	run(t, n, "init", "--name", "nobody")
	for _, f := range []string{"node.json", "secret", "cluster.json", "seed.json", "lock"} {
		must(t, os.Chown(n.DataDir+"/"+f, nobody, nobody))
	}
	as(n, "CAP_NET_ADMIN and CAP_NET_RAW", "run")
	as(n, "must run as root", "cleanup")
	// The socket of a daemon that runs as root.
	foreign := c.NewNode(running.Host, "foreign")
	foreign.Socket = dir + "/root.sock"
	must(t, os.Link(running.Socket, foreign.Socket))
	as(foreign, "permission denied", "status")
	owner(t, c, running)
}

// TestBadAddress: virtual addresses that cannot be added.
func TestBadAddress(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	n := owner(t, c, nil)
	add := func(code int, address string, says ...string) {
		t.Helper()
		fails(t, n, code, says, "vip", "add", address)
	}
	add(1, "10.99.0.101/24@eth7", "eth7")
	add(1, "192.0.2.10/24", "192.0.2.10")
	add(1, vip4.String()+"/24@eth0", "already in instance default")
	add(2, "10.99.0.300/24@eth0", "must be ADDRESS")
	add(2, "224.0.0.1/24@eth0", "not a unicast address")
	// The daemon does not rely on its commands.
	for _, a := range []string{"127.0.0.1/8", "224.0.0.18/32", "ff02::1/128", "0.0.0.0/32", "10.99.0.255/24", "255.255.255.255/32", "::ffff:10.99.0.9/120"} {
		in := api.VIPRequest{Prefix: netip.MustParsePrefix(a), Dev: "eth0", Force: true}
		err := api.NewClient(n.Socket).Call(t.Context(), api.PathVIPAdd, in, &api.Done{})
		if refused, ok := errors.AsType[*state.Refusal](err); !ok || refused.Code != state.CodeBadRequest {
			t.Errorf("request for %s: %v", a, err)
		}
	}
	fails(t, n, 1, []string{"192.0.2.10"}, "vip", "del", "192.0.2.10")

	// Another machine has it: an error that names its MAC, at init as well.
	taken, taken6 := c.Lab.VIP4(102), c.Lab.VIP6(102)
	other := c.Lab.Client(0)
	must(t, other.AddAddr(taken))
	must(t, other.AddAddr(taken6))
	mac := other.MAC(testnet.Front).String()
	add(1, taken.String()+"/24@eth0", "already on another machine", mac)
	add(1, taken6.String()+"/64@eth0", "already on another machine", mac)
	fresh := c.NewNode(c.Lab.Observer(), "fresh")
	fails(t, fresh, 1, []string{"already on another machine", mac}, "init", "--name", "fresh", "--vip", taken.String()+"/24@eth0")
	fails(t, fresh, 1, []string{"192.0.2.10"}, "init", "--name", "fresh", "--vip", "192.0.2.10/24")
	fails(t, fresh, 1, []string{"eth7"}, "init", "--name", "fresh", "--vip", "10.99.0.101/24@eth7")
	if _, err := os.Stat(fresh.DataDir + "/node.json"); err == nil {
		t.Error("a refused init has left an identity")
	}
	run(t, fresh, "init", "--name", "fresh", "--force", "--vip", taken.String()+"/24@eth0")
	must(t, other.DelAddr(taken))
	run(t, n, "vip", "add", "--force", taken.String()+"/24@eth0")
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), n, taken))
	if vips := get[[]api.VIP](t)(vipList(t, n)); len(vips) != 2 {
		t.Errorf("addresses: %+v", vips)
	}
	owner(t, c, n)
}

func vipList(t *testing.T, n *Node) ([]api.VIP, error) {
	t.Helper()
	var vips []api.VIP
	return vips, n.JSON(t.Context(), &vips, "vip", "list")
}
