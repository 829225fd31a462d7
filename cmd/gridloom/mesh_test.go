package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gridloom/gridloom/node/iam"
)

// server is a gridloom serve or dev that runs in this process.
type server struct {
	first string // line of its output
	stop  func() result
}

// start runs a server and waits for its first line of output.
func start(t *testing.T, env []string, args ...string) server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var errOut bytes.Buffer
	done := make(chan result, 1)
	go func() {
		code := run(ctx, args, strings.NewReader(""), w, &errOut, env)
		w.Close()
		done <- result{code: code, errOut: errOut.String()}
	}()
	out := bufio.NewReader(r)
	first, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("gridloom %s ended: %+v", strings.Join(args, " "), <-done)
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		_, _ = io.Copy(io.Discard, out)
	}()
	var ended *result
	s := server{first: first, stop: func() result {
		if ended == nil {
			cancel()
			r := <-done
			<-rest
			ended = &r
		}
		return *ended
	}}
	t.Cleanup(func() {
		if r := s.stop(); r.code != exitDone {
			t.Errorf("gridloom %s: exit code %d: %s", strings.Join(args, " "), r.code, r.errOut)
		}
	})
	return s
}

// startDev starts a mesh on free ports.
func startDev(t *testing.T, args ...string) (banner, server) {
	t.Helper()
	s := start(t, nil, append([]string{"dev", "--json", "--port", "0"}, args...)...)
	var b banner
	if err := json.Unmarshal([]byte(s.first), &b); err != nil {
		t.Fatalf("%v: %s", err, s.first)
	}
	return b, s
}

func TestScripts(t *testing.T) {
	mesh, _ := startDev(t)
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("GRIDLOOM_ENDPOINT", mesh.Nodes[0].GRPC)
			e.Setenv("NODE2", mesh.Nodes[1].GRPC)
			e.Setenv("NODE3", mesh.Nodes[2].GRPC)
			e.Setenv("HTTP1", mesh.Nodes[0].HTTP)
			e.Setenv("HTTP2", mesh.Nodes[1].HTTP)
			e.Setenv("GRIDLOOM_KEY", mesh.Key)
			e.Setenv("WRONG_KEY", iam.Generate(iam.RootID).String())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    scriptExits,
			"etag":     scriptETag,
			"badnames": scriptBadNames,
			"private":  scriptPrivate,
			"keyid":    scriptKeyID,
			"follow":   scriptFollow,
			"alter":    scriptAlter,
			"sampled":  scriptSampled,
			"graded":   scriptGraded,
		},
	})
}

// scriptExits runs a command that must end with this exit code: exits 3 gridloom …
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("got %v, want exit code %d", err, want)
	}
}

// scriptETag sets $ETAG to an object's.
func scriptETag(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("gridloom", "stat", "--json", args[0]))
	var o jsonObject
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &o))
	ts.Setenv("ETAG", o.ETag)
}

// scriptBadNames makes files with names that can't be keys.
func scriptBadNames(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range []string{"not\xffutf8", "new\nline"} {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), []byte("odd"), 0o600))
	}
}
