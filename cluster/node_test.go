package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/testlog"

	"github.com/raftvip/raftvip/internal/pki"
)

// leaseEnd is when a member's lease ends, 0 for none.
type leaseEnd struct{ until atomic.Int64 }

func (e *leaseEnd) Renew(_ uint64, until time.Duration) { e.until.Store(int64(until)) }
func (e *leaseEnd) Revoke(uint64)                       { e.until.Store(0) }

// member is one node of a test cluster on the loopback interface.
type member struct {
	*Node
	t    *testing.T
	dir  string
	sink *leaseEnd
	// keeps: the node's kernel has what its groups are to give away.
	keeps  atomic.Bool
	cancel context.CancelFunc
	done   chan error
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// openMember starts the node whose data directory is dir.
func openMember(t *testing.T, dir, address string, peers ...string) (*member, error) {
	t.Helper()
	data, err := store.OpenDataDir(dir)
	if err != nil {
		return nil, err
	}
	id, err := data.Identity()
	if err != nil {
		data.Close()
		return nil, err
	}
	secret, err := data.Secret()
	if err != nil {
		data.Close()
		return nil, err
	}
	m := &member{t: t, dir: dir, sink: &leaseEnd{}, done: make(chan error, 1)}
	m.Node, err = OpenNode(Options{
		DataDir: data, Identity: id, Secret: secret, Listen: address, Advertise: address, Peers: peers,
		Heartbeat: 200 * time.Millisecond, Content: func() []state.Instance { return nil },
		Sink: func(id string) group.LeaseSink {
			if id == state.DefaultGroup {
				return m.sink
			}
			return &leaseEnd{}
		},
		Released: func(string, uint64, []netip.Addr) bool { return !m.keeps.Load() },
		Log:      testlog.New(t, id.Name), RaftLog: testlog.New(t, id.Name),
	})
	if err != nil {
		data.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		err := m.Node.Run(ctx)
		data.Close()
		m.done <- err
	}()
	t.Cleanup(m.stop)
	return m, nil
}

func (m *member) stop() {
	if m.cancel == nil {
		return
	}
	m.cancel()
	m.cancel = nil
	if err := <-m.done; err != nil {
		m.t.Errorf("node %s: %v", m.Self().Name, err)
	}
}

func prepare(t *testing.T, dir string, id store.Identity, secret pki.Secret, cache store.Cache, seed *store.Seed) {
	t.Helper()
	data, err := store.OpenDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if err := data.Create(id, secret, cache, seed); err != nil {
		t.Fatal(err)
	}
}

// startFirst founds a cluster of one node.
func startFirst(t *testing.T, token *pki.Token) (*member, pki.Secret) {
	t.Helper()
	secret := pki.NewSecret()
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	*token = pki.NewToken(authority)
	dir := t.TempDir()
	prepare(t, dir, store.Identity{ClusterID: secret.ClusterID(), NodeID: store.NewNodeID("lb1"), Name: "lb1", Origin: store.OriginInit}, secret, store.Cache{}, &store.Seed{
		Tokens: []state.TokenRecord{{ID: token.ID, Hash: token.Hash(), Expires: time.Now().Add(time.Hour), Uses: 2}},
		Instances: []state.Instance{{Name: "default", Group: state.DefaultGroup, Addresses: []state.Address{
			{Prefix: netip.MustParsePrefix("192.0.2.10/24")},
		}}},
	})
	m, err := openMember(t, dir, freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return m, secret
}

// joinMember joins a node by token and starts it.
func joinMember(t *testing.T, name string, via *member, token pki.Token) *member {
	t.Helper()
	address := freeAddress(t)
	id := store.Identity{NodeID: store.NewNodeID(name), Name: name, Origin: store.OriginJoin}
	got, secret, err := Join(context.Background(), via.Advertise(), token, JoinRequest{
		NodeID: id.NodeID, Name: name, Address: address, Clock: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	id.ClusterID = got.ClusterID
	cache := store.Cache{Heartbeat: got.Heartbeat}
	for _, n := range got.Nodes {
		cache.Addresses = append(cache.Addresses, n.Address)
	}
	dir := filepath.Join(t.TempDir(), "data")
	prepare(t, dir, id, secret, cache, nil)
	m, err := openMember(t, dir, address)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func voters(m *member) int {
	n := 0
	for _, s := range m.Suffrages() {
		if s == SuffrageVoter {
			n++
		}
	}
	return n
}

func leading(ms ...*member) *member {
	for _, m := range ms {
		if m.Group(state.DefaultGroup).Standing().Leading {
			return m
		}
	}
	return nil
}

func refusedWith(t *testing.T, err error, code string) *state.Refusal {
	t.Helper()
	var r *state.Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("got error %v, want a refusal with code %s", err, code)
	}
	return r
}

func threeNodes(t *testing.T) (all [3]*member, secret pki.Secret) {
	t.Helper()
	var token pki.Token
	all[0], secret = startFirst(t, &token)
	eventually(t, "founded", func() bool { return all[0].State().Founded() })
	all[1] = joinMember(t, "lb2", all[0], token)
	all[2] = joinMember(t, "lb3", all[0], token)
	eventually(t, "three voters everywhere", func() bool {
		return voters(all[0]) == 3 && voters(all[1]) == 3 && voters(all[2]) == 3
	})
	return all, secret
}

func TestInitJoinTransferRestart(t *testing.T) {
	all, _ := threeNodes(t)
	lb1, lb2, lb3 := all[0], all[1], all[2]
	for _, m := range all {
		if got := len(m.State().Instances); got != 1 {
			t.Errorf("%s: %d instances, want the seed's 1", m.Self().Name, got)
		}
		if len(m.State().Tokens) != 0 {
			t.Errorf("%s: the token was good for two nodes and is still there", m.Self().Name)
		}
	}
	var leader *member
	eventually(t, "a leader", func() bool { leader = leading(all[:]...); return leader != nil })
	target := lb2
	if leader == lb2 {
		target = lb3
	}
	// On a busy machine a hand-over may fail, and the leader goes on, or the target
	// may lose the leadership at once; it can be asked for again.
	eventually(t, "target leads with a lease", func() bool {
		if leader = leading(all[:]...); leader != nil && leader != target {
			err := leader.Group(state.DefaultGroup).Transfer(context.Background(), target.Self().NodeID, "test", false)
			t.Logf("handed over: %v", err)
		}
		s := target.Group(state.DefaultGroup).Standing()
		return s.Leading && s.LeaseUntil > 0
	})
	if r, _ := target.Group(state.DefaultGroup).LastRelease(); r.Reason != "test" || r.To != target.Self().NodeID {
		t.Errorf("last release: %+v", r)
	}

	// A restarted member needs no operator, also on another address.
	address := freeAddress(t)
	dir := lb1.dir
	lb1.stop()
	lb1, err := openMember(t, dir, address)
	if err != nil {
		t.Fatal(err)
	}
	id := lb1.Self().NodeID
	eventually(t, "new address is known everywhere", func() bool {
		return lb1.State().Nodes[id].Address == address && lb2.State().Nodes[id].Address == address && lb3.State().Nodes[id].Address == address
	})
	eventually(t, "moved member follows a leader", func() bool {
		return lb1.Group(state.DefaultGroup).Standing().LeaderID != ""
	})

	// All at once.
	dirs := []string{lb1.dir, lb2.dir, lb3.dir}
	addresses := []string{address, lb2.Advertise(), lb3.Advertise()}
	for _, m := range []*member{lb1, lb2, lb3} {
		m.stop()
	}
	var again []*member
	for i, dir := range dirs {
		m, err := openMember(t, dir, addresses[i])
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, m)
	}
	eventually(t, "a leader after a restart of all", func() bool { return leading(again...) != nil })
}

func TestPeersFormOneCluster(t *testing.T) {
	secret := pki.NewSecret()
	var addresses []string
	for range 3 {
		addresses = append(addresses, freeAddress(t))
	}
	var all []*member
	start := func(i int) *member {
		name := fmt.Sprintf("lb%d", i+1)
		dir := filepath.Join(t.TempDir(), "data")
		prepare(t, dir, store.Identity{ClusterID: secret.ClusterID(), NodeID: store.NewNodeID(name), Name: name, Origin: store.OriginPeers}, secret, store.Cache{}, nil)
		m, err := openMember(t, dir, addresses[i], addresses...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	all = append(all, start(1), start(0))
	eventually(t, "says whom it waits for", func() bool { return strings.Contains(all[0].Phase(), addresses[2]) })
	all = append(all, start(2))
	eventually(t, "three voters everywhere", func() bool {
		return voters(all[0]) == 3 && voters(all[1]) == 3 && voters(all[2]) == 3
	})

	// A member whose data dir was lost comes back as somebody else, and the old
	// identity is gone.
	old := all[0].Self().NodeID
	all[0].stop()
	survivors := all[1:]
	eventually(t, "survivors have a leader", func() bool { return leading(survivors...) != nil })
	fresh := start(1)
	if fresh.Self().NodeID == old {
		t.Fatal("identity was used again")
	}
	eventually(t, "replaced", func() bool {
		s := survivors[0].State()
		_, gone := s.Removed[old]
		return gone && voters(survivors[0]) == 3 && voters(fresh) == 3
	})
}

func TestJoinRefusals(t *testing.T) {
	var token pki.Token
	lb1, secret := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	ctx := context.Background()
	request := func() JoinRequest {
		return JoinRequest{NodeID: store.NewNodeID("lb2"), Name: "lb2", Address: "127.0.0.1:1", Clock: time.Now()}
	}
	authority, err := pki.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewAuthority(pki.NewSecret())
	if err != nil {
		t.Fatal(err)
	}

	_, _, err = Join(ctx, lb1.Advertise(), pki.NewToken(authority), request())
	refusedWith(t, err, state.CodeWrongToken)

	if _, _, err = Join(ctx, lb1.Advertise(), pki.NewToken(other), request()); !errors.Is(err, ErrOtherToken) {
		t.Errorf("token of another cluster: %v", err)
	}

	expired := pki.NewToken(authority)
	record := state.TokenRecord{ID: expired.ID, Hash: expired.Hash(), Expires: time.Now().Add(-time.Minute), Uses: 1}
	if err := lb1.Apply(ctx, state.Command{PutToken: &record}); err != nil {
		t.Fatal(err)
	}
	_, _, err = Join(ctx, lb1.Advertise(), expired, request())
	refusedWith(t, err, state.CodeExpiredToken)

	late := request()
	late.Clock = late.Clock.Add(-time.Hour)
	_, _, err = Join(ctx, lb1.Advertise(), token, late)
	if r := refusedWith(t, err, state.CodeClock); !strings.Contains(r.Message, "behind that of lb1") {
		t.Errorf("message %q", r.Message)
	}

	taken := request()
	taken.Name, taken.NodeID = "lb1", store.NewNodeID("lb1")
	_, _, err = Join(ctx, lb1.Advertise(), token, taken)
	refusedWith(t, err, state.CodeNameTaken)
	taken.Replace = true
	_, _, err = Join(ctx, lb1.Advertise(), token, taken)
	if r := refusedWith(t, err, state.CodeNameTaken); !strings.Contains(r.Message, "alive") {
		t.Errorf("message %q", r.Message)
	}
	if n := lb1.State().Tokens[token.ID].Uses; n != 2 {
		t.Errorf("refused joins used the token: %d uses left, want 2", n)
	}
	if _, _, err = Join(ctx, lb1.Advertise(), token, request()); err != nil {
		t.Errorf("good join: %v", err)
	}
}

func TestRemovedNodeIsCutOff(t *testing.T) {
	all, _ := threeNodes(t)
	// The leader may change at any time on a busy machine.
	var leader, gone, stays *member
	eventually(t, "removed", func() bool {
		if leader = leading(all[:]...); leader == nil || leader == gone {
			return false
		}
		for _, m := range all {
			if m != leader && gone == nil {
				gone = m
			} else if m != leader && m != gone {
				stays = m
			}
		}
		id := gone.Self().NodeID
		err := leader.Apply(context.Background(), state.Command{RemoveNode: &id})
		if err != nil {
			t.Logf("remove: %v", err)
		}
		_, is := leader.State().Nodes[id]
		return !is && voters(leader) == 2
	})
	// A connection that was open is cut, perhaps in the middle of a call; a new one
	// brings the reason.
	var err error
	eventually(t, "an answer on a new connection", func() bool {
		_, err = gone.hello(context.Background(), leader.Advertise())
		return !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE)
	})
	refusedWith(t, err, state.CodeRemoved)
	eventually(t, "the removed node says so", func() bool { return strings.Contains(gone.Phase(), "was removed from the cluster") })
	eventually(t, "others still agree", func() bool { return stays.Group(state.DefaultGroup).Standing().LeaderID != "" })
}

func TestLostLogIsNotForgotten(t *testing.T) {
	var token pki.Token
	lb1, _ := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	dir := lb1.dir
	lb1.stop()
	if err := os.RemoveAll(filepath.Join(dir, store.RaftDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := openMember(t, dir, freeAddress(t)); !errors.Is(err, store.ErrLogLost) {
		t.Fatalf("got %v, want ErrLogLost", err)
	}
	if err := os.WriteFile(filepath.Join(dir, store.RaftDir, state.DefaultGroup, "raft.db"), make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openMember(t, dir, freeAddress(t)); !errors.Is(err, store.ErrLogLost) {
		t.Fatalf("damaged file: got %v, want ErrLogLost", err)
	}
}

func TestPortInUse(t *testing.T) {
	var token pki.Token
	lb1, secret := startFirst(t, &token)
	dir := filepath.Join(t.TempDir(), "data")
	prepare(t, dir, store.Identity{ClusterID: secret.ClusterID(), NodeID: store.NewNodeID("lb2"), Name: "lb2", Origin: store.OriginInit}, secret, store.Cache{}, nil)
	var used *PortInUseError
	if _, err := openMember(t, dir, lb1.Advertise()); !errors.As(err, &used) {
		t.Fatalf("got %v", err)
	}
}
