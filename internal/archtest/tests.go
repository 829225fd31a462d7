package archtest

import (
	"go/ast"
	"slices"
	"strings"
)

// functions yields the functions of a file that are not methods.
func (f *file) functions(yield func(*ast.FuncDecl) bool) {
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && !yield(fn) {
			return
		}
	}
}

func checkLeaks(t *tree, r *report) {
	for _, p := range t.pkgs {
		tests, checked := false, false
		for _, f := range p.files {
			if !f.test {
				continue
			}
			for fn := range f.functions {
				tests = tests || strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")
				if fn.Name.Name == "TestMain" && f.build == nil {
					checked = checked || f.uses("go.uber.org/goleak")
				}
			}
		}
		if tests && !checked {
			r.in(p.dir, "no TestMain that looks for leaked goroutines with goleak")
		}
	}
}

// tags are the build tags that choose tests: make test-real runs exactly the
// tests in the files behind the tag real, make soak those behind soak.
var tags = []string{"real", "soak"}

// needs begins the line that names the programs that a file's tests call, if
// any, so that make test-real can install them.
const needs = "//real:needs"

func checkTags(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for _, tag := range tags {
				if f.tagged(tag) && !f.test {
					r.in(f.path, "the tag %s is for tests", tag)
				}
			}
			if f.test && f.tagged("real") && !f.says(needs) {
				r.in(f.path, "no line %q with the programs that its tests call", needs)
			}
		}
	}
}

// says says whether a comment line begins with the prefix.
func (f *file) says(prefix string) bool {
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, prefix) {
				return true
			}
		}
	}
	return false
}

func checkSkips(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if !f.test {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if branch, ok := n.(*ast.IfStmt); ok && t.asksUser(branch.Cond) {
					return false
				}
				call, ok := n.(*ast.CallExpr)
				if !ok || !skips(call) {
					return true
				}
				switch {
				case f.tagged("real"):
					r.at(call.Pos(), "make test-real installs what a test needs, so a missing program is a failure")
				case len(call.Args) == 0:
					r.at(call.Pos(), "a skip says why")
				}
				return true
			})
		}
	}
}

// asksUser says whether a condition is about who runs the test, which nothing
// can be installed for.
func (t *tree) asksUser(cond ast.Expr) bool {
	asks := false
	ast.Inspect(cond, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			asks = asks || t.names(e, "os", "Geteuid") || t.names(e, "os", "Getuid")
		}
		return !asks
	})
	return asks
}

// skips says whether a call ends a test as skipped. The receiver is known by
// its usual names, since other things have a Skip too.
func skips(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) &&
		slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name)
}
