package config

import (
	"fmt"
	"slices"
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == SeverityWarning {
		return "warning"
	}
	return "error"
}

// String returns "file:line: message", with "warning: " before the message of
// a warning.
func (d Diagnostic) String() string {
	if d.Severity == SeverityWarning {
		return fmt.Sprintf("%s: warning: %s", d.Pos, d.Message)
	}
	return fmt.Sprintf("%s: %s", d.Pos, d.Message)
}

// HasErrors reports whether a diagnostic prevents loading.
func HasErrors(diags []Diagnostic) bool {
	return slices.ContainsFunc(diags, func(d Diagnostic) bool { return d.Severity == SeverityError })
}

// sortDiagnostics sorts by place, files in the order they were read.
func sortDiagnostics(diags []Diagnostic, files []string) {
	order := make(map[string]int, len(files))
	for i, f := range files {
		order[f] = i
	}
	slices.SortStableFunc(diags, func(a, b Diagnostic) int {
		if a.Pos.File != b.Pos.File {
			return order[a.Pos.File] - order[b.Pos.File]
		}
		return a.Pos.Line - b.Pos.Line
	})
}

func (l *loader) errorf(pos Pos, format string, args ...any) {
	l.diags = append(l.diags, Diagnostic{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) warnf(pos Pos, format string, args ...any) {
	l.diags = append(l.diags, Diagnostic{Pos: pos, Severity: SeverityWarning, Message: fmt.Sprintf(format, args...)})
}
