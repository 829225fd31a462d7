package archtest

import (
	"cmp"
	"fmt"
	"go/token"
	"io/fs"
	"slices"
)

// Finding is one place that breaks one rule.
type Finding struct {
	Path string // relative to the module's root
	Line int    // 0 where it is about the whole folder
	Rule string
	Text string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.Path, f.Rule, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Rule, f.Text)
}

// rule is one thing that is checked. Its name is what a finding shows.
type rule struct {
	name  string
	check func(*tree, *report)
}

var rules = []rule{
	{"layer", checkLayers},
	{"import", checkImports},
	{"call", checkCalls},
	{"doc", checkDocs},
	{"name", checkNames},
	{"length", checkLengths},
	{"comment", checkComments},
	{"init", checkInit},
	{"variable", checkVariables},
	{"leak", checkLeaks},
	{"tag", checkTags},
	{"skip", checkSkips},
	{"handler", checkHandlers},
}

// report collects what one rule finds.
type report struct {
	fset  *token.FileSet
	rule  string
	found []Finding
}

// at reports a place in a file.
func (r *report) at(pos token.Pos, format string, args ...any) {
	p := r.fset.Position(pos)
	r.found = append(r.found, Finding{p.Filename, p.Line, r.rule, fmt.Sprintf(format, args...)})
}

// in reports a folder or a file as a whole.
func (r *report) in(path, format string, args ...any) {
	r.found = append(r.found, Finding{path, 0, r.rule, fmt.Sprintf(format, args...)})
}

// Check reads the module at the root of fsys and returns what breaks a rule,
// sorted by place. An error means that the module could not be read.
func Check(fsys fs.FS) ([]Finding, error) {
	t, err := load(fsys)
	if err != nil {
		return nil, err
	}
	r := &report{fset: t.fset}
	for _, rule := range rules {
		r.rule = rule.name
		rule.check(t, r)
	}
	slices.SortStableFunc(r.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	return r.found, nil
}
