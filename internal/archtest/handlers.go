package archtest

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
)

// bands are the handler ids that each package gives out. 1,000 and up are the
// users' of the library.
var bands = map[string][2]uint64{
	"grid":         {1, 99},
	"node/control": {100, 199},
	"node/object":  {200, 209},
	"node/heal":    {210, 219},
	"node":         {300, 499}, // telemetry, then services
}

// ids collects the handler ids that the module gives out.
type ids struct {
	*tree
	*report
	given map[uint64]string // id to who has it
}

// checkHandlers looks at the constants of type grid.HandlerID outside tests,
// and at the places where a handler is described by a number.
func checkHandlers(t *tree, r *report) {
	g := &ids{t, r, map[uint64]string{}}
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GenDecl:
					if n.Tok == token.CONST {
						g.declared(p, n)
					}
				case *ast.CompositeLit:
					g.described(p, n)
				case *ast.CallExpr:
					g.called(p, n)
				}
				return true
			})
		}
	}
}

// declared takes the constants of type grid.HandlerID.
func (g *ids) declared(p *pkg, decl *ast.GenDecl) {
	for _, s := range decl.Specs {
		for _, name := range s.(*ast.ValueSpec).Names {
			if c, ok := g.info.Defs[name].(*types.Const); ok && name.Name != "_" && g.isID(c) {
				g.give(p, name, c.Val())
			}
		}
	}
}

// isID says whether a constant is a grid.HandlerID.
func (g *ids) isID(c *types.Const) bool {
	named, ok := c.Type().(*types.Named)
	return ok && named.Obj().Name() == "HandlerID" && named.Obj().Pkg().Path() == g.gridPath()
}

// described takes the ID of a grid.Handler{…}.
func (g *ids) described(p *pkg, lit *ast.CompositeLit) {
	if !g.names(lit.Type, g.gridPath(), "Handler") {
		return
	}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "ID" {
				g.used(p, kv.Value)
			}
		}
	}
}

// called takes the id in grid.NewSingle[…](id, …), in its like, and in the
// conversion grid.HandlerID(id).
func (g *ids) called(p *pkg, call *ast.CallExpr) {
	sel, ok := function(call).(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 || !g.names(sel, g.gridPath(), sel.Sel.Name) {
		return
	}
	if sel.Sel.Name == "HandlerID" || slices.Contains(gridMakers, sel.Sel.Name) {
		g.used(p, call.Args[0])
	}
}

// used takes an id that is written as a number or as a constant of another
// type. Those of type grid.HandlerID are taken where they are declared, and a
// variable has got its value from one of the three.
func (g *ids) used(p *pkg, e ast.Expr) {
	switch e := e.(type) {
	case *ast.BasicLit:
		g.give(p, e, constant.MakeFromLiteral(e.Value, e.Kind, 0))
	case *ast.Ident:
		if c, ok := g.info.Uses[e].(*types.Const); ok && !g.isID(c) {
			g.give(p, e, c.Val())
		}
	}
}

// give notes that n is an id of the package, and reports it when it is
// another's.
func (g *ids) give(p *pkg, n ast.Node, value constant.Value) {
	id, ok := constant.Uint64Val(constant.ToInt(value))
	if !ok {
		g.at(n.Pos(), "the value of this handler id can't be told from the source")
		return
	}
	switch band, has := bands[p.dir]; {
	case !has:
		g.at(n.Pos(), "%s has no band of handler ids", p.dir)
	case id < band[0] || id > band[1]:
		g.at(n.Pos(), "the handler ids of %s are %d to %d, and this is %d", p.dir, band[0], band[1], id)
	}
	if other := g.given[id]; other != "" {
		g.at(n.Pos(), "handler id %d is given at %s already", id, other)
		return
	}
	where := g.tree.fset.Position(n.Pos())
	g.given[id] = fmt.Sprintf("%s:%d", where.Filename, where.Line)
}
