package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// grouped is a cluster of three nodes at the newest level.
func grouped(t *testing.T) *groupedState {
	t.Helper()
	g := &groupedState{t: t, State: New()}
	g.do(Command{Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "n1", Name: "n1", Address: "10.0.0.1:1"}, Heartbeat: time.Second, Level: FeatureLevel}})
	for _, id := range []string{"n2", "n3"} {
		g.do(Command{Join: &JoinCommand{Node: NodeRecord{ID: id, Name: id, Address: "10.0.0." + id[1:] + ":1"}, Trusted: true, Level: FeatureLevel}})
	}
	return g
}

// A groupedState is what a log has made so far.
type groupedState struct {
	*State
	t     *testing.T
	index uint64
}

func (g *groupedState) do(c Command) {
	g.t.Helper()
	if err := g.try(c); err != nil {
		g.t.Fatal(err)
	}
}

func (g *groupedState) try(c Command) error {
	g.index++
	next, err := g.State.Apply(c, g.index)
	if err == nil {
		g.State = next
	}
	return err
}

// put gives each of the groups, "NAME ADDRESS...", an instance of its own.
func (g *groupedState) put(groups ...string) {
	g.t.Helper()
	var all []Instance
	for _, text := range groups {
		words := strings.Fields(text)
		in := Instance{Name: "vi_" + words[0], Group: words[0]}
		for _, a := range words[1:] {
			in.Addresses = append(in.Addresses, Address{Prefix: netip.MustParsePrefix("192.0.2." + a + "/24")})
		}
		all = append(all, in)
	}
	g.do(Command{Configure: &Configuration{Instances: all}, Voters: []string{"n1", "n2"}})
}

// lists is what each group may own, by name, such as "a: 1 2".
func (g *groupedState) lists() []string {
	var out []string
	for _, id := range g.GroupIDs() {
		text := g.GroupName(id) + ":"
		for _, in := range g.ListOf(id) {
			for _, a := range in.Addresses {
				text += " " + strings.TrimPrefix(a.Prefix.Addr().String(), "192.0.2.")
			}
		}
		out = append(out, text)
	}
	return out
}

func (g *groupedState) want(what string, lists ...string) {
	g.t.Helper()
	if got := g.lists(); !slices.Equal(got, lists) {
		g.t.Errorf("%s: lists are %q, want %q (holders %v)", what, got, lists, g.Holders)
	}
	seen := map[netip.Addr]string{}
	for _, id := range g.GroupIDs() {
		for _, in := range g.ListOf(id) {
			for _, a := range in.Addresses {
				if other, twice := seen[a.Prefix.Addr()]; twice {
					g.t.Errorf("%s: %s is in the lists of %s and %s", what, a.Prefix, other, id)
				}
				seen[a.Prefix.Addr()] = id
			}
		}
	}
}

func (g *groupedState) freed(name string, version uint64) error {
	id, _ := g.GroupByName(name)
	return g.try(Command{Free: &FreeCommand{Group: id, Version: version}})
}

func TestAddressesMoveBetweenGroups(t *testing.T) {
	g := grouped(t)
	g.put("default 1 2 3")
	if len(g.Holders) != 0 || &g.ListOf(DefaultGroup)[0] != &g.Instances[0] {
		t.Errorf("one group costs something: holders %v", g.Holders)
	}
	g.put("a 1", "b 2 3")
	g.want("nothing moves in the moment of change", "default:", "a:", "b:")
	if got := len(g.LeavingAddresses(DefaultGroup)); got != 3 {
		t.Errorf("the default group gives %d addresses away, want 3", got)
	}
	if err := g.freed("default", g.Version-1); err == nil {
		t.Error("an older list frees")
	}
	if err := g.freed("default", g.Version); err != nil {
		t.Fatal(err)
	}
	g.want("freed", "default:", "a: 1", "b: 2 3")

	g.put("a 1 2", "b 3")
	taken := g.Version
	g.want("on the way", "default:", "a: 1", "b: 3")
	g.put("a 1", "b 2 3")
	g.want("taken back before b has let go", "default:", "a: 1", "b: 2 3")
	if err := g.freed("b", taken); err == nil {
		t.Error("b lets go of what it has again")
	}
	g.put("a 1 2", "b 3")
	if err := g.freed("b", taken); err == nil {
		t.Error("a word from before the last change frees")
	}
	g.want("on the way again", "default:", "a: 1", "b: 3")
	if err := g.freed("b", g.Version); err != nil {
		t.Fatal(err)
	}
	g.want("there", "default:", "a: 1 2", "b: 3")

	g.put("a 1 2 4")
	g.want("b ends when it has let go of all", "default:", "a: 1 2 4", "b:")
	if err := g.freed("b", g.Version); err != nil {
		t.Fatal(err)
	}
	g.want("b has ended", "default:", "a: 1 2 4")
	before := g.Groups
	g.put("a 1 2 4", "b 3")
	id, _ := g.GroupByName("b")
	if _, again := before[id]; again || id == "" {
		t.Errorf("group b is %q again", id)
	}
	g.put("default 1 2 3 4")
	for _, name := range []string{"a", "b"} {
		if err := g.freed(name, g.Version); err != nil {
			t.Fatal(err)
		}
	}
	g.want("together again", "default: 1 2 3 4")
	if len(g.Groups)+len(g.Holders) > 0 {
		t.Errorf("left: groups %v, holders %v", g.Groups, g.Holders)
	}
}

func TestRemovedAddressIsFreeWhenItsGroupSaysSo(t *testing.T) {
	g := grouped(t)
	g.put("default 1 2")
	ip := netip.MustParseAddr("192.0.2.2")
	g.do(Command{DelVIP: &ip})
	g.want("removed", "default: 1")
	g.do(Command{AddVIP: &VIPCommand{Instance: "new", Group: "a", Address: Address{Prefix: netip.PrefixFrom(ip, 24)}}})
	g.want("its old owner may still have it", "default: 1", "a:")
	if err := g.freed(DefaultGroup, g.Version); err != nil {
		t.Fatal(err)
	}
	g.want("freed", "default: 1", "a: 2")
}

func TestGroupBeginsOnTheNodesThatVote(t *testing.T) {
	g := grouped(t)
	g.put("a 1")
	id, _ := g.GroupByName("a")
	want := []GroupVoter{{"n1", "10.0.0.1:1"}, {"n2", "10.0.0.2:1"}}
	if got := g.Groups[id].Voters; !slices.Equal(got, want) {
		t.Errorf("voters are %v, want %v", got, want)
	}
	if err := g.try(Command{Configure: &Configuration{Instances: []Instance{{Name: "x", Group: "x"}}}, Voters: []string{"gone"}}); err == nil {
		t.Error("a group that nobody begins with is made")
	}
	g = grouped(t)
	var many []string
	for i := range MaxGroups {
		many = append(many, fmt.Sprintf("m%d", i))
	}
	g.put(append(many, "default")...)
	var refusal *Refusal
	err := g.try(Command{Configure: &Configuration{Instances: func() (all []Instance) {
		for i := range MaxGroups + 1 {
			all = append(all, Instance{Name: fmt.Sprintf("i%d", i), Group: fmt.Sprintf("i%d", i)})
		}
		return all
	}()}})
	if !errors.As(err, &refusal) || refusal.Code != CodeTooMany {
		t.Errorf("%d groups: %v", MaxGroups+1, err)
	}
}

// Below the level that knows of groups every instance is the default group's, on all
// programs; when the level is raised they become groups.
func TestGroupsNeedTheirLevel(t *testing.T) {
	s := New()
	s, err := s.Apply(Command{Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "n1", Name: "n1", Address: "10.0.0.1:1"}, Heartbeat: time.Second, Level: 2}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := Command{Configure: &Configuration{Instances: []Instance{{Name: "x", Group: "x", Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}}}}}}
	if _, err := EncodeCommand(c, 2); err == nil {
		t.Error("a command about groups is sent to members that know of none")
	}
	if s, err = s.Apply(c, 2); err != nil || len(s.Groups)+len(s.Holders) > 0 {
		t.Fatalf("groups %v below their level: %v", s.Groups, err)
	}
	if s, err = s.Apply(Command{Raise: &RaiseCommand{Level: 3, Nodes: []string{"n1"}}}, 3); err != nil {
		t.Fatal(err)
	}
	if len(s.Groups) != 1 || s.Leaves(DefaultGroup) != 3 {
		t.Errorf("groups %v, holders %v after the level is raised", s.Groups, s.Holders)
	}
}

func TestListOfAGroup(t *testing.T) {
	s := NewGroup(GroupRecord{ID: "g1.1", Level: 3})
	if s.Founded() {
		t.Error("a group without a list has something to own")
	}
	list := func(version uint64, names ...string) error {
		l := &ListCommand{Version: version}
		for _, name := range names {
			l.Instances = append(l.Instances, Instance{Name: name, Group: "a"})
		}
		next, err := s.Apply(Command{List: l}, s.Version+1)
		if err == nil {
			s = next
		}
		return err
	}
	if err := list(7, "x", "y"); err != nil || !s.Founded() || len(s.Instances) != 2 {
		t.Fatalf("first list: %v, %v", s.Instances, err)
	}
	for _, version := range []uint64{7, 6, 0} {
		if err := list(version, "old"); err == nil {
			t.Errorf("a list of version %d takes the place of one of version 7", version)
		}
	}
	if err := list(8); err != nil || len(s.Instances) != 0 || !s.Founded() {
		t.Errorf("an empty list: %v, %v", s.Instances, err)
	}
	refused := []Command{
		{Found: &Founding{ClusterID: "c"}}, {PutNode: &NodeRecord{ID: "n"}}, {Configure: &Configuration{}},
		{Free: &FreeCommand{Group: "g1.1", Version: 9}}, {Drain: &DrainCommand{NodeID: "n"}}, {},
	}
	for _, c := range refused {
		if next, err := s.Apply(c, 20); err == nil {
			t.Errorf("%+v is taken in a group's log: %+v", c, next)
		}
	}
	if _, err := s.Apply(Command{Move: &Move{Group: "a", To: "n1"}}, 21); err != nil {
		t.Errorf("a move is refused: %v", err)
	}
	if _, err := grouped(t).Apply(Command{List: &ListCommand{Version: 99}}, 99); err == nil {
		t.Error("a list is taken in the default group's log")
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again := New()
	if err := DecodeStrictly(b, again); err != nil || !reflect.DeepEqual(again.Instances, s.Instances) || again.Group != s.Group || again.ListVersion != 8 {
		t.Errorf("read back: %+v, %v", again, err)
	}
}

// An address is in the log of one group at most, whatever is asked for, in whatever order
// groups let go, and however far the leader of a group lags in the log of the default one.
func TestAddressIsInOneLog(t *testing.T) {
	const seed = 1
	moved := 0
	for run := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, run))
		g := grouped(t)
		names := []string{"default", "a", "b"}
		past := []*State{g.State}
		logs := make(map[string]*State) // of the groups, by ID
		var script []string
		for range 80 {
			switch rnd.IntN(4) {
			case 0: // the operator
				by := map[string][]string{}
				for ip := range 3 {
					if k := rnd.IntN(len(names) + 1); k < len(names) {
						by[names[k]] = append(by[names[k]], fmt.Sprint(ip+1))
					}
				}
				var groups []string
				for _, name := range names {
					if ips, ok := by[name]; ok {
						groups = append(groups, name+" "+strings.Join(ips, " "))
					}
				}
				script = append(script, fmt.Sprint("put ", groups))
				g.put(groups...)
			case 1, 2: // a group's leader, which knows some state of the default group's
				view := past[rnd.IntN(len(past))]
				for id, r := range view.Groups {
					if logs[id] == nil {
						logs[id] = NewGroup(r)
					}
					next, err := logs[id].Apply(Command{List: &ListCommand{Version: view.Version, Instances: view.ListOf(id)}}, logs[id].Version+1)
					script = append(script, fmt.Sprint(id, " lists ", view.Version, " ", err == nil))
					if err == nil {
						logs[id] = next
					}
				}
			case 3: // an owner says what its log says, and may be late
				for _, id := range g.GroupIDs() {
					version := g.Version
					if l := logs[id]; l != nil {
						version = l.ListVersion
					} else if id != DefaultGroup {
						continue
					}
					if err := g.try(Command{Free: &FreeCommand{Group: id, Version: version}}); err == nil {
						script = append(script, fmt.Sprint(id, " is done with ", version))
						moved++
					}
				}
			}
			past = append(past, g.State)
			seen := map[netip.Addr]string{}
			for _, id := range append([]string{DefaultGroup}, slices.Sorted(maps.Keys(logs))...) {
				list := g.ListOf(DefaultGroup)
				if id != DefaultGroup {
					list = logs[id].Instances
				}
				for ip := range g.wantedBy(list) {
					if other, twice := seen[ip]; twice {
						t.Fatalf("seed %d, run %d: %s is in the logs of %s and %s: %s", seed, run, ip, other, id, strings.Join(script, "; "))
					}
					seen[ip] = id
				}
			}
		}
	}
	if moved < 500 {
		t.Errorf("groups let go %d times: the test looks at nothing", moved)
	}
}

// What comes along with a group's command is no way to change anything else in its state.
func TestGroupsLogTakesNothingElse(t *testing.T) {
	s := NewGroup(GroupRecord{ID: "g1.1", Level: groupsLevel})
	id := "x"
	next, err := s.Apply(Command{
		List: &ListCommand{Version: 4}, Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "x-00000001", Name: "x", Address: "192.0.2.1:1"}, Heartbeat: MinHeartbeat},
		PutNode: &NodeRecord{ID: id, Name: id}, Heartbeat: new(MaxHeartbeat),
	}, 2)
	if err != nil || next.ListVersion != 4 || next.ClusterID != "" || len(next.Nodes) > 0 || next.Heartbeat != (HeartbeatSetting{}) {
		t.Errorf("%+v, %v", next, err)
	}
}

// A group whose first list needs a level that came after the group can have it.
func TestGroupIsRaisedBeforeItsFirstList(t *testing.T) {
	s := NewGroup(GroupRecord{ID: "g1.1", Level: groupsLevel})
	next, err := s.Apply(Command{Raise: &RaiseCommand{Level: groupsLevel + 1}}, 2)
	if err != nil || next.FeatureLevel() != groupsLevel+1 || next.Founded() {
		t.Errorf("%+v, %v", next, err)
	}
	if _, err := New().Apply(Command{Raise: &RaiseCommand{Level: 2}}, 2); err == nil {
		t.Error("a cluster that is not founded was raised")
	}
}
