//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/internal/bench"
)

// TestMain is also what a server begins with, and what -congestion starts: the program
// that it is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == bench.ServeArgument || len(os.Args) > 2 && os.Args[1] == apartArgument {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// TestLoad has the clients of the GET rows ask a node.
func TestLoad(t *testing.T) {
	const size = 100_000
	p := &plan{dir: t.TempDir(), threads: 2, files: 3, warm: 10 * time.Millisecond, time: 100 * time.Millisecond}
	l, err := p.newLab("get")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	node, err := l.single(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.fill(t.Context(), node, size); err != nil {
		t.Fatal(err)
	}
	r := row{id: "get", size: size, conns: 5}
	g := getter{lab: l, row: &r, name: "gridloom", addr: node.configs[0].HTTP, requests: p.requests(size, "", node.key), servers: node}
	s, err := g.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []metric{rate, through, peakMiB} {
		if s[m] <= 0 || math.IsInf(s[m], 0) {
			t.Errorf("%s: %v", m, s[m])
		}
	}
	if n, err := node.sent(t.Context(), 0); err != nil || n["sendfile"]+n["copy"]+n["inline"]+n["grid"] < size {
		t.Errorf("/metrics says %v, %v", n, err)
	}
	l.kept["nginx"] = (*nginx)(nil) // as where it isn't installed
	if all, err := l.besideNginx(t.Context(), g); err != nil || len(all) != 1 {
		t.Errorf("without nginx: %v, %v", all, err)
	}
	g.requests = p.requests(size, "", "gl_none")
	if s, err := g.run(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong key: %v, %v", s, err)
	}
	g.requests, r.size = p.requests(size, "", node.key), size+1
	if s, err := g.run(t.Context()); err == nil {
		t.Errorf("with a wrong size: %v", s)
	}
	if err := node.check(t.Context(), 0, p.set(size)[1], size-1); err == nil {
		t.Error("other bytes passed")
	}
}

// TestLoadCounts: the load asks for one after the other, takes whatever portions
// an answer comes in, and counts what it gets.
func TestLoadCounts(t *testing.T) {
	const size = 3 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	const asked = "GET /1\r\n\r\n"
	served := make(chan int, 1)
	go func() {
		answers := 0
		defer func() { served <- answers }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		body := make([]byte, size)
		for request := make([]byte, len(asked)); ; answers++ {
			if _, err := io.ReadFull(c, request); err != nil || string(request) != asked {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-")
			_, _ = fmt.Fprintf(c, "Length: %d\r\n\r\n", size)
			if _, err := c.Write(body); err != nil {
				return
			}
		}
	}()
	w, err := (&load{addr: l.Addr().String(), requests: [][]byte{[]byte(asked)}, size: size, conns: 1, threads: 1}).run(
		t.Context(), time.Millisecond, 100*time.Millisecond, func() error { return nil }, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if n := <-served; w.bytes < 1 || w.bytes > int64(n+1)*size {
		t.Errorf("%+v, and %d answers were given", w, n)
	}
}

func TestParseHead(t *testing.T) {
	const whole = "HTTP/1.1 200 OK\r\nEtag: \"content-length: 3\"\r\nX-Content-Length: 4\r\ncontent-LENGTH:  4096 \r\nDate: x\r\n\r\n"
	for i := range len(whole) {
		if n, _, err := parseHead([]byte(whole[:i])); n != 0 || err != nil {
			t.Fatalf("%q: %d, %v", whole[:i], n, err)
		}
	}
	if n, length, err := parseHead([]byte(whole + "body")); n != len(whole) || length != 4096 || err != nil {
		t.Errorf("%d, %d, %v", n, length, err)
	}
	for _, bad := range []string{
		"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", strings.Repeat("x", headMaxBytes),
	} {
		if n, length, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%.60q: %d, %d", bad, n, length)
		}
	}
}

func TestNginxConfiguration(t *testing.T) {
	n := nginx{dir: "/d", root: "/d/root", addr: "127.0.0.1:1"}
	b, err := n.configuration()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"worker_processes auto;", "open_file_cache max=", "sendfile on;", "tcp_nopush on;", "access_log off;", "listen 127.0.0.1:1;", "root /d/root;"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%q is missing:\n%s", want, b)
		}
	}
}

func TestContent(t *testing.T) {
	a, err := io.ReadAll(newContent("a", 100))
	if err != nil || len(a) != 100 {
		t.Fatal(len(a), err)
	}
	for name, same := range map[string]bool{"a": true, "b": false} {
		c := comparison{name, newContent(name, 100), make([]byte, 7)}
		if _, err := c.Write(a); (err == nil) != same {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := comparison{"a", newContent("a", 100), make([]byte, 64)}
	if _, err := c.Write(a[:99]); err != nil || c.end() == nil {
		t.Error("a part passed for the whole", err)
	}
	for size, want := range map[int64]string{4096: "4KiB", gib: "1GiB", 1000: "1000B", mib + 1: "1048577B"} {
		if got := sizeName(size); got != want {
			t.Errorf("%d: %s", size, got)
		}
	}
	if n := len((&plan{files: 64}).set(64 * mib)); n != 16 {
		t.Errorf("%d files of 64 MiB", n)
	}
}

func TestParseSent(t *testing.T) {
	before := sent{"splice": 5, "copy": 1}
	now, err := parseSent(sentPrefix + "job=\"x\",path=\"splice\"} 1.5e+06\n# HELP\n" + sentPrefix + "path=\"copy\"} 11\nother 1\n")
	if err != nil {
		t.Fatal(err)
	}
	if all, copied := now.since(before); all != 1.5e6-5+10 || copied != 10 {
		t.Errorf("%v: %v, %v", now, all, copied)
	}
	if _, err := parseSent(sentPrefix + "path=\"copy\"} x\n"); err == nil {
		t.Error("no number")
	}
}

func TestResults(t *testing.T) {
	g := goal{"≥ 1.0", rate, 1, 0, 0}
	r := newResults(&row{id: "a", base: "nginx", columns: []metric{rate}, goals: []goal{g}})
	r.systems = []string{"gridloom", "nginx"}
	for i, v := range []float64{1, 4, 3, 0} {
		var err error
		if v == 0 {
			err = errors.New("broken")
		}
		r.Add("gridloom", sample{rate: v * float64(i+1)}, err)
		r.Add("nginx", sample{rate: 2 * float64(i+1)}, nil)
	}
	if v, ok := r.Median("gridloom", "nginx", rate); !ok || v != 1.5 {
		t.Errorf("ratio %v", v)
	}
	var out strings.Builder
	r.print(&out, nil)
	printGoals(&out, []*results{r})
	for _, want := range []string{"| gridloom ÷ nginx | 1.50 (0.50–2.00) |", "of 4 runs 1 failed, the last: broken", "| met |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	alone := results{Runs: bench.NewRuns[metric](), row: r.row, systems: []string{"gridloom"}}
	if notes := alone.notes(); len(notes) != 1 || !strings.Contains(notes[0], "install.sh nginx") {
		t.Errorf("without nginx: %q", notes)
	}
	g.least = 1.6
	if verdict := r.judge(&g)[4]; verdict != "**not met**" {
		t.Error(verdict)
	}
	g = goal{"< 8", rate, 0, 0, 8}
	if verdict := r.judge(&g)[4]; verdict != "**not met**" { // the median of 1, 8, 9
		t.Error(verdict)
	}
}

func TestPlan(t *testing.T) {
	for _, args := range [][]string{{"-rows", "("}, {"-rows", "none"}, {"-runs", "0"}, {"-time", "0s"}, {"more"}} {
		if p, err := parsePlan(args, io.Discard); err == nil {
			t.Errorf("%q: %+v", args, p)
		}
	}
	p, err := parsePlan([]string{"-rows", "get-4KiB-.*", "-profile", filepath.Join(t.TempDir(), "p")}, io.Discard)
	if err != nil || len(p.rows) != len(getConns) {
		t.Errorf("%+v, %v", p, err)
	}
}
