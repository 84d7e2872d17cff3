package keepalived_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// dump renders a tree as one line for each statement: place, words, block.
func dump(nodes []*keepalived.Node, indent string) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s%s", indent, n.Pos)
		for _, w := range n.Words {
			fmt.Fprintf(&b, " [%s]", w.Text)
		}
		if n.HasBlock {
			fmt.Fprintf(&b, " {\n%s%s} %s", dump(n.Block, indent+"  "), indent, n.End)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func problems(list []keepalived.Problem) string {
	var b strings.Builder
	for _, p := range list {
		kind := "error"
		if p.Warning {
			kind = "warning"
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", p.Pos, kind, p.Message)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	long := strings.Repeat("x", 1100)
	tests := []struct {
		name, in, want string
		problems       string
	}{
		{"words", "a b\t\"c d\" e\n\n  f", "c:1 [a] [b] [c d] [e]\nc:3 [f]", ""},
		{"CRLF and BOM", "\xef\xbb\xbfa b\r\n{\r\n}\r\n", "c:1 [a] [b] {\n} c:3", ""},
		{"comments", "# one\n! two\na b # c\nd \"e # ! f\" ! g\n h \\# \\! i", "c:3 [a] [b]\nc:4 [d] [e # ! f]\nc:5 [h] [#] [!] [i]", ""},
		{"comment without blank", "a b#c\nd{#e\n}!f", "c:1 [a] [b]\nc:2 [d] {\n} c:3", ""},
		{"single quotes do not protect", "a 'b # c'", "c:1 [a] ['b]", ""},
		{"escaped quote", `a "b \" # c" # d`, `c:1 [a] [b \" # c]`, ""},
		{"quotes inside words", `a b"c d"e`, `c:1 [a] [b] [c d] [e]`, ""},
		{"block at line end", "a b {\nc\n}", "c:1 [a] [b] {\n  c:2 [c]\n} c:3", ""},
		{"brace on its own line", "a b\n{\nc\n}", "c:1 [a] [b] {\n  c:3 [c]\n} c:4", ""},
		{"one line", "a { b 1 }\nc{d{e 2}}f", "c:1 [a] {\n  c:1 [b] [1]\n} c:1\nc:2 [c] {\n  c:2 [d] {\n    c:2 [e] [2]\n  } c:2\n} c:2\nc:2 [f]", ""},
		{"quoted braces", `a "{" b "}"`, "c:1 [a] [{] [b] [}]", ""},
		{"definition", "$A=1\n$B=2.${A}\nx $A ${A}0 $B.3", "c:3 [x] [1] [10] [2.1.3]", ""},
		{"definition of a later one", "$B=<$A>\n$A=1\nx $B", "c:3 [x] [<1>]", ""},
		{"redefinition", "$A=1\nx $A\n$A=2\nx $A", "c:2 [x] [1]\nc:4 [x] [2]", ""},
		{"undefined stays", "x $A ${B} $1 $ ${ $", "c:1 [x] [$A] [${B}] [$1] [$] [$] {\n  c:1 [$]\n} c:1", "c:1: error: the block that starts here has no closing }"},
		{"empty definition", "$A=\nx a$A", "c:2 [x] [a]", ""},
		{"definition of several lines", "$NUM=1\n$I= \\\ninst VI_$NUM { \\ # note\n  prio ${NUM}0 \\\n}\n$I\n$NUM=2\n$I", "c:6 [inst] [VI_1] {\n  c:6 [prio] [10]\n} c:6\nc:8 [inst] [VI_2] {\n  c:8 [prio] [20]\n} c:8", ""},
		{"definition inside a line", "$A=1 \\\n2 3\nx $A y", "c:3 [x] [1]\nc:3 [2] [3] [y]", ""},
		{"predefined", "x ${_HASH}1 ${_BANG} ${_PWD} ${_ENV HOME}", "c:1 [x] [#1] [!] [/etc/x] [/root]", ""},
		{"instance name", "x ${_INSTANCE}\ninstance blue\nx ${_INSTANCE}", "c:1 [x]\nc:2 [instance] [blue]\nc:3 [x] [blue]", ""},
		{"conditions", "@lb1 a 1\n@lb2 a 2\n@^lb1 b 1\n@^lb2 b 2\n@lb2 $X=1\nc $X", "c:1 [a] [1]\nc:4 [b] [2]\nc:6 [c] [$X]", ""},
		{"conditional definition of several lines", "@lb2 $A=1 \\\nbad\n@lb1 $A=2 \\\n3\n$A", "c:5 [2]\nc:5 [3]", ""},

		{"stray brace", "a\n}\nb", "c:1 [a]\nc:3 [b]", "c:2: error: } without a block to close; is a { missing above?"},
		{"brace without keyword", "{\na\n}\nb", "c:4 [b]", "c:1: error: { without a keyword before it"},
		{"unterminated block", "a {\nb {\n}", "c:1 [a] {\n  c:2 [b] {\n  } c:3\n} c:3", "c:1: error: the block that starts here has no closing }"},
		{"unterminated quote", "a \"b c # d\ne", "c:1 [a] [b c # d]\nc:2 [e]", "c:1: error: missing closing double quote"},
		{"long line", "a " + long + "\n# " + long + "\nb # " + long, "c:3 [b]", "c:1: error: line of 1102 bytes; at most 1023 are allowed"},
		{"NUL", "a\x00b\n\x00\nc # \x00", "c:3 [c]", "c:1: error: the line contains a NUL byte; the file must be plain text (UTF-8, not UTF-16)"},
		{"full-width", "a ｛\n# ｛\n\"“\"\nb　c\n！ d", "c:1 [a] [｛]\nc:3 [“]\nc:4 [b　c]\nc:5 [！] [d]", "c:1: error: the character U+FF5B looks like punctuation but is none; write {\nc:4: error: the character U+3000 looks like punctuation but is none; write a blank (it is an ideographic space)\nc:5: warning: the character U+FF01 looks like punctuation but is none; write !"},
		{"generators", "a ~SEQ(x, 1, 2)\n~LST(y, 1)\n~SEQx(x,1,2)\nb ~SEQ", "c:4 [b] [~SEQ]", "c:1: error: ~SEQ is not supported by this version; write the lines out\nc:2: error: ~LST is not supported by this version; write the lines out\nc:3: error: ~SEQ is not supported by this version; write the lines out"},
		{"definition of itself", "$A=x$A\ny $A\nz", "c:3 [z]", "c:2: error: definition $A grows without end: it contains itself, or too many others"},
		{"lines of itself", "$A=x \\\n$A\n$A", strings.Repeat("c:3 [x]\n", 32), "c:3: error: definitions of several lines nested more than 32 deep; does one contain itself?"},
		{"backslash at the end", "a \\\nb", "c:1 [a]\nc:2 [b]", "c:1: warning: a backslash at the end of the line has no meaning; only $NAME= definitions may go on in the next line"},
		{"random", "a ${_RANDOM 1 2}", "c:1 [a] [${_RANDOM] [1] [2}]", "c:1: warning: ${_RANDOM}: not supported by this version; left as typed"},
		{"unset environment", "a ${_ENV NO}b", "c:1 [a] [b]", "c:1: warning: ${_ENV NO}: not set in the environment; replaced by nothing"},
		{"at alone", "@ a", "", "c:1: error: @ without a configuration id; write @id or @^id before the rest of the line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, ps := keepalived.ParseBytes("/etc/x/c", []byte(tt.in), keepalived.Options{
				ConfigID: "lb1",
				FS:       keepalived.Rooted(fstest.MapFS{}),
				Env: func(name string) (string, bool) {
					return "/root", name == "HOME"
				},
			})
			short := func(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "/etc/x/c:", "c:") }
			if got := short(dump(tree.Nodes, "")); got != strings.TrimSpace(tt.want) {
				t.Errorf("tree:\n%s\nwant:\n%s", got, tt.want)
			}
			if got := short(problems(ps)); got != tt.problems {
				t.Errorf("problems:\n%s\nwant:\n%s", got, tt.problems)
			}
		})
	}
}

func TestInclude(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }
	fsys := fstest.MapFS{
		"etc/kv/a.conf":      file("a 1\ninclude sub/b.conf\na 2\n"),
		"etc/kv/sub/b.conf":  file("b\ninclude c.inc"),
		"etc/kv/sub/c.inc":   file("c"),
		"etc/kv/d/2.conf":    file("two"),
		"etc/kv/d/1.conf":    file("one"),
		"etc/kv/loop1":       file("include loop2"),
		"etc/kv/loop2":       file("x\ninclude /etc/kv/loop1"),
		"etc/kv/exec.conf":   {Data: []byte("x"), Mode: 0o755},
		"etc/kv/open.conf":   file("block {\n"),
		"etc/kv/close.conf":  file("}\n"),
		"etc/kv/self-abc":    file("q"),
		"etc/kv/bomb0":       file("include bomb1\ninclude bomb1"),
		"etc/kv/defs.conf":   file("$N=7"),
		"etc/kv/members.inc": file("m1\nm2"),
	}
	for i := 1; i < 14; i++ {
		fsys[fmt.Sprintf("etc/kv/bomb%d", i)] = file(strings.Repeat(fmt.Sprintf("include bomb%d\n", i+1), 2))
	}
	fsys["etc/kv/bomb14"] = file("x")
	tests := []struct{ name, in, want, problems string }{
		{"nested, relative to the including file", "include a.conf", "a.conf:1 [a] [1]\nsub/b.conf:1 [b]\nsub/c.inc:1 [c]\na.conf:3 [a] [2]", ""},
		{"glob", "include d/*.conf", "d/1.conf:1 [one]\nd/2.conf:1 [two]", ""},
		{"absolute glob", "include /etc/kv/d/*.conf", "d/1.conf:1 [one]\nd/2.conf:1 [two]", ""},
		{"braces keep their order", "include d/{2,1}.conf", "d/2.conf:1 [two]\nd/1.conf:1 [one]", ""},
		{"definitions in the name", "$W=one\n$D=d\ninclude ${D}/1.conf", "d/1.conf:1 [one]", ""},
		{"definitions come through", "include defs.conf\nx $N", "main:2 [x] [7]", ""},
		{"quoted name", `include "d/1.conf" # c`, "d/1.conf:1 [one]", ""},
		{"in a block", "g {\ninclude members.inc\n}\nh { include members.inc }", "main:1 [g] {\n  members.inc:1 [m1]\n  members.inc:2 [m2]\n} main:3\nmain:4 [h] {\n  members.inc:1 [m1]\n  members.inc:2 [m2]\n} main:4", ""},
		{"conditional", "@lb2 include nothing\n@lb1 include d/1.conf", "d/1.conf:1 [one]", ""},
		{"pattern without match", "include e/*.conf\ninclude {e,f}", "", ""},
		{"variants", "includew e/*\nincludem e\nincludeb {d/1.conf,e}\nincludea d/*\nincluder e*", "d/1.conf:1 [one]\nd/1.conf:1 [one]\nd/2.conf:1 [two]", "main:1: error: includew e/*: no such file\nmain:2: error: includem e: no such file\nmain:3: error: includeb e: no such file\nmain:5: error: includer /etc/kv/exec.conf: is executable; keepalived refuses such files, remove the execute bits"},
		{"missing", "include no.conf\nx", "main:2 [x]", "main:1: error: include no.conf: no such file"},
		{"directory", "include d", "", "main:1: error: include /etc/kv/d: is a directory"},
		{"words", "include\ninclude a b\ninclude \"a", "", "main:1: error: include: missing file name\nmain:2: error: include: one file name or pattern expected, found 2 words\nmain:3: error: include: missing closing double quote"},
		{"cycle", "include loop1", "loop2:1 [x]", "loop2:2: error: include /etc/kv/loop1: files include each other: /etc/kv/main -> /etc/kv/loop1 -> /etc/kv/loop2 -> /etc/kv/loop1"},
		{"blocks do not cross files", "a {\ninclude close.conf\nb\n}\ninclude open.conf\nc", "main:1 [a] {\n  main:3 [b]\n} main:4\nopen.conf:1 [block] {\n} open.conf:2\nmain:6 [c]", "close.conf:1: error: } without a block to close; is a { missing above?\nopen.conf:1: error: the block that starts here has no closing }"},
		{"exponential", "include bomb0", "", "bomb12:1: error: include /etc/kv/bomb13: more than 1000 includes"},
		{"bad pattern", "include [", "", "main:1: error: include [: syntax error in pattern"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, ps := keepalived.ParseBytes("/etc/kv/main", []byte(tt.in), keepalived.Options{
				ConfigID: "lb1", FS: keepalived.Rooted(fsys),
			})
			short := func(s string) string {
				var out []string
				for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
					trimmed := strings.TrimLeft(l, " ")
					indent := l[:len(l)-len(trimmed)]
					trimmed = strings.TrimPrefix(trimmed, "/etc/kv/")
					trimmed = strings.Replace(trimmed, "} /etc/kv/", "} ", 1)
					out = append(out, indent+trimmed)
				}
				return strings.Join(out, "\n")
			}
			got := short(dump(tree.Nodes, ""))
			if tt.name != "exponential" && got != tt.want {
				t.Errorf("tree:\n%s\nwant:\n%s", got, tt.want)
			}
			if got := short(problems(ps)); got != tt.problems {
				t.Errorf("problems:\n%s\nwant:\n%s", got, tt.problems)
			}
		})
	}
}

func TestFilesAreListedOnce(t *testing.T) {
	fsys := fstest.MapFS{"m": {Data: []byte("include a\ninclude a\n")}, "a": {Data: []byte("x")}}
	tree, ps := keepalived.Parse("/m", keepalived.Options{FS: keepalived.Rooted(fsys)})
	if len(ps) > 0 || fmt.Sprint(tree.Files) != "[/m /a]" || len(tree.Nodes) != 2 {
		t.Errorf("files %v, %d nodes, problems %v", tree.Files, len(tree.Nodes), ps)
	}
}

func TestParseMissingFile(t *testing.T) {
	tree, ps := keepalived.Parse(filepath.Join(t.TempDir(), "none"), keepalived.Options{})
	if tree == nil || len(ps) != 1 || !strings.HasSuffix(problems(ps), "none: error: cannot read the file: no such file or directory\n") {
		t.Errorf("got %v, %s", tree, problems(ps))
	}
}

func TestProblemsAreBounded(t *testing.T) {
	_, ps := keepalived.ParseBytes("x", []byte(strings.Repeat("}\n", 10000)), keepalived.Options{})
	if n := len(ps); n > 250 {
		t.Errorf("%d problems", n)
	}
	_, ps = keepalived.ParseBytes("x", []byte(strings.Repeat("a{", 10000)), keepalived.Options{})
	if n := len(ps); n > 250 {
		t.Errorf("%d problems", n)
	}
	many := "$A=" + strings.Repeat(" \\\nx", 4000) + "\n" + strings.Repeat("$A\n", 100)
	if _, ps = keepalived.ParseBytes("x", []byte(many), keepalived.Options{}); len(ps) != 1 {
		t.Errorf("one problem expected, got %s", problems(ps))
	}
}

func TestSplitCommand(t *testing.T) {
	tests := []struct {
		in   string
		want []string
		err  string
	}{
		{"", nil, ""},
		{"  a  b\t c ", []string{"a", "b", "c"}, ""},
		{`a 'b c' "d e"f ''`, []string{"a", "b c", "d ef", ""}, ""},
		{`a '\n' "\n" \n\t`, []string{"a", `\n`, "\n", "\n\t"}, ""},
		{`\a\b\E\f\n\r\t\v`, []string{"\a\b\x1b\f\n\r\t\v"}, ""},
		{`\101 \x41 \x4 \xg \1012 \cA \q \\ \" \ `, []string{"A", "A", "\x04", "xg", "A2", "\x01", "q", `\`, `"`, " "}, ""},
		{`\400`, []string{" 0"}, ""},
		{"\\x\x11", []string{"x\x11"}, ""},
		{`a 'b`, nil, "missing closing single quote"},
		{`a "b`, nil, "missing closing double quote"},
		{`a \`, nil, "nothing follows the last backslash"},
		{`a \0`, nil, "an escape that stands for a NUL byte is not allowed"},
	}
	for _, tt := range tests {
		got, err := keepalived.SplitCommand(tt.in)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("SplitCommand(%q) = %q, %v; want %q, %s", tt.in, got, err, tt.want, tt.err)
		}
	}
}

// The two steps of a script line: words, then the command's arguments.
func TestSplitCommandTwice(t *testing.T) {
	tree, _ := keepalived.ParseBytes("x", []byte(`script "/bin/sh -c \"a 'b'\" # c" root`), keepalived.Options{})
	words, err := keepalived.SplitCommand(tree.Nodes[0].Raw)
	if err != nil || len(words) != 3 {
		t.Fatalf("words %q, %v", words, err)
	}
	argv, err := keepalived.SplitCommand(words[1])
	if want := []string{"/bin/sh", "-c", "a 'b'", "#", "c"}; err != nil || fmt.Sprintf("%q", argv) != fmt.Sprintf("%q", want) {
		t.Errorf("argv %q, %v; want %q", argv, err, want)
	}
}

func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("../../deploy/examples/*")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("$A= \\\nx { \\\n y $B \\\n}\n$B=${A}\n$A\n@lb1 {\n}}\n"))
	f.Add([]byte("include *\ninclude {main,b}\n\"${_ENV X}\" \\# ${_PWD ~SEQ(x,1,2)"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{"main": {Data: data}, "b": {Data: []byte("b {\n}")}}
		tree, _ := keepalived.Parse("/main", keepalived.Options{
			ConfigID: "lb1", FS: keepalived.Rooted(fsys), Env: func(string) (string, bool) { return "$A {\n#", true },
		})
		var check func(nodes []*keepalived.Node, depth int)
		check = func(nodes []*keepalived.Node, depth int) {
			if depth > 100 {
				t.Fatal("too deep")
			}
			for _, n := range nodes {
				if n == nil || len(n.Words) == 0 || n.Pos.File == "" || n.Pos.Line < 1 {
					t.Fatalf("bad node %+v", n)
				}
				if n.HasBlock && n.End.Line < 1 || !n.HasBlock && n.Block != nil {
					t.Fatalf("bad block %+v", n)
				}
				_, _ = keepalived.SplitCommand(n.Raw)
				check(n.Block, depth+1)
			}
		}
		check(tree.Nodes, 0)
	})
}
