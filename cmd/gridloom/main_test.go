package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain lets the test binary stand in for the program, for the scripts and
// for tests of whole processes: called gridloom it is gridloom.
func TestMain(m *testing.M) {
	// A process with the race detector in it sleeps a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	testscript.Main(leakChecked{m}, map[string]func(){"gridloom": main})
}

// leakChecked fails a run of tests that leaves goroutines.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// result is what a run of the program left.
type result struct {
	code        int
	out, errOut string
}

// try runs a command line to its end, with GRIDLOOM_ variables as they are
// given, and no others.
func try(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &errOut, env)
	return result{code, out.String(), errOut.String()}
}

// wantUsage checks that a run was refused with a message that holds all of
// these, and with nothing on standard output.
func wantUsage(t *testing.T, r result, parts ...string) {
	t.Helper()
	if r.code != exitUsage || r.out != "" {
		t.Errorf("exit code %d, output %q; want %d and none\n%s", r.code, r.out, exitUsage, r.errOut)
	}
	for _, part := range parts {
		if !strings.Contains(r.errOut, part) {
			t.Errorf("the error has no %q:\n%s", part, r.errOut)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	key := []string{"GRIDLOOM_KEY=" + testKey}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"nosuch", []string{`"nosuch"`}},
		{"completion nosuch", []string{`"nosuch"`}},
		{"put a", []string{"gridloom put: got 1 arguments; want: gridloom put SOURCE..."}},
		{"put --nosuch a b", []string{"gridloom put: --nosuch: no such flag"}},
		{"ls --endpiont x", []string{"--endpiont: no such flag; did you mean --endpoint?"}},
		{"ls --timeout soon", []string{`--timeout: "soon" is not a duration like 30s`}},
		{"ls --timeout=-1s", []string{"--timeout: -1s is negative"}},
		{"ls --endpoint nowhere", []string{`--endpoint: "nowhere" is not HOST:PORT`}},
		{"ls /key", []string{`"/key" has no bucket`}},
		{"get bucket", []string{`"bucket" names no object; want BUCKET/KEY`}},
		{"get bucket/folder/", []string{`"bucket/folder/" names no object`}},
		{"get -r bucket -", []string{"-r needs a folder"}},
		{"get -r bucket --range 0-1", []string{"-r fetches whole objects"}},
		{"get b/k - --range 5-2", []string{`--range: "5-2"`}},
		{"get -r bucket --parallel 0", []string{"--parallel: 0 is not between 1 and 100"}},
		{"mb a b/c", []string{`"b/c" is more than a bucket`}},
		{"put - bucket/", []string{"standard input has no name"}},
		{"put - x bucket/", []string{"standard input has no name"}},
		{"put a b bucket/key", []string{"bucket/key is one object, and there are 2 sources"}},
		{"put . bucket", []string{". is a folder; -r stores it"}},
		{"put - b/k --meta novalue", []string{`--meta: "novalue" is not NAME=VALUE`}},
		{"put - b/k --meta a=1 --meta a=2", []string{"--meta: a is given twice"}},
		{"put - b/k --checksum sha1=00", []string{`--checksum: "sha1=00" is not ALGORITHM=HEX with one of sha256, `}},
		{"put - b/k --checksum md5=xy", []string{`--checksum: "md5=xy" has no hex digits after the algorithm`}},
		{"put - b/k --if-match=", []string{"--if-match"}},
		{"rm -r b --if-match x", []string{"--if-match is for one object"}},
		{"mv a/b", []string{"gridloom mv: got 1 arguments; want: gridloom mv BUCKET/KEY BUCKET[/KEY]"}},
		{"mv a/ b/k", []string{`"a/" names no object; want BUCKET/KEY`}},
		{"mv a/k /k", []string{`"/k" has no bucket`}},
		{"mv a/k b --if-match=", []string{"--if-match"}},
		{"mv a/k b/k --recursive", []string{"--recursive: no such flag"}},
		{"ls --plaintext --ca x", []string{"--plaintext: contradicts --ca"}},
		{"ls --ca nosuch.pem", []string{"--ca: ", "nosuch.pem"}},
		{"ls --cert x --ca main_test.go", []string{"--ca: main_test.go holds no certificate"}},
		{"ls --cert x", []string{"--cert and --cert-key are given together"}},
		{"ls --stale soon", []string{`gridloom ls: --stale: "soon" is not a duration like 5s`}},
		{"ls --stale 5", []string{`--stale: "5" is not a duration like 5s`}},
		{"get b/k --stale=-1s", []string{`--stale: "-1s" is not between 0s and 1h`}},
		{"stat b --stale 3601s", []string{`--stale: "3601s" is not between 0s and 1h`}},
		{"put a b --stale 5s", []string{"--stale: no such flag"}},
		{"cluster nosuch", []string{"gridloom cluster: got 1 arguments"}},
		{"cluster status now", []string{"gridloom cluster status: got 1 arguments"}},
		{"node nosuch", []string{`gridloom node: "nosuch" is none of its commands`}},
		{"node join d", []string{"gridloom node join: got 1 arguments; want: gridloom node join NAME URL"}},
		{"node leave", []string{"gridloom node leave: got 0 arguments"}},
		{"node drain c --forced", []string{"--forced: no such flag"}},
		{"node drain c --undo --wait", []string{"--undo and --wait", "nothing to wait for"}},
		{"drive nothing", []string{`"nothing" is none of its commands`}},
		{"drive drain", []string{"got 0 arguments"}},
		{"drive drain c:/d --undo --wait", []string{"--undo and --wait"}},
		{"drive replace a b", []string{"got 2 arguments"}},
		{"drive replace a --undo", []string{"--undo: no such flag"}},
		{"pool ls x", []string{"got 1 arguments"}},
		{"pool drain --wait", []string{"got 0 arguments"}},
		{"pool rebalance --stop --wait", []string{"--stop and --wait"}},
		{"heal status x", []string{"got 1 arguments"}},
		{"heal start --verify=often", []string{`--verify: "often" is neither true nor false`}},
		{"bucket quota photos", []string{"no limit is given", "--objects", "--size"}},
		{"bucket quota photos --objects 0", []string{`--objects: "0" is neither a number from 1 on nor "none"`}},
		{"bucket quota photos --objects -5", []string{"--objects"}},
		{"bucket quota photos --size 10GB", []string{`--size: "10GB" is not a size`}},
		{"bucket quota photos --size 0", []string{`"none" is no limit`}},
		{"bucket quota photos/a --size 1", []string{"photos/a"}},
		{"bucket usage photos/a", []string{`"photos/a" is more than a bucket`}},
		{"serve --key x", []string{"--key: no such flag"}},
		{"serve extra", []string{"got 1 arguments"}},
		{"dev --nodes 0", []string{`--nodes: "0" is not between 1 and 32`}},
		{"dev --nodes many", []string{`--nodes: "many" is not a number`}},
		{"dev --port 65530", []string{"--port: 65530 leaves no ports for 3 nodes: the last would be 65552"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			wantUsage(t, try(t, key, "", strings.Fields(c.args)...), append(c.want, "--help shows how to use it.")...)
		})
	}
}

// A key never shows up in a message, wherever it came from.
func TestKeyErrors(t *testing.T) {
	broken := testKey[:len(testKey)-2] + "xx"
	file := t.TempDir() + "/key"
	writeFile(t, file, "GRIDLOOM_KEY="+broken+"\n")
	writeFile(t, file+".empty", "# nothing\n")
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"none", nil, nil, "no key: give --key-file, or set GRIDLOOM_KEY"},
		{"flag", nil, []string{"--key", broken}, "--key: "},
		{"variable", []string{"GRIDLOOM_KEY=" + broken}, nil, "--key (from GRIDLOOM_KEY): "},
		{"file", nil, []string{"--key-file", file}, "--key-file: "},
		{"file by variable", []string{"GRIDLOOM_KEY_FILE=" + file}, nil, "--key-file (from GRIDLOOM_KEY_FILE): "},
		{"no file", nil, []string{"--key-file", file + ".none"}, "--key-file: open " + file + ".none"},
		{"empty file", nil, []string{"--key-file", file + ".empty"}, "--key-file: " + file + ".empty is empty"},
		{"both", nil, []string{"--key", testKey, "--key-file", file}, "--key: given together with --key-file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := try(t, c.env, "", append([]string{"ls"}, c.args...)...)
			wantUsage(t, r, "gridloom ls: "+c.want)
			if secret := strings.Split(testKey, "_")[2]; strings.Contains(r.errOut, secret) {
				t.Errorf("the secret is in the message:\n%s", r.errOut)
			}
		})
	}
}

func TestErrorsAsJSON(t *testing.T) {
	r := try(t, nil, "", "put", "--json", "--nosuch")
	want := `{"error":{"command":"put","reason":"usage","message":"--nosuch: no such flag"}}` + "\n"
	if r.errOut != want || r.code != exitUsage {
		t.Errorf("exit code %d\n got %swant %s", r.code, r.errOut, want)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "help"} {
		if r := try(t, nil, "", strings.Fields(args)...); r.code != exitDone || !strings.Contains(r.out, "Exit codes: 0 done") {
			t.Errorf("%q: exit code %d\n%s", args, r.code, r.out)
		}
	}
	for _, cmd := range allCommands((&app{}).rootCommand()) {
		name := name(cmd)
		r := try(t, nil, "", append(strings.Fields(name), "--help")...)
		if r.code != exitDone || !strings.Contains(r.out, "Usage:\n  gridloom "+name) {
			t.Errorf("%s --help: exit code %d\n%s", name, r.code, r.out)
		}
		if name != "version" && !strings.Contains(r.out, "Examples:\n  gridloom "+name) && name != "keygen" {
			t.Errorf("%s --help has no examples", name)
		}
	}
	if r := try(t, nil, "", "completion", "--help"); r.code != exitDone {
		t.Errorf("completion --help: exit code %d\n%s", r.code, r.out)
	}
}

func TestKeygen(t *testing.T) {
	key := strings.TrimSpace(try(t, nil, "", "keygen").out)
	if r := try(t, []string{"GRIDLOOM_KEY=" + key}, "", "ls", "--endpoint", "127.0.0.1:1"); r.code != exitFailed || !strings.Contains(r.errOut, "no connection to the node at 127.0.0.1:1") {
		t.Errorf("a made key isn't taken: exit code %d: %s", r.code, r.errOut)
	}
	if again := strings.TrimSpace(try(t, nil, "", "keygen").out); again == key {
		t.Error("two keys are the same")
	}
	secret := try(t, nil, "", "keygen", "--mesh-secret", "--json").out
	if !strings.HasPrefix(secret, `{"mesh_secret":"`) {
		t.Errorf("mesh secret: %s", secret)
	}
}
