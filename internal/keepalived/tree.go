package keepalived

// A Tree is the content of a configuration file with everything that the
// language itself does already done: comments removed, definitions expanded,
// conditional lines chosen, includes read.
type Tree struct {
	// Files are the files read, the main one first, each once.
	Files []string
	Nodes []*Node
}

// A Node is one statement: a line's words and, if braces follow, a block. What
// comes from a definition has the place where the definition is used.
type Node struct {
	Pos Pos
	// Words has the keyword first and is never empty.
	Words []Word
	// Raw is the statement's text as SplitCommand needs it: comments removed and
	// definitions expanded, quotes and backslashes as written.
	Raw string
	// HasBlock is true if braces follow, even empty ones.
	HasBlock bool
	Block    []*Node
	// End is the place of the closing brace.
	End Pos
}

// Keyword returns the first word.
func (n *Node) Keyword() string { return n.Words[0].Text }

// Args returns the words after the keyword.
func (n *Node) Args() []Word { return n.Words[1:] }

// A Word is one blank-separated or double-quoted word. A quoted word has no
// quotes in Text; backslashes are as written (see SplitCommand for the
// keywords that give them a meaning).
type Word struct {
	Pos    Pos
	Text   string
	Quoted bool
}

// A Problem is something wrong with the syntax. An error, the zero value of
// Warning, means that the tree may not be what the author meant.
type Problem struct {
	Pos     Pos
	Warning bool
	Message string
}
