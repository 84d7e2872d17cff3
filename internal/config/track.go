package config

import (
	"github.com/raftvip/raftvip/internal/keepalived"
)

// trackLine is a line of a track_script or track_interface block before the
// tracker's own weight is known.
type trackLine struct {
	TrackRef
	seq int
	// weight and reverse say whether the line has its own.
	weight, reverse bool
}

// track reads a track_script or track_interface block: lines of
// NAME [weight N] [reverse|noreverse].
func (l *loader) track(n *keepalived.Node, lines []trackLine) []trackLine {
	block := n.Keyword()
	l.noMore(n, 0)
	for _, node := range n.Block {
		l.seq++
		if node.HasBlock {
			l.errorf(node.Pos, "%s: no block in braces is allowed here; write one name per line", block)
			continue
		}
		line := trackLine{TrackRef: TrackRef{Pos: node.Pos, Name: node.Keyword()}, seq: l.seq}
		if block == "track_interface" && !l.interfaceName(node.Pos, block, line.Name) {
			continue
		}
		if first := findLine(lines, line.Name); first != nil {
			l.warnf(node.Pos, "%s: %s is already tracked at %s; this line is ignored", block, shorten(line.Name), first.Pos)
			continue
		}
		if l.trackOptions(block, node, &line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (l *loader) trackOptions(block string, node *keepalived.Node, line *trackLine) bool {
	words := node.Args()
	ok := true
	for i := 0; i < len(words); i++ {
		switch word := words[i].Text; word {
		case "weight":
			if i+1 == len(words) {
				l.errorf(node.Pos, "%s: weight: missing value; must be a whole number between -253 and 253", block)
				return false
			}
			i++
			var good bool
			line.Weight, good = l.integerWord(node.Pos, block+": weight", words[i].Text, -253, 253)
			line.weight, ok = true, ok && good
		case "reverse", "noreverse":
			line.Reverse, line.reverse = word == "reverse", true
		default:
			l.errorf(node.Pos, "%s: unknown word %s; one name per line, followed by weight N, reverse or noreverse", block, display(word))
			ok = false
		}
	}
	return ok
}

func findLine(lines []trackLine, name string) *trackLine {
	for i := range lines {
		if lines[i].Name == name {
			return &lines[i]
		}
	}
	return nil
}
