package main

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gridloom/gridloom/node/iam"
)

// scriptPrivate checks that a file is its owner's alone: private FILE.
func scriptPrivate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: private FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if mode := info.Mode(); runtime.GOOS != "windows" && mode != 0o600 {
		ts.Fatalf("%s has the mode %v", args[0], mode)
	}
}

// scriptKeyID puts the id of the key in a file into $KEYID: keyid FILE.
func scriptKeyID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keyid FILE")
	}
	c, err := iam.ParseCredential(ts.ReadFile(args[0]))
	ts.Check(err)
	ts.Setenv("KEYID", c.ID)
}

// scriptFollow makes a request by the link in a file, without a key, and keeps
// the answer's body in the file body, and its header in the file header: follow FILE METHOD STATUS [FILE [NAME=VALUE...]].
func scriptFollow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: follow FILE METHOD STATUS [FILE [NAME=VALUE...]]")
	}
	var body io.Reader
	if len(args) > 3 {
		body = strings.NewReader(ts.ReadFile(args[3]))
	}
	r, err := http.NewRequest(args[1], strings.TrimSpace(ts.ReadFile(args[0])), body)
	ts.Check(err)
	for _, h := range args[min(4, len(args)):] {
		name, value, _ := strings.Cut(h, "=")
		r.Header.Set(name, value)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Do(r)
	ts.Check(err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("body"), got, 0o644))
	var header strings.Builder
	ts.Check(resp.Header.Write(&header))
	ts.Check(os.WriteFile(ts.MkAbs("header"), []byte(header.String()), 0o644))
	if strconv.Itoa(resp.StatusCode) != args[2] {
		ts.Fatalf("%s: %s, want %s: %s", args[1], resp.Status, args[2], got)
	}
}

// scriptAlter copies a file with one text for another: alter FROM TO OLD NEW.
func scriptAlter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: alter FROM TO OLD NEW")
	}
	text := ts.ReadFile(args[0])
	altered := strings.Replace(text, args[2], args[3], 1)
	if altered == text {
		ts.Fatalf("%s has no %s", args[0], args[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(altered), 0o644))
}

func TestIAMUsage(t *testing.T) {
	key := []string{"GRIDLOOM_KEY=" + testKey}
	for args, want := range map[string]string{
		"iam nosuch":                                                `gridloom iam: "nosuch" is none of its commands`,
		"iam user nosuch":                                           `gridloom iam user: "nosuch" is none of its commands`,
		"iam key nosuch":                                            `gridloom iam key: "nosuch" is none of its commands`,
		"iam whoami now":                                            "gridloom iam whoami: got 1 arguments",
		"iam user add":                                              "gridloom iam user add: got 0 arguments; want: gridloom iam user add NAME",
		"iam user add a --grant read:b":                             `--grant: "read:b" is no grant like readwrite:photos/2026/: its role is none of readonly, readwrite, admin and metrics`,
		"iam user add a --grant readonly":                           `--grant: "readonly" is no grant like readwrite:photos/2026/: its bucket is empty`,
		"iam user add a --grant readonly:*/a":                       `its prefix needs a named bucket`,
		"iam user add a --grant metrics:b":                          `its bucket is given`,
		"iam user set a":                                            "gridloom iam user set: nothing is to be set; give --grant, ",
		"iam user set a --grant metrics --no-grants":                "--no-grants contradicts --grant",
		"iam user set a --disabled=maybe":                           `--disabled: "maybe" is neither true nor false`,
		"iam key add a --service":                                   "--service and --grant are given together or not at all",
		"iam key add a --grant metrics":                             "--service and --grant are given together or not at all",
		"iam key add a --expires soon":                              `--expires: "soon" is not a duration like 30d or 12h`,
		"iam key add a --expires 1.5d":                              `--expires: "1.5d" is not a duration like 30d or 12h`,
		"iam key add a --expires=-1d":                               `--expires: "-1d" is not between 1s and 36500d`,
		"iam key add a --expires 0s":                                `is not between 1s and 36500d`,
		"iam key add a --expires 999999d":                           `is not between 1s and 36500d`,
		"iam key add a --out /nosuch/dir/key":                       "--out: open /nosuch/dir/key",
		"iam key set k":                                             "gridloom iam key set: nothing is to be set; give --expires, ",
		"iam token --ttl 16m":                                       "--ttl: 16m0s is not between 1s and 15m0s",
		"iam token --ttl 0s":                                        "--ttl: 0s is not between 1s and 15m0s",
		"share b":                                                   `"b" names no object; want BUCKET/KEY`,
		"share b/k --digest abc":                                    `--digest: "abc" is not a SHA-256: 64 hex digits`,
		"share b/k --header a":                                      `--header: "a" is not NAME=VALUE`,
		"share b/k --response-header a":                             `--response-header: "a" is not NAME=VALUE`,
		"share abc/k --deployment d --response-header set-cookie=x": "the link's answer has a field that is none of cache-control, ",
		"share abc/k --deployment d --response-header expires=":     "the link's answer.response-expires is empty",
		"share b/k --url ftp://x":                                   `--url: "ftp://x" is not a base URL`,
		"share b/k --url http://a:b@x":                              `is not a base URL`,
		"share b/k --url http://x/y":                                `is not a base URL`,
		"share b/k --endpoint h:grpc":                               "--url: give it, as the port grpc says nothing of that of HTTP",
		"share b/k --endpoint h:65535":                              "--url: give it, as the port 65535",
		"share abc/k --deployment d --url http://x --expires never": "the link's expires is not ahead",
	} {
		t.Run(args, func(t *testing.T) {
			wantUsage(t, try(t, key, "", strings.Fields(args)...), want)
		})
	}
}

// A token goes where a key does, and is repeated no more than one.
func TestTokenAsKey(t *testing.T) {
	token := "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
	file := t.TempDir() + "/token"
	writeFile(t, file, token+"\n")
	for _, env := range [][]string{{"GRIDLOOM_KEY=" + token}, {"GRIDLOOM_KEY_FILE=" + file}} {
		s := newSettings(forClient)
		if err := s.load(env); err != nil {
			t.Fatal(err)
		}
		who, ok, err := s.readLogin()
		if err != nil || !ok || !who.key.IsZero() || who.bearer() != token {
			t.Errorf("%s: %v, %v", env, ok, err)
		}
	}
	for _, bad := range []string{"a.b", "a.b.c.d", "a.b.c d"} {
		r := try(t, []string{"GRIDLOOM_KEY=" + bad}, "", "ls")
		wantUsage(t, r, "--key (from GRIDLOOM_KEY): ")
		if strings.Contains(r.errOut, bad) {
			t.Errorf("what was given is in the message: %s", r.errOut)
		}
	}
}

func TestLifetime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * 24 * time.Hour, "12h": 12 * time.Hour, "1m30s": 90 * time.Second, "36500d": 36500 * 24 * time.Hour, "never": 0,
	} {
		l := lifetime(1)
		if err := l.Set(text); err != nil || time.Duration(l) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(l), err)
		}
	}
	var l lifetime
	if l.at(time.Now()) != nil {
		t.Error("never is a time")
	}
}

// TestChangesReachEveryNode: a key that one node has made is good at all, and
// refused by all when another has disabled it, within the five seconds that are
// promised.
func TestChangesReachEveryNode(t *testing.T) {
	mesh, _ := startDev(t)
	at := func(node int) []string {
		return []string{"GRIDLOOM_ENDPOINT=" + mesh.Nodes[node].GRPC, "GRIDLOOM_KEY=" + mesh.Key}
	}
	must := func(r result) string {
		t.Helper()
		if r.code != exitDone {
			t.Fatalf("%+v", r)
		}
		return strings.TrimSpace(r.out)
	}
	must(try(t, at(0), "", "iam", "user", "add", "ann", "--grant", "readonly:"+mesh.Bucket))
	key := must(try(t, at(0), "", "iam", "key", "add", "ann"))
	everywhere := func(want int) {
		t.Helper()
		changed := time.Now()
		for node := range mesh.Nodes {
			for {
				r := try(t, nil, "", "ls", mesh.Bucket, "--endpoint", mesh.Nodes[node].GRPC, "--key", key)
				if r.code == want {
					break
				}
				if time.Since(changed) > 5*time.Second {
					t.Fatalf("at node %d after 5 s: %+v", node+1, r)
				}
			}
		}
	}
	everywhere(exitDone)
	c, err := iam.ParseCredential(key)
	if err != nil {
		t.Fatal(err)
	}
	must(try(t, at(1), "", "iam", "key", "set", c.ID, "--disabled"))
	everywhere(exitFailed)
	must(try(t, at(2), "", "iam", "key", "set", c.ID, "--disabled=false"))
	everywhere(exitDone)
	must(try(t, at(2), "", "iam", "user", "rm", "ann"))
	everywhere(exitFailed)
}
