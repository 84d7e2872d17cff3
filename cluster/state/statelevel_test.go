package state

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata")

func refusedBy(t *testing.T, err error, code string) *Refusal {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Code != code {
		t.Fatalf("got error %v, want a refusal with code %s", err, code)
	}
	return r
}

// fieldsOf lists the fields of a type and of what is in it, without those with a level.
func fieldsOf(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		fieldsOf(t.Elem(), into)
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[State]().PkgPath() {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name := t.Name() + "." + jsonName(f)
			if level, _ := tagOf(f); level > 1 || into[name] {
				continue
			}
			into[name] = true
			fieldsOf(f.Type, into)
		}
	}
}

// The fields of level 1 are what the first programs know. One more without a tag would
// be written into clusters whose members do not know it.
func TestNewFieldsHaveALevel(t *testing.T) {
	fields := make(map[string]bool)
	fieldsOf(reflect.TypeFor[Command](), fields)
	fieldsOf(reflect.TypeFor[State](), fields)
	path := filepath.Join("testdata", "level1.txt")
	have := strings.Join(slices.Sorted(maps.Keys(fields)), "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(want))
	for name := range fields {
		if !slices.Contains(known, name) {
			t.Errorf("%s is new: give it a tag level:\"%d\", or level:\"%d,drop\" if it may be left out where members are older (see FeatureLevel)", name, FeatureLevel, FeatureLevel)
		}
	}
	for _, name := range known {
		if !fields[name] {
			t.Errorf("%s is gone: older logs and snapshots have it, and would not be understood", name)
		}
	}
}

func founded(level int) *State {
	s, err := New().Apply(Command{At: time.Now(), Found: &Founding{
		ClusterID: "c", Node: NodeRecord{ID: "lb1-00000001", Name: "lb1", Address: "192.0.2.1:7946"}, Heartbeat: time.Second, Level: level,
	}}, 1)
	if err != nil {
		panic(err)
	}
	return s
}

func TestCommandsWaitForTheLevel(t *testing.T) {
	join := Command{Join: &JoinCommand{Node: NodeRecord{ID: "lb2-00000002", Name: "lb2", Address: "192.0.2.2:7946"}, Trusted: true, Level: 2}}
	b, err := EncodeCommand(join, 1)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), `"level"`) {
		t.Errorf("at level 1: %s", b)
	}
	if join.Join.Level != 2 {
		t.Error("the caller's command was changed")
	}
	if b, err = EncodeCommand(join, 2); err != nil || strings.Count(string(b), `"level":2`) != 2 {
		t.Errorf("at level 2: %s, %v", b, err)
	}
	type part struct {
		New string `json:"new" level:"3"`
	}
	if level, field := levelOf(reflect.ValueOf(struct{ Parts []*part }{[]*part{nil, {New: "x"}}})); level != 3 || field != "new" {
		t.Errorf("level %d of field %q, want 3 of new", level, field)
	}
}
