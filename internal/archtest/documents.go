package archtest

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// docLines is the least a package's story takes.
const docLines = 4

func checkDocs(t *tree, r *report) {
	for _, p := range t.pkgs {
		if !p.source() {
			continue
		}
		if n := len(strings.Split(strings.TrimSpace(p.docs()), "\n")); n < docLines {
			r.in(p.dir, "the package comment has fewer than %d lines: say what it is for, what runs in it and how it fails", docLines)
		}
	}
}

// vague are names that say nothing, so that everything ends up there.
var vague = []string{"util", "utils", "common", "helper", "helpers", "type", "types", "misc", "base", "shared", "lib"}

func checkNames(t *tree, r *report) {
	for _, p := range t.pkgs {
		if slices.Contains(vague, path.Base(p.dir)) {
			r.in(p.dir, "a package is named for what it does")
		}
		for _, f := range p.files {
			stem := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test")
			if slices.Contains(vague, stem) {
				r.in(f.path, "a file is named for what it does")
			}
			if generated := strings.HasSuffix(f.path, "_gen.go") || strings.HasPrefix(f.path, "gen/"); f.generated && !generated {
				r.in(f.path, "generated files end in _gen.go or lie in gen/")
			} else if !f.generated && strings.HasSuffix(f.path, "_gen.go") {
				r.in(f.path, "_gen.go is for generated files")
			}
		}
	}
}

const (
	fileLines     = 500 // past it a comment at the top mentions "500 lines" and says why
	functionLines = 120 // nobody holds more in the head
)

func checkLengths(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			if f.lines > fileLines && !f.excuse() {
				r.in(f.path, `%d lines; past %d a comment above the first declaration says why there are more than "500 lines"`, f.lines, fileLines)
			}
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := t.fset.Position(fn.End()).Line - t.fset.Position(fn.Pos()).Line + 1; n > functionLines {
					r.at(fn.Pos(), "%s has %d lines, more than %d", fn.Name.Name, n, functionLines)
				}
			}
		}
	}
}

// excuse says whether a comment above the first declaration gives a reason
// for the file's length.
func (f *file) excuse() bool {
	for _, c := range f.ast.Comments {
		if len(f.ast.Decls) > 0 && c.Pos() > f.ast.Decls[0].Pos() {
			break
		}
		if strings.Contains(c.Text(), "500 lines") {
			return true
		}
	}
	return false
}

// promises are the marks of work that was put off.
var promises = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func checkComments(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			for _, group := range f.ast.Comments {
				for _, c := range group.List {
					if mark := promises.FindString(c.Text); mark != "" {
						r.at(c.Pos(), "%s: do it, or file an issue and say here what holds now", mark)
					}
				}
			}
		}
	}
}
