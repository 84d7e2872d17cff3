package config

import (
	"fmt"
	"strings"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// A statement is how one supported keyword is read.
type statement struct {
	// block: the keyword takes a block. Otherwise it takes none.
	block bool
	// many: the keyword may be repeated. Otherwise the last one counts, as in
	// keepalived, with a warning; of a repeated block it is an error.
	many bool
	read func(*keepalived.Node)
}

// statements reads the statements of one block.
func (l *loader) statements(ctx context, nodes []*keepalived.Node, known map[string]statement) {
	seen := map[string]Pos{}
	for _, n := range nodes {
		l.seq++
		keyword := n.Keyword()
		s, ok := known[keyword]
		if !ok {
			l.notRead(ctx, n, known)
			continue
		}
		switch {
		case s.block && !n.HasBlock:
			l.errorf(n.Pos, "%s: missing {; a block in braces must follow", keyword)
			continue
		case !s.block && n.HasBlock:
			l.errorf(n.Pos, "%s: takes no block in braces", keyword)
			continue
		}
		if first, ok := seen[keyword]; ok && !s.many {
			if s.block {
				l.errorf(n.Pos, "%s: second block; the first is at %s", keyword, first)
				continue
			}
			l.warnf(n.Pos, "%s: already set at %s; the last one counts", keyword, first)
		} else if !ok {
			seen[keyword] = n.Pos
		}
		s.read(n)
	}
}

// notRead reports a statement that has no effect: by the table of keywords
// that keepalived knows, else as unknown. A block is skipped as a whole.
func (l *loader) notRead(ctx context, n *keepalived.Node, known map[string]statement) {
	keyword := n.Keyword()
	if reason, ok := noEffect(ctx, keyword); ok {
		l.warnf(n.Pos, "%s", noEffectMessage(keyword, reason))
		return
	}
	what, skipped := "keyword", ""
	if n.HasBlock {
		what, skipped = "block", "; skipped as a whole"
	}
	hint, meant := suggestion(ctx, keyword, known)
	message := fmt.Sprintf("unknown %s %s", what, display(keyword))
	if _, effective := known[meant]; effective || supportedVRRP[ctx][meant] || ctx == ctxRaft {
		// Its author counts on the effect of what was meant. No keepalived file has a
		// raft block: an unknown word there is a mistake or from a newer version.
		l.errorf(n.Pos, "%s%s", message, hint)
		return
	}
	l.warnf(n.Pos, "%s%s%s", message, skipped, hint)
}

// display quotes a word that is not known to be harmless: shortened, printable,
// and without the secret where the blank after auth_pass is missing.
func display(word string) string {
	if strings.HasPrefix(word, "auth_pass") {
		word = "auth_pass"
	}
	if r := []rune(word); len(r) > 40 {
		word = string(r[:40]) + "..."
	}
	return fmt.Sprintf("%q", word)
}

// suggestion returns "; did you mean ...?" with the keyword meant, or where the keyword
// belongs, or "".
func suggestion(ctx context, keyword string, known map[string]statement) (text, meant string) {
	has := func(k string) bool {
		_, ok := known[k]
		if !ok {
			_, ok = noEffect(ctx, k)
		}
		return ok
	}
	for _, k := range []string{"vrrp_" + keyword, strings.TrimPrefix(keyword, "vrrp_"), strings.ToLower(keyword)} {
		if k != keyword && has(k) {
			return fmt.Sprintf("; did you mean %s?", k), k
		}
	}
	// A keyword of another block is misplaced, not misspelt.
	for _, other := range contexts {
		if other != ctx && supported[other][keyword] {
			return fmt.Sprintf("; it belongs in %s", other.where()), ""
		}
	}
	for _, other := range contexts {
		if _, ok := noEffectTable[other][keyword]; ok && other != ctx {
			return fmt.Sprintf("; it belongs in %s", other.where()), ""
		}
	}
	var candidates []string
	for k := range known {
		candidates = append(candidates, k)
	}
	for k := range noEffectTable[ctx] {
		if !strings.Contains(k, "*") {
			candidates = append(candidates, k)
		}
	}
	if best := nearest(keyword, candidates); best != "" {
		return fmt.Sprintf("; did you mean %s?", best), best
	}
	return "", ""
}

// nearest returns the candidate that differs least from word, if that is
// little enough to be a spelling mistake.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", min(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance || d == bestDistance && best != "" && c < best {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters inserted, removed, replaced or swapped
// with their neighbour.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, last []int
	for i := 0; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		for j := range row {
			switch {
			case i == 0:
				row[j] = j
			case j == 0:
				row[j] = i
			default:
				cost := 1
				if a[i-1] == b[j-1] {
					cost = 0
				}
				row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					row[j] = min(row[j], before[j-2]+1)
				}
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// anyKnown reports whether a file has something at the top that raftvip or keepalived
// knows. Another program's file, or one that was cut off, must not pass for a
// configuration without addresses.
func anyKnown(nodes []*keepalived.Node) bool {
	for _, n := range nodes {
		if _, ok := noEffect(ctxRoot, n.Keyword()); ok || supported[ctxRoot][n.Keyword()] {
			return true
		}
	}
	return false
}
