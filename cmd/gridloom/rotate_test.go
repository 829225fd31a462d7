package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

// A key file that changes changes who gets in, without a restart.
func TestServeRereadsKeys(t *testing.T) {
	dir := t.TempDir()
	old, next, file := iam.Generate(iam.RootID).String(), iam.Generate(iam.RootID).String(), filepath.Join(dir, "root.key")
	writeFile(t, file, old+"\n")
	node, s := startServe(t, nil, "--data", filepath.Join(dir, "data"), "--key-file", file)
	in := func(key string) bool {
		return try(t, []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY=" + key}, "", "ls").code == exitDone
	}
	if !in(old) || in(next) {
		t.Fatal("it isn't the key in the file that gets in")
	}
	for _, step := range []struct {
		text      string
		old, next bool
	}{
		{old + "\n" + next + "\n", true, true}, {next + "\n" + old + "\n", true, true}, {"GRIDLOOM_KEY=" + next + "\n", false, true},
	} {
		writeFile(t, file, step.text)
		began := time.Now()
		for in(old) != step.old || in(next) != step.next {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("not taken over: %v", s.stop())
			}
		}
		// A client takes the first of several.
		if r := try(t, []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY_FILE=" + file}, "", "ls"); r.code != exitDone {
			t.Errorf("with the file itself: %+v", r)
		}
	}
	if log := s.stop().errOut; strings.Contains(log, next) || strings.Contains(log, old) || !strings.Contains(log, "took over") {
		t.Errorf("the log has a key, or says nothing:\n%s", log)
	}
}

// What is no good is said once, with the file's name, and changes nothing.
func TestRereadKeepsWhatFits(t *testing.T) {
	first, second := iam.NewMeshSecret(), iam.NewMeshSecret()
	for what, spoil := range map[string]func(t *testing.T, file string){
		"nonsense":      func(t *testing.T, file string) { writeFile(t, file, "nonsense") },
		"nothing":       func(t *testing.T, file string) { writeFile(t, file, "") },
		"half a secret": func(t *testing.T, file string) { writeFile(t, file, second[:20]) },
		"a weak one":    func(t *testing.T, file string) { writeFile(t, file, strings.Repeat("A", 43)+"=") },
		"one good, one not": func(t *testing.T, file string) {
			writeFile(t, file, second+"\n"+second[:20])
		},
		"no file": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"one for all to read": func(t *testing.T, file string) {
			writeFile(t, file, second)
			if err := os.Chmod(file, 0o644); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			if what == "one for all to read" && runtime.GOOS == "windows" {
				return // where modes say nothing
			}
			file := filepath.Join(t.TempDir(), "mesh.secret")
			writeFile(t, file, first)
			l := &secretList[[]byte]{what: "secret", file: file, variable: secretVariable, read: certs.ReadPrivate, parse: iam.ParseMeshSecret}
			if err := l.begin(nil); err != nil {
				t.Fatal(err)
			}
			before := l.get()
			spoil(t, file)
			var out bytes.Buffer
			log, now := slog.New(slog.NewTextHandler(&out, nil)), time.Now()
			for range 10 {
				l.check(now, log)
				now = now.Add(time.Second)
			}
			if got := l.get(); len(got) != 1 || !bytes.Equal(got[0], before[0]) {
				t.Error("it was taken over")
			}
			if text := out.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=ERROR") || !strings.Contains(text, file) || strings.Contains(text, second[:20]) {
				t.Errorf("logged:\n%s", text)
			}
			_ = os.Remove(file) // its mode, too
			writeFile(t, file, second+"\n"+first)
			l.check(now, log)
			if got := l.get(); len(got) != 2 || bytes.Equal(got[0], before[0]) || strings.Count(out.String(), "\n") != 2 {
				t.Errorf("what is fit again was not taken over:\n%s", out.String())
			}
		})
	}
}

// A server doesn't start with secrets that others can read, that are weak, or
// that are missing, and says which file it is and why.
func TestServeRefusesSecrets(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir, "server")
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		writeFile(t, name, text)
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, secret := file("good.key", testKey, 0o600), file("good.secret", iam.NewMeshSecret(), 0o400)
	serverKey, err := os.ReadFile(filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	exposedKey, exposedSecret := file("exposed.key", testKey, 0o644), file("exposed.secret", iam.NewMeshSecret(), 0o604)
	exposedCert := file("exposed.pem", string(serverKey), 0o666)
	weakSecret, user := file("weak.secret", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", 0o600), file("user.key", iam.Generate("alice").String(), 0o600)
	patterned := file("pattern.secret", "3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8=", 0o600)
	kept := filepath.Join(dir, "kept")
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := generateCredentials().keep(kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(credentialsFile(kept), 0o640|0o004); err != nil {
		t.Fatal(err)
	}
	mesh := []string{"--name", "a", "--peers", "a=http://127.0.0.1:7402,b=http://127.0.0.1:7412"}
	alone := filepath.Join(dir, "data")
	for what, c := range map[string]struct {
		args  []string
		says  []string
		modes bool // it is about a file's mode
	}{
		"an exposed key":             {[]string{"--data", alone, "--key-file", exposedKey}, []string{"--key-file: ", exposedKey, "0644"}, true},
		"an exposed mesh secret":     {[]string{"--data", alone, "--key-file", good, "--mesh-secret-file", exposedSecret}, []string{"--mesh-secret-file: ", exposedSecret, "0604"}, true},
		"an exposed private key":     {[]string{"--data", alone, "--http-cert", filepath.Join(dir, "server.pem"), "--http-cert-key", exposedCert}, []string{"--http-cert-key: ", exposedCert, "0666"}, true},
		"exposed credentials":        {[]string{"--data", kept}, []string{"--data: ", credentialsFile(kept), "0644"}, true},
		"a mesh secret that counts":  {[]string{"--data", alone, "--key-file", good, "--mesh-secret-file", weakSecret}, []string{"--mesh-secret-file: ", weakSecret, "isn't random"}, false},
		"a mesh secret of a pattern": {[]string{"--data", alone, "--key-file", good, "--mesh-secret-file", patterned}, []string{"--mesh-secret-file: ", patterned, "isn't random"}, false},
		"a user's key":               {[]string{"--data", alone, "--key-file", user}, []string{"--key-file: ", user, "not a root key"}, false},
		"a mesh without a key":       {slices.Concat(mesh, []string{"--data", alone, "--mesh-secret-file", secret}), []string{"a mesh needs one root key"}, false},
		"a mesh without a secret":    {slices.Concat(mesh, []string{"--data", alone, "--key-file", good}), []string{"a mesh needs one secret"}, false},
		"TLS off and a certificate":  {[]string{"--data", alone, "--tls", "off", "--grpc-cert", "x"}, []string{"--tls: ", "--grpc-cert"}, false},
		"a name for no certificate":  {[]string{"--data", alone, "--tls-name", "x"}, []string{"--tls-name: "}, false},
		"peers' authority with auto": {slices.Concat(mesh, []string{"--data", alone, "--key-file", good, "--mesh-secret-file", secret, "--tls", "auto", "--peer-ca", "x"}), []string{"--peer-ca: "}, false},
	} {
		t.Run(what, func(t *testing.T) {
			if c.modes && runtime.GOOS == "windows" {
				return // where modes say nothing
			}
			r := try(t, nil, "", slices.Concat([]string{"serve"}, free, c.args)...)
			if r.code == exitDone {
				t.Error("it has started")
			}
			for _, part := range c.says {
				if !strings.Contains(r.errOut, part) {
					t.Errorf("the error has no %q: %s", part, r.errOut)
				}
			}
			if there(alone) {
				t.Error("it made the data directory")
			}
		})
	}
}

// With --tls auto a client needs the authority, which it gets from the data
// directory, or from the mesh secret without asking anybody.
func TestServeTLSAuto(t *testing.T) {
	dir := t.TempDir()
	data, secret := filepath.Join(dir, "data"), filepath.Join(dir, "mesh.secret")
	writeFile(t, secret, iam.NewMeshSecret())
	node, s := startServe(t, nil, "--data", data, "--mesh-secret-file", secret, "--tls", "auto", "--tls-name", "gridloom.example")
	if !strings.HasPrefix(node.HTTP, "https://") || !strings.HasPrefix(node.Peer, "https://") || node.CA == "" {
		t.Errorf("serve printed %s", s.first)
	}
	endpoint := "GRIDLOOM_ENDPOINT=" + node.GRPC
	key := "GRIDLOOM_KEY_FILE=" + credentialsFile(data)
	if r := try(t, []string{endpoint, key}, "", "ls"); r.code != exitFailed || !strings.Contains(r.errOut, "--ca") {
		t.Errorf("plaintext: %+v", r)
	}
	if r := try(t, []string{endpoint}, "", "ls", "--data", data); r.code != exitDone {
		t.Errorf("with the data directory: %+v", r)
	}
	fromSecret := try(t, nil, "", "certs", "ca", "--mesh-secret-file", secret)
	fromData := try(t, nil, "", "certs", "ca", "--data", data)
	if fromSecret.code != exitDone || fromSecret.out != fromData.out || !strings.HasPrefix(fromData.out, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("the authority by the secret %+v, by the data directory %+v", fromSecret, fromData)
	}
	ca := filepath.Join(dir, "ca.pem")
	writeFile(t, ca, fromSecret.out)
	r := try(t, []string{endpoint, key, "GRIDLOOM_CA=" + ca}, "", "certs")
	if r.code != exitDone || strings.Count(r.out, "29 days") != 3 || !strings.Contains(r.out, "node1, localhost") {
		t.Errorf("certs: %+v", r)
	}
	r = try(t, []string{endpoint, key, "GRIDLOOM_CA=" + ca}, "", "certs", "--json")
	if r.code != exitDone || strings.Count(r.out, `"type":"certificate"`) != 3 || !strings.Contains(r.out, `"gridloom.example"`) {
		t.Errorf("certs --json: %+v", r)
	}
	other := filepath.Join(dir, "other.secret")
	writeFile(t, other, iam.NewMeshSecret())
	writeFile(t, ca, try(t, nil, "", "certs", "ca", "--mesh-secret-file", other).out)
	if r := try(t, []string{endpoint, key, "GRIDLOOM_CA=" + ca}, "", "ls"); r.code != exitFailed {
		t.Errorf("with the authority of another mesh: %+v", r)
	}
	if r := try(t, nil, "", "certs", "ca", "--data", filepath.Join(dir, "nowhere")); r.code != exitFailed || !strings.Contains(r.errOut, "--mesh-secret-file") {
		t.Errorf("no authority: %+v", r)
	}
	writeFile(t, other, fmt.Sprintf("%s\n%s\n", iam.NewMeshSecret(), iam.NewMeshSecret()))
	if r := try(t, nil, "", "certs", "ca", "--mesh-secret-file", other, "--json"); strings.Count(r.out, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("the authorities of two secrets: %+v", r)
	}
}
