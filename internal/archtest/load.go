package archtest

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// tree is the module's syntax. All paths are slash-separated and relative to
// the module's root.
type tree struct {
	module string // the module's path
	fset   *token.FileSet
	pkgs   []*pkg // sorted by dir
	info   *types.Info
	funcs  map[types.Object]*ast.FuncDecl // those that are not methods
}

// pkg is one folder with Go files, test files included.
type pkg struct {
	dir   string // "." for the root
	files []*file
}

// file is one parsed file.
type file struct {
	path      string
	test      bool // *_test.go
	generated bool
	lines     int
	build     constraint.Expr // nil without a //go:build line
	ast       *ast.File
}

// load parses the module whose go.mod is at the root of fsys.
func load(fsys fs.FS) (*tree, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	t := &tree{fset: token.NewFileSet(), info: &types.Info{
		Defs: map[*ast.Ident]types.Object{},
		Uses: map[*ast.Ident]types.Object{},
	}, funcs: map[types.Object]*ast.FuncDecl{}}
	for line := range strings.Lines(string(mod)) {
		if rest, ok := strings.CutPrefix(line, "module "); ok {
			t.module = strings.TrimSpace(rest)
			break
		}
	}
	if t.module == "" {
		return nil, fmt.Errorf("go.mod has no module line")
	}
	dirs := map[string]*pkg{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && foreign(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(path.Base(name), "_") {
			return nil
		}
		f, err := t.parse(fsys, name)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if dirs[dir] == nil {
			dirs[dir] = &pkg{dir: dir}
			t.pkgs = append(t.pkgs, dirs[dir])
		}
		dirs[dir].files = append(dirs[dir].files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(t.pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	for _, p := range t.pkgs {
		t.resolve(p)
	}
	return t, nil
}

// foreign says whether a folder holds none of this module's packages.
func foreign(fsys fs.FS, dir string) bool {
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	switch base {
	case "testdata", "vendor", "node_modules":
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

func (t *tree) parse(fsys fs.FS, name string) (*file, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(t.fset, name, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	f := &file{
		path:      name,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
		lines:     t.fset.File(syntax.FileStart).LineCount(),
		ast:       syntax,
	}
	for _, group := range syntax.Comments {
		for _, c := range group.List {
			if c.Pos() < syntax.Package && constraint.IsGoBuild(c.Text) {
				if f.build, err = constraint.Parse(c.Text); err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	return f, nil
}

// importPath is the path by which others import the package.
func (t *tree) importPath(p *pkg) string {
	if p.dir == "." {
		return t.module
	}
	return t.module + "/" + p.dir
}

// local turns an import path into a folder of this module.
func (t *tree) local(importPath string) (dir string, ok bool) {
	if importPath == t.module {
		return ".", true
	}
	return strings.CutPrefix(importPath, t.module+"/")
}

// imports yields the import specs and their paths.
func (f *file) imports(yield func(*ast.ImportSpec, string) bool) {
	for _, spec := range f.ast.Imports {
		// The parser has accepted the literal already.
		name, _ := strconv.Unquote(spec.Path.Value)
		if !yield(spec, name) {
			return
		}
	}
}

// uses says whether the file imports a path.
func (f *file) uses(importPath string) bool {
	for _, path := range f.imports {
		if path == importPath {
			return true
		}
	}
	return false
}

// names says whether e is importPath.name, and not a field of something that
// happens to be called like the package.
func (t *tree) names(e ast.Expr, importPath string, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return false
	}
	imported, ok := t.info.Uses[id].(*types.PkgName)
	return ok && imported.Imported().Path() == importPath
}

// tagged says whether the file is built only with the tag.
func (f *file) tagged(tag string) bool {
	if f.build == nil {
		return false
	}
	without := f.build.Eval(func(t string) bool { return t != tag })
	with := f.build.Eval(func(string) bool { return true })
	return with && !without
}

// docs is the text of the package comment, "" where there is none.
func (p *pkg) docs() string {
	text := ""
	for _, f := range p.files {
		if !f.test && f.ast.Doc != nil {
			text += f.ast.Doc.Text()
		}
	}
	return text
}

// source says whether the package has files that are neither tests nor
// generated.
func (p *pkg) source() bool {
	for _, f := range p.files {
		if !f.test && !f.generated {
			return true
		}
	}
	return false
}
