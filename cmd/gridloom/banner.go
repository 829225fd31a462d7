package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// banner is what dev prints when the mesh is up, and its JSON form.
type banner struct {
	Nodes     []jsonServing `json:"nodes"`
	Metrics   string        `json:"metrics"` // URL; of all nodes, in Prometheus' text format
	Key       string        `json:"key"`
	Data      string        `json:"data"`
	Temporary bool          `json:"temporary"` // data goes when dev ends
	Bucket    string        `json:"bucket"`
	Commands  []string      `json:"commands"` // for a shell: put, get, curl

	took time.Duration
}

func (a *app) printBanner(b banner) error {
	second, third := b.Nodes[1%len(b.Nodes)], b.Nodes[2%len(b.Nodes)]
	program := programPath()
	b.Metrics = b.Nodes[0].HTTP + "/v2/metrics/resource"
	b.Commands = []string{
		fmt.Sprintf("echo 'hello, mesh' | %s put - %s/hello.txt --endpoint %s --key %s", program, b.Bucket, b.Nodes[0].GRPC, b.Key),
		fmt.Sprintf("%s get %s/hello.txt - --endpoint %s --key %s", program, b.Bucket, second.GRPC, b.Key),
		fmt.Sprintf("curl -r 0-4 -H 'Authorization: Bearer %s' %s/data/%s/hello.txt", b.Key, third.HTTP, b.Bucket),
	}
	return a.out.print(b, b.text)
}

func (b banner) text() string {
	var t strings.Builder
	nodes := fmt.Sprintf("%d nodes", len(b.Nodes))
	if len(b.Nodes) == 1 {
		nodes = "one node"
	}
	fmt.Fprintf(&t, "\nGridloom %s: a mesh of %s, up after %.1f s.\n\n", programVersion(), nodes, b.took.Seconds())
	w := tabwriter.NewWriter(&t, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "  NODE\tGRPC\tHTTP\tPEER")
	for _, n := range b.Nodes {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", n.Name, n.GRPC, n.HTTP, n.Peer)
	}
	w.Flush()
	fmt.Fprintf(&t, "\n  Metrics    %s (all nodes; /metrics for one)\n", b.Metrics)
	fmt.Fprintf(&t, "  Root key   %s\n", b.Key)
	if b.Temporary {
		fmt.Fprintf(&t, "  Data       %s, removed on Ctrl-C; --data DIR keeps it\n", b.Data)
	} else {
		fmt.Fprintf(&t, "  Data       %s, kept, with the key in %s\n", b.Data, credentialsFile(b.Data))
	}
	t.WriteString("\nPut through one node, get through another, and a range with curl:\n\n")
	for _, c := range b.Commands {
		fmt.Fprintf(&t, "  %s\n", c)
	}
	t.WriteString("\n")
	return t.String()
}

// programPath is how a shell, in this directory, runs this program again: by
// its bare name where that is found, as "go run" where the binary is one that
// the Go tool has made for this run, else by its path.
func programPath() string {
	exe, err := os.Executable()
	if err != nil {
		return "gridloom"
	}
	if found, err := exec.LookPath("gridloom"); err == nil && sameFile(found, exe) {
		return "gridloom"
	}
	const source = "./cmd/gridloom"
	if strings.Contains(filepath.ToSlash(exe), "/go-build") && there(filepath.Join("cmd", "gridloom", "main.go")) {
		return "go run " + source
	}
	return shellQuote(exe)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// shellQuote quotes a path where a shell would take it apart.
func shellQuote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@", r) || r > 127
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	if runtime.GOOS == "windows" {
		return `"` + path + `"`
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
