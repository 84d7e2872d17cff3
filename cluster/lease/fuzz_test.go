package lease

import (
	"slices"
	"testing"
	"time"
)

// FuzzLedger gives a ledger any sequence of calls and compares it with a record
// of everything that was said: the end of a lease never lies behind the
// q-th latest end that good evidence supports.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{0, 3, 1, 50, 0, 3, 2, 60, 4, 3, 3, 0})
	f.Add([]byte{0, 3, 1, 50, 2, 3, 0, 0, 3, 3, 1, 1, 0, 3, 1, 70, 1, 3, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		// Promises may be longer or shorter than those of before.
		lengths := []time.Duration{90, 30, 200}
		names := []string{"a", "b", "c", "d", "e"}
		type said struct {
			voter string
			ends  time.Duration
		}
		var l Ledger
		var revoked, seq uint64
		good := map[uint64][]said{}          // evidence that may count, by term
		free := map[uint64]map[string]bool{} // who was told "released" and not bound again
		now := time.Duration(0)
		for ; len(program) >= 4; program = program[4:] {
			op, term, who, arg := program[0]%6, uint64(program[1]%8), names[program[2]%5], time.Duration(program[3])
			now++
			sent, length := max(0, now-arg), lengths[program[0]/6%3]
			switch op {
			case 0:
				if l.Acknowledge(term, who, sent, length) {
					if term <= revoked || free[term][who] {
						t.Fatalf("counts evidence of %s in term %d: revoked %d, free %v", who, term, revoked, free[term])
					}
					good[term] = append(good[term], said{who, sent + length})
				}
			case 1:
				l.Revoke(term)
				revoked = max(revoked, term)
			case 2:
				if n := l.Release(term, names[1:]); n != 0 {
					seq = n
					good[term] = nil
					free[term] = map[string]bool{"b": true, "c": true, "d": true, "e": true}
				}
			case 3:
				if l.Bind(term, uint64(arg)%4, who, sent, length) {
					if term <= revoked || uint64(arg)%4 != seq || !free[term][who] {
						t.Fatalf("%s is bound again in term %d by release %d, the last is %d", who, term, arg%4, seq)
					}
					delete(free[term], who)
					good[term] = append(good[term], said{who, sent + length})
				}
			default:
				voters := names[:1+int(program[2]%5)]
				until := l.Until(term, now, "a", voters, length)
				if until == 0 {
					continue
				}
				if term <= revoked {
					t.Fatalf("a lease in term %d, revoked up to %d", term, revoked)
				}
				ends := []time.Duration{now + length}
				for _, v := range voters[1:] {
					end := time.Duration(-1)
					for _, s := range good[term] {
						if s.voter == v {
							end = max(end, s.ends)
						}
					}
					if end >= 0 {
						ends = append(ends, end)
					}
				}
				slices.Sort(ends)
				q := len(voters)/2 + 1
				if len(ends) < q {
					t.Fatalf("a lease by %d of %d voters", len(ends), len(voters))
				}
				if bound := ends[len(ends)-q]; until > bound {
					t.Fatalf("lease until %d, evidence allows %d", until, bound)
				}
			}
		}
	})
}

// FuzzPromise gives a voter any sequence of messages. What must hold: whoever it
// told that it follows (a request of a term that is not released, or a release
// taken back) can count on it for the whole length, unless it was freed by a
// release that came after; and time does not bind it for longer than a length.
func FuzzPromise(f *testing.F) {
	f.Add([]byte{0, 3, 1, 10, 1, 3, 1, 5, 2, 3, 1, 5, 3, 0, 2, 5})
	f.Fuzz(func(t *testing.T, program []byte) {
		const length = 100
		now := time.Duration(0)
		p := NewPromise(now, length, 2)
		newest := uint64(2)
		owed := time.Duration(length) // until when it is owed to somebody
		holder := ""
		taken := map[uint64]uint64{} // the last release taken back, by term
		for ; len(program) >= 4; program = program[4:] {
			op, term, seq := program[0]%5, uint64(program[1]%6), 1+uint64(program[2]%3)
			leader := string(rune('a' + term)) // one leader a term
			now += time.Duration(program[3] % 64)
			switch op {
			case 0:
				if term < newest {
					continue // the fence does not pass it on
				}
				newest = term
				was, _ := p.Holder()
				p.Heard(now, term, leader)
				if id, in := p.Holder(); id == leader && in == term && (was != id || p.Bound(now, "x") == length) {
					owed, holder = max(owed, now+length), leader
				}
			case 1:
				newest = max(newest, term)
				before := p.Bound(now, "x")
				p.Release(term, seq)
				switch {
				case p.Bound(now, "x") >= before:
				case term < newest && holder != "":
					// It frees whom it was given in that term or before, and no other.
					if _, in := p.Holder(); in > term {
						t.Fatalf("release of term %d freed from a promise in term %d", term, in)
					}
					owed, holder = 0, ""
				case seq <= taken[term]:
					t.Fatalf("freed by release %d of term %d, which was taken back", seq, term)
				default:
					owed, holder = 0, ""
				}
			case 2:
				if !p.Rebind(now, term, seq, newest, leader) {
					continue
				}
				if newest > term {
					t.Fatalf("bound in term %d after helping term %d", term, newest)
				}
				taken[term] = max(taken[term], seq)
				owed, holder = max(owed, now+length), leader
			case 4:
				// The fence asks only if it is free to, and no newer term is known. Whoever
				// leads a term in this test was also the one that was voted for.
				if term < newest || p.Bound(now, leader) > 0 {
					continue
				}
				newest = term
				if p.Voted(now, term, leader) {
					if now < owed && holder != leader {
						t.Fatalf("promised %s what it owes %s", leader, holder)
					}
					owed, holder = max(owed, now+length), leader
				}
			}
			if got := p.Bound(now, "x"); now < owed && got < owed-now {
				t.Fatalf("op %d term %d: bound for %d, owed for %d", op, term, got, owed-now)
			}
			if got := p.Bound(now, "x"); got > length {
				t.Fatalf("bound for %d", got)
			}
			if holder != "" && now < owed && p.Bound(now, holder) > 0 {
				t.Fatalf("does not help %s, whom it follows", holder)
			}
		}
	})
}
