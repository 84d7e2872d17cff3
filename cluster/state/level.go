package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// FeatureLevel is the newest level of the replicated state and its commands that this
// program understands. A field that is added to a Command, or to what is in one, says
// in its tag from which level on it may be used:
//
//	Quiet bool `json:"quiet,omitempty" level:"2"`       // refused below level 2
//	Seen  bool `json:"seen,omitempty" level:"2,drop"`   // left out below level 2
//
// The state's level is the lowest of its members', and the leader raises it when all
// of them report a higher one.
const FeatureLevel = 3

// formatOf is the State.Format of a state of a level. A program that does not know the
// format refuses the whole state; level 1 is from before there were levels.
func formatOf(level int) int { return min(max(level, 1), Format) }

// A NewerError says that this program is too old for what it has met.
type NewerError struct {
	// What it was, such as "log entry 17".
	What string
	// Why names what this program does not know.
	Why string
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("this node is older than its cluster: %s: %s; install the version of raftvip that the other nodes run", e.What, e.Why)
}

// DecodeStrictly reads the JSON of one value and nothing else. A field that this
// program does not know is an error: to do without it would be to act on another
// state than the nodes that know it.
func DecodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("data after the end")
	}
	return nil
}

// Unknown shortens encoding/json's words for what was not understood.
func Unknown(err error) string { return strings.TrimPrefix(err.Error(), "json: ") }

// DecodeCommand reads a log entry. A *NewerError says that a newer program may
// understand it; any other error, that none does.
func DecodeCommand(data []byte, index uint64) (Command, error) {
	var c Command
	what := fmt.Sprintf("log entry %d", index)
	if !json.Valid(data) {
		return Command{}, Refuse(CodeBadRequest, "", "%s is no command", what)
	}
	// The level first: it explains a field that is not known.
	var needs struct {
		Level int `json:"level"`
	}
	_ = json.Unmarshal(data, &needs) // an error is found again below
	if needs.Level > FeatureLevel {
		return Command{}, &NewerError{What: what, Why: fmt.Sprintf("it needs feature level %d, this version knows up to %d", needs.Level, FeatureLevel)}
	}
	if err := DecodeStrictly(data, &c); err != nil {
		return Command{}, &NewerError{What: what, Why: Unknown(err)}
	}
	return c, nil
}

// tagOf reads a field's level tag; level 1 is a field without one.
func tagOf(f reflect.StructField) (level int, drop bool) {
	text, drop := strings.CutSuffix(f.Tag.Get("level"), ",drop")
	if text == "" {
		return 1, false
	}
	level, err := strconv.Atoi(text)
	if err != nil {
		panic(fmt.Sprintf("field %s has the level %q", f.Name, text))
	}
	return level, drop
}

// levelOf returns the level that a value needs and the name of the field that needs it.
func levelOf(v reflect.Value) (level int, field string) {
	level = 1
	take := func(l int, f string) {
		if l > level {
			level, field = l, f
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			take(levelOf(v.Elem()))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			take(levelOf(v.Index(i)))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			take(levelOf(it.Value()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || v.Field(i).IsZero() {
				continue
			}
			l, _ := tagOf(f)
			take(l, jsonName(f))
			take(levelOf(v.Field(i)))
		}
	}
	return level, field
}

// dropAbove zeroes the fields that are left out where the level is lower.
func dropAbove(v reflect.Value, level int) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			dropAbove(v.Elem(), level)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			dropAbove(v.Index(i), level)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				continue
			}
			if l, drop := tagOf(f); drop && l > level {
				v.Field(i).SetZero()
				continue
			}
			dropAbove(v.Field(i), level)
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		return f.Name
	}
	return name
}

// EncodeCommand writes a command for a cluster of a level, or refuses one that some
// member would not understand.
func EncodeCommand(c Command, level int) ([]byte, error) {
	if level < FeatureLevel {
		b, err := json.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("encode command: %w", err)
		}
		c = Command{} // a copy, of which the caller's values are no part
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, fmt.Errorf("encode command: %w", err)
		}
		dropAbove(reflect.ValueOf(&c), level)
	}
	needs, field := levelOf(reflect.ValueOf(c))
	if name := c.group(); name != "" && needs < groupsLevel {
		needs, field = groupsLevel, "ownership group "+name
	}
	if needs > level && c.Found == nil {
		return nil, Refuse(CodeOlderMember, `"raftvip status" names the nodes that run an older version; upgrade or remove them`,
			"not every member can do this yet: %s needs feature level %d, and the cluster works at %d", field, needs, level)
	}
	if needs > 1 {
		c.Level = needs
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return b, nil
}

// A RaiseCommand raises the state's level.
type RaiseCommand struct {
	Level int `json:"level"`
	// Nodes are the IDs of the members that are known to understand it. One that is
	// admitted meanwhile may not.
	Nodes []string `json:"nodes"`
}

// FeatureLevel is the level that every member understands.
func (s *State) FeatureLevel() int { return max(s.Level, 1) }

func (s *State) raise(r RaiseCommand) error {
	if r.Level <= s.FeatureLevel() {
		return Refuse(CodeBadRequest, "", "feature level %d: the cluster works at %d already", r.Level, s.FeatureLevel())
	}
	known := make(map[string]bool)
	for _, id := range r.Nodes {
		known[id] = true
	}
	for id, n := range s.Nodes {
		if !known[id] {
			return Refuse(CodeNotReady, "", "feature level %d: %s has not said that it understands it", r.Level, n.Name)
		}
	}
	s.Level, s.Format = r.Level, formatOf(r.Level)
	return nil
}
