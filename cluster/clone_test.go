package cluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/machine"
	"github.com/raftvip/raftvip/internal/pki"
)

// copyDir copies a data directory as an operator would, or a snapshot of its disk.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func kindOf(m *member, node string) identity.FindingKind {
	for _, f := range m.Findings() {
		if f.Node == node {
			return f.Kind
		}
	}
	return ""
}

// A copy of a node's data directory runs beside the node, on the same machine and at
// another address.
func TestCopyOfANodeIsFoundByAll(t *testing.T) {
	for _, which := range []string{"leader", "follower"} {
		t.Run(which, func(t *testing.T) {
			all, _ := threeNodes(t)
			var leader *member
			eventually(t, "a leader", func() bool { leader = leading(all[:]...); return leader != nil })
			original := leader
			for _, m := range all {
				if which == "follower" && m != leader {
					original = m
				}
			}
			id := original.Self().NodeID
			dir := copyDir(t, original.dir)
			clone, err := openMember(t, dir, freeAddress(t))
			if err != nil {
				t.Fatal(err)
			}
			everyone := append(all[:], clone)
			for _, m := range everyone {
				eventually(t, m.Self().Name+" knows of two holders", func() bool { return kindOf(m, id) == identity.FindingTwo })
			}
			for _, m := range []*member{original, clone} {
				eventually(t, "a holder is barred and has no lease", func() bool {
					s := m.Group(state.DefaultGroup).Standing()
					bound := m.group.Bound("anyone") > 0 // its lock comes before the sink's
					return m.Barred() != nil && !s.Leading && m.sink.until.Load() == 0 && bound
				})
			}
			var others []*member
			for _, m := range all {
				if m != original {
					others = append(others, m)
				}
			}
			// Its peers do not rely on either to keep out of it.
			for _, m := range others {
				for _, h := range []*member{original, clone} {
					run := h.holders.Run.Text()
					if err := m.meet(pki.ProtoBeat, id, run, boottime.Now(), ""); err == nil {
						t.Error("a holder may send beats")
					}
					if err := m.meet(pki.ProtoRaft, id, run, boottime.Now(), ""); err == nil {
						t.Errorf("%s speaks Raft with a holder", m.Self().Name)
					}
					if err := m.meet(pki.ProtoAPI, id, run, boottime.Now(), ""); err != nil {
						t.Errorf("%s does not compare identities with a holder: %v", m.Self().Name, err)
					}
				}
				eventually(t, "no connection is left by which a holder may speak Raft", func() bool { return m.group.Streams(id) == 0 })
				ctx := context.WithValue(context.WithValue(context.Background(), port.PeerIDKey{}, id), port.PeerBootKey{}, clone.holders.Run.Boot)
				_, err := m.handleRelease(ctx, group.Release{Group: state.DefaultGroup, Term: m.group.Position().Term, Seq: 1, From: id})
				refusedWith(t, err, state.CodeIdentity)
			}
			eventually(t, "the two others go on", func() bool {
				l := leading(others...)
				return l != nil && l.Apply(context.Background(), state.Command{Drain: &state.DrainCommand{NodeID: id, Drained: true}}) == nil
			})

			// The cure: one stays, by the operator's word.
			original.stop()
			clone.stop()
			data, err := store.OpenDataDir(original.dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := data.MoveHere(); err != nil {
				t.Fatal(err)
			}
			data.Close()
			back, err := openMember(t, original.dir, original.Advertise())
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the one that stays takes part", func() bool {
				return back.LeaderAddress() != "" && back.Barred() == nil && kindOf(others[0], id) == "" &&
					back.State().Nodes[id].Drained && back.State().Nodes[id].Claim == 1
			})
			// And the copy, started once more, is known for what it is.
			again, err := openMember(t, dir, freeAddress(t))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the copy is refused", func() bool { f := again.Barred(); return f != nil && f.Kind == identity.FindingMoved })
			if f := back.Barred(); f != nil {
				t.Errorf("the one that stays: %+v", f)
			}
		})
	}
}

// A node may be found to have gone back while it is connected.
func TestConnectionsOfABarredNodeAreCut(t *testing.T) {
	all, _ := threeNodes(t)
	m, other := all[0], all[1].Self().NodeID
	eventually(t, "a connection", func() bool { return m.group.Streams(other) > 0 })
	m.holders.Lost(other)
	eventually(t, "it is cut", func() bool { return m.group.Streams(other) == 0 })
}

// Members are asked what they know of a node's holders. One that is silent must not keep
// this node from acting on what it knows itself.
func TestSilentMemberDelaysNoBar(t *testing.T) {
	var token pki.Token
	m, _ := startFirst(t, &token)
	eventually(t, "founded", func() bool { return m.State().Founded() })
	m.stop() // its own loop
	barred := func() bool { return m.group.Barred() != "" }
	m.meanwhile(make(map[identity.Finding]bool), func() {
		m.holders.Met(m.Self().NodeID, identity.Run{Boot: identity.NewBoot()}, boottime.Now(), "")
		for end := time.Now().Add(20 * time.Second); !barred() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !barred() {
			t.Error("not barred while a member is waited for")
		}
	})
}

func TestOlderDataDirIsNotTrusted(t *testing.T) {
	all, _ := threeNodes(t)
	var leader, back *member
	eventually(t, "a leader", func() bool { leader = leading(all[:]...); return leader != nil })
	for _, m := range all {
		if m != leader {
			back = m
		}
	}
	id := back.Self().NodeID
	change := func(drained bool) {
		eventually(t, "a change is applied everywhere", func() bool {
			l := leading(all[:]...)
			if l == nil || l.Apply(context.Background(), state.Command{Drain: &state.DrainCommand{NodeID: id, Drained: drained}}) != nil {
				return false
			}
			time.Sleep(100 * time.Millisecond)
			return back.State().Nodes[id].Drained == drained
		})
	}
	change(true)
	back.stop()
	old := copyDir(t, back.dir)
	again, err := openMember(t, back.dir, back.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	back = again
	for i, m := range all {
		if m.Self().NodeID == id {
			all[i] = back
		}
	}
	change(false)
	change(true)
	eventually(t, "the leader knows what it has acknowledged", func() bool {
		l := leading(all[:]...)
		return l != nil && l.holders.Pasts()[id].Acknowledged.Index >= back.State().Version
	})
	if f := back.Barred(); f != nil {
		t.Fatalf("a plain restart: %+v", f)
	}
	back.stop()

	// The machine is put back to an older snapshot.
	lost, err := openMember(t, old, back.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*member{lost, leader} {
		eventually(t, m.Self().Name+" knows that the node went back", func() bool { return kindOf(m, id) == identity.FindingBack })
	}
	eventually(t, "it neither votes nor owns", func() bool { return lost.Barred() != nil && lost.group.Bound("anyone") > 0 })
	eventually(t, "it is written down", func() bool { _, err := os.Stat(filepath.Join(old, store.VoidFile)); return err == nil })
	lost.stop()
	if _, err := openMember(t, old, back.Advertise()); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("started once more: %v", err)
	}
}

func TestDataDirIsBoundToItsMachine(t *testing.T) {
	dir := t.TempDir()
	d, err := store.OpenDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	here := machine.Facts{MachineID: "m1", Hardware: []string{"a"}}
	there := machine.Facts{MachineID: "m1", Hardware: []string{"b"}}
	for _, step := range []struct {
		name  string
		at    machine.Facts
		claim uint64
		ok    bool
	}{
		{"first start", here, 0, true},
		{"second start", here, 0, true},
		{"a copy elsewhere", there, 0, false},
		{"an interface more", machine.Facts{MachineID: "m1", Hardware: []string{"a", "c"}}, 0, true},
		{"the first interface is gone", machine.Facts{MachineID: "m1", Hardware: []string{"c"}}, 0, true},
	} {
		claim, err := d.Claim("n1", step.at)
		if (err == nil) != step.ok || claim != step.claim {
			t.Errorf("%s: claim %d, %v", step.name, claim, err)
		}
		var other *store.OtherMachineError
		if err != nil && !errors.As(err, &other) {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}
