package archtest

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

func checkInit(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					r.at(fn.Pos(), "no init functions: what a program needs, it builds in Open or New")
				}
			}
		}
	}
}

// makers are functions whose results may be package-level variables: errors,
// and values that are the same for ever once they are made.
var makers = map[string][]string{
	"errors":                 {"New"},
	"fmt":                    {"Errorf"},
	"regexp":                 {"MustCompile"},
	"hash/crc32":             {"MakeTable"},
	"hash/crc64":             {"MakeTable"},
	"encoding/base32":        {"NewEncoding"},
	"encoding/base64":        {"NewEncoding"},
	"net/netip":              {"MustParseAddr", "MustParsePrefix"},
	"strings":                {"NewReplacer"},
	"math/big":               {"NewInt"},
	"html/template":          {"Must"},
	"text/template":          {"Must"},
	"time":                   {"Unix", "Date"},
	"github.com/google/uuid": {"MustParse"},
}

// gridMakers describe a handler by its id and types, and hold no state.
var gridMakers = []string{"NewSingle", "NewStreamOf"}

func checkVariables(t *tree, r *report) {
	for _, p := range t.pkgs {
		tables := map[types.Object]bool{}
		for _, f := range p.files {
			if f.test || f.generated {
				continue
			}
			for _, d := range f.ast.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
					t.checkVarDecl(r, f, g, tables)
				}
			}
		}
		for _, f := range p.files {
			t.checkWrites(r, f, tables)
		}
	}
}

// checkVarDecl checks the variables of one declaration, and adds to tables
// those that nobody may write to.
func (t *tree) checkVarDecl(r *report, f *file, g *ast.GenDecl, tables map[types.Object]bool) {
	for _, s := range g.Specs {
		spec := s.(*ast.ValueSpec)
		if embeds(g.Doc) || embeds(spec.Doc) {
			continue
		}
		for i, name := range spec.Names {
			if name.Name == "_" || t.pool(spec, i) {
				continue
			}
			if obj := t.info.Defs[name]; obj != nil {
				tables[obj] = true
			}
			switch {
			case len(spec.Values) == len(spec.Names) && t.constant(spec.Values[i]):
			case len(spec.Values) == 0 && zeros(spec.Type):
			case f.ast.Name.Name == "main" && name.Name == "version":
				// The linker sets it.
			default:
				r.at(name.Pos(), "%s is neither an error, a pool nor a table", name.Name)
			}
		}
	}
}

func embeds(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// pool says whether the i-th variable of spec is a sync.Pool, made here or by
// a function of the package.
func (t *tree) pool(spec *ast.ValueSpec, i int) bool {
	e := spec.Type
	if i < len(spec.Values) {
		e = spec.Values[i]
	}
	for e != nil {
		switch x := e.(type) {
		case *ast.UnaryExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.CompositeLit:
			e = x.Type
		case *ast.ArrayType:
			e = x.Elt
		case *ast.CallExpr:
			e = t.result(x)
		default:
			return t.names(e, "sync", "Pool")
		}
	}
	return false
}

// result is the type that a call of a function of the same package gives, nil
// where it is not known.
func (t *tree) result(call *ast.CallExpr) ast.Expr {
	id, ok := call.Fun.(*ast.Ident)
	if !ok {
		return nil
	}
	fn := t.funcs[t.info.Uses[id]]
	if fn == nil || fn.Type.Results.NumFields() != 1 {
		return nil
	}
	return fn.Type.Results.List[0].Type
}

// zeros says whether a type is an array of numbers: a table of nothing.
func zeros(e ast.Expr) bool {
	array, ok := e.(*ast.ArrayType)
	if !ok || array.Len == nil {
		return false
	}
	elem, ok := array.Elt.(*ast.Ident)
	return ok && types.Universe.Lookup(elem.Name) != nil
}

// constant says whether e is a value that stays as it is as long as nobody
// writes to it: an error, a table, or made of such.
func (t *tree) constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.BinaryExpr:
		return false // a const
	case *ast.CompositeLit:
		return !t.guards(e.Type)
	case *ast.UnaryExpr:
		lit, ok := e.X.(*ast.CompositeLit)
		return e.Op == token.AND && ok && t.constant(lit)
	case *ast.CallExpr:
		return t.makes(e)
	}
	return false
}

// guards says whether a type exists to be changed.
func (t *tree) guards(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if index, generic := e.(*ast.IndexExpr); generic {
		sel, ok = index.X.(*ast.SelectorExpr)
	}
	if !ok {
		return false
	}
	return t.names(sel, "sync", sel.Sel.Name) || t.names(sel, "sync/atomic", sel.Sel.Name)
}

// makes says whether a call is of one of the makers, a conversion, or a
// method of what a maker has made.
func (t *tree) makes(call *ast.CallExpr) bool {
	var sel *ast.SelectorExpr
	switch fun := function(call).(type) {
	case *ast.ArrayType:
		return true // []byte("…")
	case *ast.FuncLit:
		return true // a table that is computed
	case *ast.SelectorExpr:
		sel = fun
	default:
		return false
	}
	if inner, ok := sel.X.(*ast.CallExpr); ok {
		return t.makes(inner) // base32.NewEncoding(…).WithPadding(…)
	}
	for path, names := range makers {
		for _, name := range names {
			if t.names(sel, path, name) {
				return true
			}
		}
	}
	for _, name := range gridMakers {
		if t.names(sel, t.gridPath(), name) {
			return true
		}
	}
	return false
}

// function is what a call calls, without type arguments.
func function(call *ast.CallExpr) ast.Expr {
	switch fun := call.Fun.(type) {
	case *ast.IndexExpr:
		return fun.X
	case *ast.IndexListExpr:
		return fun.X
	}
	return call.Fun
}

// checkWrites finds what changes a package-level variable, in tests too: a
// variable for tests to change is a parameter that was left out.
func (t *tree) checkWrites(r *report, f *file, tables map[types.Object]bool) {
	written := func(e ast.Expr) {
		if id := root(e); id != nil && tables[t.info.Uses[id]] {
			r.at(e.Pos(), "%s is written to", id.Name)
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				written(e)
			}
		case *ast.IncDecStmt:
			written(n.X)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (id.Name == "delete" || id.Name == "clear") {
				written(n.Args[0])
			}
		}
		return true
	})
}

// root is the variable that an assignment to e changes.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
