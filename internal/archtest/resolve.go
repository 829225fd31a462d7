package archtest

import (
	"go/ast"
	"go/types"
	"path"
	"strings"
)

// resolve finds out what the identifiers of a package stand for, and the
// values of its constants. What is imported is an empty shell, so whatever
// depends on it stays unknown; the errors that this gives, and those of files
// for different systems declaring the same thing, are the compiler's business.
func (t *tree) resolve(p *pkg) {
	units := map[string][]*ast.File{} // by package clause: tests may be outside
	for _, f := range p.files {
		name := f.ast.Name.Name
		units[name] = append(units[name], f.ast)
	}
	for name, files := range units {
		importPath := t.importPath(p)
		if strings.HasSuffix(name, "_test") {
			importPath += "_test"
		}
		config := types.Config{Importer: shells{t.gridPath()}, Error: func(error) {}}
		// The error is the first of those that Error was given.
		_, _ = config.Check(importPath, t.fset, files, t.info)
	}
	for _, f := range p.files {
		for fn := range f.functions {
			if obj := t.info.Defs[fn.Name]; obj != nil {
				t.funcs[obj] = fn
			}
		}
	}
}

func (t *tree) gridPath() string { return t.module + "/grid" }

// shells imports packages without their contents, but for the one type whose
// constants are looked at.
type shells struct{ grid string }

// Import returns a package of that path. Its name is the last element of the
// path that is not a major version.
func (s shells) Import(importPath string) (*types.Package, error) {
	name := path.Base(importPath)
	if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
		name = path.Base(path.Dir(importPath))
	}
	p := types.NewPackage(importPath, name)
	if importPath == s.grid {
		id := types.NewTypeName(0, p, "HandlerID", nil)
		types.NewNamed(id, types.Typ[types.Uint16], nil)
		p.Scope().Insert(id)
	}
	p.MarkComplete()
	return p, nil
}
