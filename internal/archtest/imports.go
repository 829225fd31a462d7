package archtest

import (
	"slices"
	"strings"
)

// layers says for each package of ours which others of ours it may import. A
// test may import its own package and what that may import, and the packages
// in forTests beside.
var layers = map[string][]string{
	"cmd/gridloom": {"node", "node/audit", "node/certs", "node/fault", "node/iam", "gen/gridloom/v1", "observability", "internal/nearest"},

	"node": {"node/api", "node/door", "node/door/lean", "node/heal", "node/object", "node/control", "node/certs", "node/iam", "node/audit", "node/limit", "node/fault",
		"grid", "dataio", "observability"},
	"node/api":       {"node/object", "node/iam", "node/audit", "node/limit", "node/fault", "observability", "dataio", "gen", "gen/gridloom/v1", "internal/nearest"},
	"node/door/lean": {"dataio"},
	"node/door":      {"node/object", "node/iam", "node/audit", "node/limit", "node/fault", "observability", "dataio"},
	"node/object":    {"node/control", "node/iam", "node/fault", "grid", "dataio"},
	"node/heal":      {"node/control", "node/object", "node/fault", "grid", "dataio"},
	"node/control":   {"node/control/replica", "node/control/disk", "node/iam", "node/fault", "grid"},

	"node/control/replica": nil,
	"node/control/disk":    {"node/fault"},

	"node/limit":    {"node/fault"},
	"node/certs":    nil,
	"node/iam":      nil,
	"node/audit":    nil,
	"node/fault":    nil,
	"grid":          nil,
	"dataio":        nil,
	"observability": nil,

	"grid/gridtest":   {"grid"},
	"dataio/datatest": {"dataio"},

	"node/control/controltest":         {"node/control"},
	"node/control/replica/replicatest": {"node/control/replica"},

	"gen":               nil,
	"gen/gridloom/v1":   nil,
	"deploy":            nil,
	"internal/archtest": nil,
	"internal/bench":    nil,
	"internal/e2e":      nil,
	"internal/nearest":  nil,
}

// forTests are what tests may import in addition, by the folder of the test.
var forTests = map[string][]string{
	"cmd/gridloom":         {"node/api", "grid/gridtest", "dataio/datatest"},
	"node":                 {"gen/gridloom/v1", "grid/gridtest", "dataio/datatest"},
	"node/api":             {"node/control", "grid/gridtest", "dataio/datatest"},
	"node/door":            {"node/control", "grid/gridtest", "dataio/datatest"},
	"node/object":          {"grid/gridtest", "dataio/datatest", "node/control/controltest"},
	"node/heal":            {"grid/gridtest", "dataio/datatest", "node/control/controltest"},
	"node/control":         {"grid/gridtest", "node/control/replica/replicatest"},
	"node/control/replica": {"node/control/disk", "node/control/replica/replicatest"},
	"internal/e2e":         {"gen/gridloom/v1", "dataio/datatest"},
	"grid":                 {"grid/gridtest"},
	"dataio":               {"dataio/datatest"},
}

// helps says whether a package is there for tests alone, and so is as free as
// they are.
func (p *pkg) helps() bool {
	switch p.dir {
	case "grid/gridtest", "dataio/datatest", "node/control/controltest", "node/control/replica/replicatest":
		return true
	}
	return false
}

func checkLayers(t *tree, r *report) {
	for _, p := range t.pkgs {
		may, known := layers[p.dir]
		if !known {
			r.in(p.dir, "this package is not in the table of layers")
			continue
		}
		for _, f := range p.files {
			for spec, path := range f.imports {
				dir, ours := t.local(path)
				if !ours || slices.Contains(may, dir) {
					continue
				}
				if f.test && (dir == p.dir || slices.Contains(forTests[p.dir], dir)) {
					continue
				}
				r.at(spec.Pos(), "%s may not import %s", p.dir, dir)
			}
		}
	}
}

// outside are libraries, the standard one's among them, that not everyone may
// import. A prefix covers what lies below it.
var outside = []struct {
	prefix string
	only   []string // who may; nil: everyone but the packages in never
	never  []string
	why    string
}{
	{"go.etcd.io/raft", []string{"node/control", "node/control/replica"}, nil, "consensus is behind control.Index"},
	{"github.com/cockroachdb/pebble", []string{"node/control", "node/control/replica", "node/control/disk"}, nil, "the store is behind control.Index"},
	{"github.com/fsnotify", []string{"node/certs"}, nil, "files that change are read again in one place"},
	{"github.com/gobwas", []string{"grid"}, nil, "the socket belongs to the grid"},
	{"github.com/shirou/gopsutil", []string{"observability"}, nil, "the host is sampled in one place"},
	{"github.com/prometheus", []string{"observability"}, nil, "only observability speaks to collectors"},
	{"go.opentelemetry.io", []string{"observability", "node"}, nil, "others report through hooks"},
	{"google.golang.org/grpc", []string{"cmd/gridloom", "node", "node/api", "node/fault", "observability", "gen", "gen/gridloom/v1"}, nil,
		"gRPC stays at the edge"},
	{"google.golang.org/grpc/status", []string{"cmd/gridloom", "node/api", "node/fault", "observability", "gen/gridloom/v1"}, nil,
		"errors become statuses once, at the edge"},
	{"github.com/grpc-ecosystem", []string{"node/api", "gen/gridloom/v1"}, nil, "the gateway belongs to the API"},
	{"github.com/spf13", []string{"cmd/gridloom"}, nil, "flags belong to the command"},
	{"flag", []string{"cmd/gridloom"}, nil, "flags belong to the command"},
	{"go.yaml.in", []string{"cmd/gridloom"}, nil, "configuration files belong to the command"},
	{"net/http", nil, []string{"dataio", "node/iam", "node/control"}, "it knows nothing of HTTP"},
	{"net/http/pprof", []string{}, nil, "it registers itself on a global mux"},
	{"expvar", []string{}, nil, "it registers itself on a global mux"},
	{"log", []string{}, nil, "log/slog through a hook or a logger"},
	{"math/rand", []string{}, nil, "math/rand/v2 or crypto/rand"},
}

// exactly are prefixes that cover only themselves, since what lies below is
// another thing altogether.
var exactly = []string{"flag", "log", "math/rand"}

func covers(prefix, path string) bool {
	return path == prefix || !slices.Contains(exactly, prefix) && strings.HasPrefix(path, prefix+"/")
}

func checkImports(t *tree, r *report) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test || p.helps() {
				continue
			}
			for spec, path := range f.imports {
				for _, o := range outside {
					if !covers(o.prefix, path) {
						continue
					}
					if o.only != nil && !slices.Contains(o.only, p.dir) || slices.Contains(o.never, p.dir) {
						r.at(spec.Pos(), "%s may not import %s: %s", p.dir, path, o.why)
					}
				}
				if spec.Name != nil && spec.Name.Name == "." {
					r.at(spec.Pos(), "a dot import hides where a name comes from")
				}
			}
		}
	}
}
