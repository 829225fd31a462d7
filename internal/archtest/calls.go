package archtest

import (
	"go/ast"
	"slices"
)

// calls are functions that not everyone may use.
var calls = []struct {
	pkg   string
	names []string
	only  []string // who may
	tests bool     // tests are held to it too
	why   string
}{
	{"os", []string{"Exit"}, []string{"cmd/gridloom"}, false, "only main ends the process"},
	{"os", []string{"Getenv", "LookupEnv", "Environ", "Setenv", "Unsetenv", "ExpandEnv"}, []string{"cmd/gridloom"}, false,
		"the environment is read by the command, libraries take structs"},
	{"fmt", []string{"Print", "Printf", "Println"}, []string{"cmd/gridloom"}, false, "only the command prints"},
	{"log/slog", []string{"SetDefault"}, nil, false, "no globals"},
	{"go.opentelemetry.io/otel", []string{"SetTracerProvider", "SetMeterProvider", "SetTextMapPropagator", "SetErrorHandler", "SetLogger",
		"GetTracerProvider", "GetMeterProvider", "GetTextMapPropagator", "Tracer", "Meter"}, nil, false, "no globals: several nodes share a process"},
	{"github.com/prometheus/client_golang/prometheus", []string{"MustRegister", "Register", "DefaultRegisterer", "DefaultGatherer"}, nil, false,
		"no globals: several nodes share a process"},
	{"net/http", []string{"DefaultServeMux", "DefaultClient", "Handle", "HandleFunc", "Get", "Head", "Post", "PostForm", "ListenAndServe"}, nil, false,
		"no globals, and every wait has a bound"},
	{"time", []string{"Sleep"}, nil, true, "wait for the thing itself, with a context; in tests with testing/synctest"},
	{"time", []string{"Tick"}, nil, true, "a ticker that somebody stops"},
	{"context", []string{"TODO"}, nil, true, "say whose context it is"},
}

func checkCalls(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			// On a virtual clock, to sleep is to wait for nothing but the time.
			virtual := f.test && f.uses("testing/synctest")
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				for _, c := range calls {
					if (f.test || p.helps()) && !c.tests || slices.Contains(c.only, p.dir) || virtual && c.pkg == "time" {
						continue
					}
					if slices.Contains(c.names, sel.Sel.Name) && t.names(sel, c.pkg, sel.Sel.Name) {
						r.at(sel.Pos(), "%s: %s", c.pkg+"."+sel.Sel.Name, c.why)
					}
				}
				return true
			})
		}
	}
}
