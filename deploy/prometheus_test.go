//go:build real && linux

package deploy_test

//real:needs prometheus promtool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// promtool runs it, and gives what it says.
func promtool(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "promtool", args...)
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestPromtoolRules: promtool likes the configuration and the rules, and its
// own tests of them pass.
func TestPromtoolRules(t *testing.T) {
	t.Chdir("prometheus")
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", "prometheus.yml"}, // the files with keys are elsewhere
		{"check", "rules", "rules/recording.yml", "rules/alerts.yml"},
		{"test", "rules", "tests/rules_test.yml", "tests/slow_test.yml", "tests/days_test.yml"},
	} {
		if out, err := promtool(t, "", args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// started is a program at work.
type started struct {
	line string // of its output that was waited for
}

// start runs a program until the test ends, and returns with the first line of
// its output that has word in it.
func start(t *testing.T, word string, stderr bool, env []string, name string, args ...string) started {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	var log bytes.Buffer
	pipe := c.StdoutPipe
	if stderr {
		pipe = c.StderrPipe
	} else {
		c.Stderr = &log
	}
	out, err := pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		found := false
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if !found && strings.Contains(scan.Text(), word) {
				found = true
				lines <- scan.Text()
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
		defer timer.Stop()
		<-ended
		if err := c.Wait(); err != nil || t.Failed() {
			t.Logf("%s ended: %v\n%s", name, err, log.String())
		}
	})
	select {
	case line := <-lines:
		return started{line}
	case <-ended:
		t.Fatalf("%s ended without a line with %q", name, word)
	case <-time.After(time.Minute):
		t.Fatalf("%s has said nothing with %q for a minute", name, word)
	}
	return started{}
}

// fetch makes a request with a key, "" for none, and gives the answer's text.
func fetch(t *testing.T, client *http.Client, method, address, key, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// watched is a mesh of three, a node alone that has TLS, and what a Prometheus
// needs to scrape them.
type watched struct {
	nodes []string // URLs of the mesh
	key   string   // the root key of both
	alone string   // URL of the node alone
	ca    string   // file with its authority

	keyFile, rootFile string // of the user prometheus, and of root
}

// watch builds the program, starts it twice, and gives it something to do.
func watch(t *testing.T, client *http.Client, dir string) watched {
	t.Helper()
	program := filepath.Join(dir, "gridloom")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "../cmd/gridloom")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("gridloom %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	w := watched{key: run("keygen"), keyFile: filepath.Join(dir, "gridloom-key"), rootFile: filepath.Join(dir, "root-key")}
	var mesh struct {
		Nodes []struct{ GRPC, HTTP string }
	}
	line := start(t, `"nodes"`, false, nil, program, "dev", "--port", "0", "--json", "--key", w.key, "--data", filepath.Join(dir, "mesh")).line
	if err := json.Unmarshal([]byte(line), &mesh); err != nil {
		t.Fatal(err)
	}
	var alone struct{ HTTP, CA string }
	line = start(t, `"http"`, false, []string{"GRIDLOOM_KEY=" + w.key}, program, "serve", "--json", "--tls", "auto", "--name", "alone",
		"--data", filepath.Join(dir, "alone"), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0").line
	if err := json.Unmarshal([]byte(line), &alone); err != nil {
		t.Fatal(err)
	}
	w.alone, w.ca = alone.HTTP, alone.CA
	if err := os.WriteFile(w.rootFile, []byte(w.key), 0o600); err != nil {
		t.Fatal(err)
	}
	// As prometheus.yml says.
	at := []string{"--endpoint", mesh.Nodes[0].GRPC, "--key", w.key}
	run(append([]string{"iam", "user", "add", "prometheus", "--grant", "metrics"}, at...)...)
	run(append([]string{"iam", "key", "add", "prometheus", "--out", w.keyFile}, at...)...)

	payload := strings.Repeat("gridloom ", 20_000)
	for i, n := range mesh.Nodes {
		w.nodes = append(w.nodes, n.HTTP)
		for _, step := range []struct {
			method, path, body string
			status             int
		}{
			{"PUT", fmt.Sprintf("/data/demo/%d", i), payload, 201},
			{"GET", "/data/demo/0", "", 200},
			{"GET", "/data/demo/nothing", "", 404},
		} {
			if status, text := fetch(t, client, step.method, n.HTTP+step.path, w.key, step.body); status != step.status {
				t.Fatalf("%s %s: %d %.300s", step.method, step.path, status, text)
			}
		}
	}
	return w
}

// configure writes prometheus.yml as it is, but for the places and the pace,
// and with a second job for the node that has TLS.
func configure(t *testing.T, w watched, dir string) string {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	rules, err := filepath.Abs("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	files := config["rule_files"].([]any)
	for i := range files {
		files[i] = filepath.Join(rules, files[i].(string))
	}
	scrape := config["scrape_configs"].([]any)[0].(map[string]any)
	place := func(job, credentials string, urls ...string) map[string]any {
		c := maps.Clone(scrape)
		var targets []string
		for _, u := range urls {
			parsed, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			targets = append(targets, parsed.Host)
			c["scheme"] = parsed.Scheme
		}
		c["job_name"] = job
		c["authorization"] = map[string]any{"credentials_file": credentials}
		c["tls_config"] = map[string]any{"ca_file": w.ca}
		c["static_configs"] = []any{map[string]any{"targets": targets}}
		return c
	}
	config["scrape_configs"] = []any{place("gridloom", w.keyFile, w.nodes...), place("alone", w.rootFile, w.alone)}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPrometheus: a Prometheus scrapes a mesh at work by the configuration, and
// has every metric that the rules and the dashboards ask for; it takes each of
// their expressions.
func TestPrometheus(t *testing.T) {
	dir := t.TempDir()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	w := watch(t, client, dir)
	for _, path := range []string{"/metrics", "/v2/metrics/resource", "/v3/metrics", "/v3/metrics/grid"} {
		status, text := fetch(t, client, "GET", w.nodes[1]+path, w.key, "")
		if status != http.StatusOK {
			t.Fatalf("%s: %d %.300s", path, status, text)
		}
		checkText(t, path, text)
	}
	config := configure(t, w, dir)
	if out, err := promtool(t, "", "check", "config", config); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line := start(t, `msg="Listening on"`, true, nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address=127.0.0.1:0").line
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(line)
	if address == nil {
		t.Fatalf("no address in %s", line)
	}
	api := "http://" + address[1] + "/api/v1/"

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := ready(ctx, func(method, _, body string) (int, string, error) {
		status, text := fetch(t, client, method, "http://"+address[1]+"/-/ready", "", body)
		return status, text, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for wanted := wantedNames(t); ; {
		missing := maps.Clone(wanted)
		for _, name := range ask[[]string](t, client, api+"label/__name__/values") {
			delete(missing, name)
		}
		if len(missing) == 0 {
			break
		}
		select {
		case <-tick.C:
			fetch(t, client, "GET", w.nodes[0]+"/data/demo/1", w.key, "") // so that there are rates
		case <-ctx.Done():
			for _, name := range slices.Sorted(maps.Keys(missing)) {
				t.Errorf("Prometheus has no %s, which %s asks for", name, missing[name])
			}
			t.FailNow()
		}
	}
	up := ask[answer](t, client, api+"query?query="+url.QueryEscape(`sum by (job) (up)`))
	if got := fmt.Sprint(up.values()); got != "map[alone:1 gridloom:3]" {
		t.Errorf("up are %s", got)
	}
	vars := strings.NewReplacer("$__rate_interval", "1m", "$node", "node1", "$peer", ".*", "$api", ".*", "$proto", ".*")
	for where, expr := range expressions(t) {
		ask[answer](t, client, api+"query?query="+url.QueryEscape(vars.Replace(expr)), where)
	}
}

// checkText has promtool check a scrape. It doesn't like an official name of
// OpenTelemetry's, go_goroutine_count.
func checkText(t *testing.T, path, text string) {
	t.Helper()
	out, err := promtool(t, text, "check", "metrics")
	allowed := 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "go_goroutine_count ") {
			allowed++
		} else {
			t.Errorf("promtool check metrics, %s: %s", path, line)
		}
	}
	if err != nil && allowed == 0 {
		t.Errorf("promtool check metrics, %s: %v", path, err)
	}
}

// wantedNames are the metrics that rules and dashboards ask for, with the place,
// but for those of which docs/metrics.md says that they depend on the machine.
func wantedNames(t *testing.T) map[string]string {
	t.Helper()
	documented := documentedMetrics(t)
	all := map[string]string{}
	for where, expr := range expressions(t) {
		for _, name := range metricNames(expr) {
			m := documented[base(name, documented)]
			if m.when == "the drive's block device is known" {
				continue
			}
			all[name] = where
		}
	}
	if len(all) < 80 {
		t.Fatalf("%d names are asked for: the expressions were not read", len(all))
	}
	return all
}

// answer is Prometheus' to a query.
type answer struct {
	Result []struct {
		Metric map[string]string
		Value  [2]any
	}
}

func (a answer) values() map[string]string {
	all := map[string]string{}
	for _, r := range a.Result {
		all[r.Metric["job"]] = fmt.Sprint(r.Value[1])
	}
	return all
}

// ask asks Prometheus' API.
func ask[T any](t *testing.T, client *http.Client, address string, where ...string) T {
	t.Helper()
	var reply struct {
		Status, Error string
		Data          T
	}
	_, text := fetch(t, client, "GET", address, "", "")
	if err := json.Unmarshal([]byte(text), &reply); err != nil {
		var scalar *json.UnmarshalTypeError // an answer that isn't a vector
		if reply.Status != "success" || !strings.Contains(err.Error(), "cannot unmarshal") {
			t.Fatalf("%s: %v (%v)", address, err, scalar)
		}
	}
	if reply.Status != "success" {
		t.Errorf("%v %s: %s", where, address, reply.Error)
	}
	return reply.Data
}
