package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// while runs a command line again and again until another has ended, and gives
// what that has left.
func while(t *testing.T, env []string, until []string, again ...string) result {
	t.Helper()
	done := make(chan result, 1)
	go func() { done <- try(t, env, "", until...) }()
	for {
		select {
		case r := <-done:
			return r
		default:
			try(t, env, "", again...)
		}
	}
}

// TestTraceAndLogs watch a mesh from one node while there are calls at another.
func TestTraceAndLogs(t *testing.T) {
	mesh, _ := startDev(t, "--nodes", "2", "--drives", "1")
	env := []string{"GRIDLOOM_ENDPOINT=" + mesh.Nodes[0].GRPC, "GRIDLOOM_KEY=" + mesh.Key}
	stat := []string{"stat", "none/such", "--endpoint", mesh.Nodes[1].GRPC}

	r := while(t, env, []string{"trace", "--json", "--node", "node2", "--api", "StatObject", "--api", "GetBucket", "--status", "NotFound", "--count", "2"}, stat...)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.code != exitDone || len(lines) != 2 {
		t.Fatalf("%+v", r)
	}
	var call jsonCall
	if err := json.Unmarshal([]byte(lines[1]), &call); err != nil {
		t.Fatal(err)
	}
	if call.Type != "call" || call.Node != "node2" || call.Status != "NotFound" || call.Class != "4xx" || call.Error != "bucket_not_found" || call.Bucket != "none" || call.User != "root" || call.TTFB <= 0 || call.Duration < call.TTFB {
		t.Errorf("call %+v", call)
	}
	r = while(t, env, []string{"trace", "--status", "error", "--count", "1"}, stat...)
	if lines := strings.Split(r.out, "\n"); r.code != exitDone || len(lines) != 3 || !strings.HasPrefix(lines[0], "TIME") || !strings.Contains(lines[1], "bucket_not_found") || !strings.Contains(lines[1], "by root") {
		t.Errorf("%+v", r)
	}

	r = try(t, env, "", "logs", "--node", "node2")
	if r.code != exitDone || !strings.Contains(r.out, "node2     INFO   ready deployment=") || strings.Contains(r.out, "node1 ") {
		t.Errorf("%+v", r)
	}
	r = try(t, env, "", "logs", "--json", "--tail", "1")
	if r.code != exitDone || strings.Count(r.out, "\n") != 2 || strings.Count(r.out, `{"type":"log","node":"node`) != 2 {
		t.Errorf("%+v", r)
	}

	// To be interrupted is how the following ends.
	ctx, interrupt := context.WithCancel(t.Context())
	read, write := io.Pipe()
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"logs", "-f", "--node", "local", "--tail", "1"}, strings.NewReader(""), write, &errOut, env)
		_ = write.Close()
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || !strings.Contains(line, "node1") {
		t.Errorf("followed is %q, %v", line, err)
	}
	interrupt()
	_, _ = io.Copy(io.Discard, read)
	if c := <-code; c != exitDone || errOut.Len() > 0 {
		t.Errorf("interrupted: exit code %d: %s", c, errOut.String())
	}
}
