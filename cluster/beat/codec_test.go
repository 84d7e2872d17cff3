package beat

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMessagesComeBack(t *testing.T) {
	beats := []Beat{
		{Seq: 1},
		{Seq: 1 << 63, Groups: []Led{{"default", 7}, {"VI_2", 1<<60 + 3}, {strings.Repeat("x", maxName), 0}}},
	}
	var got Beat
	for _, want := range beats {
		b := AppendBeat(nil, want)
		if err := ParseBeat(b, &got); err != nil || got.Seq != want.Seq || len(got.Groups) != len(want.Groups) || len(want.Groups) > 0 && !reflect.DeepEqual(got.Groups, want.Groups) {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
		cutOff(t, b, func(b []byte) error { return ParseBeat(b, new(Beat)) })
	}
	want := Answer{Seq: 9, Results: []Result{
		{Verdict: Agreed, Term: 7, LastLog: 100}, {Verdict: Refused, Term: 1 << 60}, {Verdict: Unheard}, {Verdict: Failed, Why: "no such group here"},
	}}
	b := AppendAnswer(nil, want)
	var back Answer
	if err := ParseAnswer(b, &back); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("%+v came back as %+v, %v", want, back, err)
	}
	cutOff(t, b, func(b []byte) error { return ParseAnswer(b, new(Answer)) })
}

// cutOff tries a message with something missing, and with something more.
func cutOff(t *testing.T, b []byte, parse func([]byte) error) {
	t.Helper()
	for n := range b {
		if err := parse(b[:n]); !errors.Is(err, ErrFormat) {
			t.Errorf("the first %d of %d bytes: %v", n, len(b), err)
		}
	}
	if err := parse(append(bytes.Clone(b), 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestTooManyGroups(t *testing.T) {
	if err := ParseBeat(AppendBeat(nil, Beat{Groups: make([]Led, MaxGroups+1)}), new(Beat)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if err := ParseAnswer(AppendAnswer(nil, Answer{Results: make([]Result, MaxGroups+1)}), new(Answer)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	// The largest one is a message.
	long := Beat{Seq: 1 << 63, Groups: make([]Led, MaxGroups)}
	for i := range long.Groups {
		long.Groups[i] = Led{strings.Repeat("x", maxName), 1 << 63}
	}
	if n := len(AppendBeat(nil, long)); n >= maxMessage {
		t.Errorf("%d bytes", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(AppendBeat(nil, Beat{Seq: 3, Groups: []Led{{"default", 7}}}))
	f.Add(AppendAnswer(nil, Answer{Seq: 3, Results: []Result{{Verdict: Failed, Why: "x"}, {Term: 1 << 62}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Beat
		if ParseBeat(b, &m) == nil {
			var again Beat
			if err := ParseBeat(AppendBeat(nil, m), &again); err != nil || len(again.Groups) != len(m.Groups) {
				t.Errorf("%v: %+v, %+v", err, m, again)
			}
		}
		var a Answer
		if ParseAnswer(b, &a) == nil {
			var again Answer
			if err := ParseAnswer(AppendAnswer(nil, a), &again); err != nil || len(again.Results) != len(a.Results) {
				t.Errorf("%v: %+v, %+v", err, a, again)
			}
		}
	})
}
