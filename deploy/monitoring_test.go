package deploy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// metric is a row of docs/metrics.md.
type metric struct {
	histogram bool
	labels    []string
	when      string // it is there
}

var metricRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| `[^`]+` \\| ([a-z-]+(?: counter)?) \\| [^|]+ \\| ([^|]+) \\| [^|]+ \\| (.*) \\|$")

// documentedMetrics reads docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	for _, row := range metricRow.FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		m := metric{histogram: row[2] == "histogram"}
		for _, label := range strings.Split(row[3], ", ") {
			if label = strings.Trim(label, "` "); label != "—" {
				m.labels = append(m.labels, label)
			}
		}
		if _, when, ok := strings.Cut(row[4], "There when "); ok {
			m.when, _, _ = strings.Cut(when, ".")
		}
		all[row[1]] = m
	}
	if len(all) < 100 {
		t.Fatalf("docs/metrics.md has %d metrics: its rows were not read", len(all))
	}
	return all
}

// rule is a recording or an alert rule.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T, name string) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, name)), &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// panel is one of a dashboard's.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		RefID string
		Expr  string
	}
}

type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []panel
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	names, err := filepath.Glob("grafana/dashboards/*.json")
	if err != nil || len(names) < 4 {
		t.Fatalf("dashboards %q, %v", names, err)
	}
	all := map[string]dashboard{}
	for _, name := range names {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, name)), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[filepath.Base(name)] = d
	}
	return all
}

// expressions are all that dashboards and rules ask Prometheus for, each with
// where it stands.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"prometheus/rules/recording.yml", "prometheus/rules/alerts.yml"} {
		for _, r := range rules(t, name) {
			all[name+": "+r.Record+r.Alert] = r.Expr
		}
	}
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				all[fmt.Sprintf("%s: %s %s", name, p.Title, target.RefID)] = target.Expr
			}
		}
		for _, v := range d.Templating.List {
			if of, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
				all[name+": variable "+v.Name], _, _ = strings.Cut(of, ",")
			}
		}
	}
	return all
}

var (
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\b[0-9][0-9a-z.]*`)
	labelLists = regexp.MustCompile(`\{[^}]*\}|\b(?:by|on|without|ignoring)\s*\([^)]*\)`)
	identifier = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\b(\s*\()?`)
)

// metricNames extracts the names of metrics from an expression of PromQL: what
// is neither a label, nor a function, nor a word of the language.
func metricNames(expr string) []string {
	expr = labelLists.ReplaceAllString(quoted.ReplaceAllString(expr, " "), " ")
	var names []string
	for _, found := range identifier.FindAllString(expr, -1) {
		switch word := strings.TrimSpace(found); {
		case strings.HasSuffix(word, "("), word == "and", word == "or", word == "unless", word == "bool":
		default:
			names = append(names, word)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestMetricNames(t *testing.T) {
	for expr, want := range map[string]string{
		`histogram_quantile(0.9, sum by (api, le) (rate(x_bucket{a="up", b=~"$c"}[5m])))`: "x_bucket",
		`(sum(a:b:rate5m{class="5xx"}) or vector(0)) / (sum (y) > 1e3)`:                   "a:b:rate5m y",
		`max by (group) (increase(z_total[15m])) > 6 and on (group) -up`:                  "up z_total",
	} {
		if got := strings.Join(metricNames(expr), " "); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// base is the metric of a series of a histogram.
func base(series string, documented map[string]metric) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(series, suffix); ok && documented[name].histogram {
			return name
		}
	}
	return series
}

// TestMonitoringNames: dashboards and rules ask for metrics that docs/metrics.md
// has, or that a rule records.
func TestMonitoringNames(t *testing.T) {
	documented := documentedMetrics(t)
	recorded := map[string]bool{"up": true} // Prometheus' own
	for _, r := range rules(t, "prometheus/rules/recording.yml") {
		recorded[r.Record] = true
	}
	seen := 0
	for where, expr := range expressions(t) {
		names := metricNames(expr)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %s", where, expr)
		}
		for _, name := range names {
			seen++
			if _, ok := documented[base(name, documented)]; !ok && !recorded[name] {
				t.Errorf("%s: docs/metrics.md knows no %s", where, name)
			}
		}
	}
	if seen < 100 {
		t.Errorf("found %d names: the expressions were not read", seen)
	}
}

// TestAlertsAreTested: each alert fires in a test of promtool's, and each has a
// severity and a summary.
func TestAlertsAreTested(t *testing.T) {
	fires := map[string]bool{}
	files, err := filepath.Glob("prometheus/tests/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("tests %q, %v", files, err)
	}
	for _, name := range files {
		var file struct {
			Tests []struct {
				AlertRuleTest []struct {
					Alertname string
					ExpAlerts []any `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, name)), &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, test := range file.Tests {
			for _, a := range test.AlertRuleTest {
				fires[a.Alertname] = fires[a.Alertname] || len(a.ExpAlerts) > 0
			}
		}
	}
	for _, r := range rules(t, "prometheus/rules/alerts.yml") {
		if !fires[r.Alert] {
			t.Errorf("%s fires in no test", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" || r.Annotations["summary"] == "" {
			t.Errorf("%s has severity %q and summary %q", r.Alert, s, r.Annotations["summary"])
		}
		delete(fires, r.Alert)
	}
	for _, name := range slices.Sorted(maps.Keys(fires)) {
		t.Errorf("%s is tested and isn't there", name)
	}
}

// TestDashboards: what Grafana would complain of, or show wrongly.
func TestDashboards(t *testing.T) {
	uids, heat := map[string]bool{}, false
	for name, d := range dashboards(t) {
		if d.UID == "" || d.UID+".json" != name || d.Title == "" || uids[d.UID] {
			t.Errorf("%s has uid %q and title %q", name, d.UID, d.Title)
		}
		uids[d.UID] = true
		ids, cells := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			heat = heat || p.Type == "heatmap" && strings.Contains(p.Targets[0].Expr, "gridloom_request_ttfb_seconds_bucket")
			if p.ID == 0 || ids[p.ID] || p.Title == "" || p.Type == "" || p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: panel %d, %q, of type %q, with %d targets", name, p.ID, p.Title, p.Type, len(p.Targets))
			}
			ids[p.ID] = true
			g := p.GridPos
			if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
				t.Errorf("%s: %q is at %+v", name, p.Title, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := cells[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: %q lies over %q", name, p.Title, other)
					}
					cells[[2]int{x, y}] = p.Title
				}
			}
		}
		for _, found := range regexp.MustCompile(`\$\{?([a-z_]+)`).FindAllStringSubmatch(read(t, "grafana/dashboards/"+name), -1) {
			if v := found[1]; !strings.HasPrefix(v, "__") && !slices.ContainsFunc(d.Templating.List, func(of struct{ Name, Type, Definition string }) bool { return of.Name == v }) {
				t.Errorf("%s: no variable %s", name, v)
			}
		}
	}
	if !heat {
		t.Error("no dashboard has a heat map of the time to first byte")
	}
}

// TestProvisioning: the files are YAML, and the scrape configuration names rules
// that are there.
func TestProvisioning(t *testing.T) {
	for _, name := range []string{"grafana/provisioning/dashboards/gridloom.yml", "grafana/provisioning/datasources/gridloom.yml"} {
		var file struct {
			APIVersion int `yaml:"apiVersion"`
		}
		if err := yaml.Unmarshal([]byte(read(t, name)), &file); err != nil || file.APIVersion != 1 {
			t.Errorf("%s: version %d, %v", name, file.APIVersion, err)
		}
	}
	var config struct {
		RuleFiles []string `yaml:"rule_files"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/prometheus.yml")), &config); err != nil || len(config.RuleFiles) != 2 {
		t.Fatalf("rule files %q, %v", config.RuleFiles, err)
	}
	for _, name := range config.RuleFiles {
		if _, err := os.Stat(filepath.Join("prometheus", name)); err != nil {
			t.Error(err)
		}
	}
}
