package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/node"
)

// free are the flags of a serve whose listeners take free ports.
var free = []string{"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"}

// startServe starts a node alone.
func startServe(t *testing.T, env []string, args ...string) (jsonServing, server) {
	t.Helper()
	s := start(t, env, slices.Concat([]string{"serve", "--json"}, free, args)...)
	var j jsonServing
	if err := json.Unmarshal([]byte(s.first), &j); err != nil {
		t.Fatalf("%v: %s", err, s.first)
	}
	return j, s
}

// files lists what is in a folder, with sizes.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		b.WriteString(name + " " + string(data) + "\n")
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b.String()
}

// A node alone makes its key, keeps it, and has everything again after a stop.
func TestServeAlone(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	node, s := startServe(t, nil, "--data", data)
	if node.Name != "node1" || node.Data != data || !strings.HasPrefix(node.HTTP, "http://127.0.0.1:") {
		t.Errorf("serve printed %s", s.first)
	}
	env := []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY_FILE=" + credentialsFile(data)}
	for _, args := range []string{"mb kept-bucket", "put - kept-bucket/key"} {
		if r := try(t, env, "kept", strings.Fields(args)...); r.code != exitDone {
			t.Fatalf("%s: %+v", args, r)
		}
	}
	t.Run("second process", func(t *testing.T) {
		before := files(t, filepath.Join(data, "drives"))
		r := try(t, nil, "", slices.Concat([]string{"serve", "--data", data}, free)...)
		if r.code != exitFailed || !strings.Contains(r.errOut, "gridloom serve: --data: ") || !strings.Contains(r.errOut, data) {
			t.Errorf("exit code %d: %s", r.code, r.errOut)
		}
		if files(t, filepath.Join(data, "drives")) != before {
			t.Error("it changed something")
		}
	})
	t.Run("port in use", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other")
		r := try(t, []string{"GRIDLOOM_GRPC_ADDR=" + node.GRPC}, "", slices.Concat([]string{"serve", "--data", other}, free[2:])...)
		if r.code != exitFailed || !strings.Contains(r.errOut, "--grpc-addr (from GRIDLOOM_GRPC_ADDR): "+node.GRPC) {
			t.Errorf("exit code %d: %s", r.code, r.errOut)
		}
		if left := files(t, other); strings.Contains(left, "GRIDLOOM") {
			t.Errorf("it left\n%s", left)
		}
	})
	s.stop()
	node, _ = startServe(t, nil, "--data", data)
	env[0] = "GRIDLOOM_ENDPOINT=" + node.GRPC
	if r := try(t, env, "", "get", "kept-bucket/key", "-"); r.out != "kept" {
		t.Errorf("after a stop: %+v", r)
	}
}

// A given key is used, and never written down.
func TestServeWithKey(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	node, _ := startServe(t, []string{"GRIDLOOM_KEY=" + testKey}, "--data", data)
	env := []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY=" + testKey}
	if r := try(t, env, "", "ls"); r.code != exitDone {
		t.Errorf("ls: %+v", r)
	}
	if left := files(t, data); strings.Contains(left, testKey) || there(credentialsFile(data)) {
		t.Errorf("the key, or another, is in the data directory:\n%s", left)
	}
}

func TestServeRefusesUnknownFormat(t *testing.T) {
	data := t.TempDir()
	writeFile(t, filepath.Join(data, "FORMAT"), "gridloom 99\n")
	before := files(t, data)
	r := try(t, nil, "", slices.Concat([]string{"serve", "--data", data}, free)...)
	if r.code != exitFailed || !strings.Contains(r.errOut, "--data: ") || !strings.Contains(r.errOut, data) || !strings.Contains(r.errOut, "gridloom 99") {
		t.Errorf("exit code %d: %s", r.code, r.errOut)
	}
	if files(t, data) != before {
		t.Errorf("it left\n%s", files(t, data))
	}
}

func TestServeRefusesOpenListener(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, name := range []string{"grpc", "http", "peer"} {
		r := try(t, nil, "", "serve", "--data", data, "--"+name+"-addr", "0.0.0.0:0")
		wantUsage(t, r, "--"+name+"-addr: ", "--insecure="+name)
	}
	if there(data) {
		t.Error("it made the data directory")
	}
}

// certificates writes certificates for 127.0.0.1, signed by the authority in
// dir/ca.pem, which it makes first.
func certificates(t *testing.T, dir string, names ...string) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		writeFile(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey, ca := newKey(), template("test authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	sign := func(cert *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	write("ca.pem", "CERTIFICATE", sign(ca, caKey))
	for _, name := range names {
		key := newKey()
		write(name+".pem", "CERTIFICATE", sign(template(name), key))
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".key", "PRIVATE KEY", der)
	}
}

func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir, "server", "client")
	pem := func(name string) string { return filepath.Join(dir, name) }
	node, _ := startServe(t, []string{"GRIDLOOM_KEY=" + testKey, "GRIDLOOM_GRPC_CERT=" + pem("server.pem"), "GRIDLOOM_GRPC_CERT_KEY=" + pem("server.key")}, "--data", pem("data"))
	env := []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY=" + testKey}
	if r := try(t, env, "", "ls", "--ca", pem("ca.pem")); r.code != exitDone {
		t.Errorf("with the authority: %+v", r)
	}
	if r := try(t, env, "", "ls"); r.code != exitFailed || !strings.Contains(r.errOut, "the node may want TLS: --ca") {
		t.Errorf("plaintext: %+v", r)
	}
	other := t.TempDir()
	certificates(t, other)
	if r := try(t, env, "", "ls", "--ca", filepath.Join(other, "ca.pem")); r.code != exitFailed || !strings.Contains(r.errOut, "certificate signed by unknown authority") {
		t.Errorf("another authority: %+v", r)
	}
	t.Run("client certificates", func(t *testing.T) {
		node, _ := startServe(t, []string{"GRIDLOOM_KEY=" + testKey}, "--data", pem("data2"),
			"--grpc-cert", pem("server.pem"), "--grpc-cert-key", pem("server.key"), "--grpc-ca", pem("ca.pem"))
		env := []string{"GRIDLOOM_ENDPOINT=" + node.GRPC, "GRIDLOOM_KEY=" + testKey, "GRIDLOOM_CA=" + pem("ca.pem")}
		if r := try(t, env, "", "ls"); r.code != exitDone {
			t.Errorf("without one, which is one way in: %+v", r)
		}
		certificates(t, other, "client")
		if r := try(t, env, "", "ls", "--cert", filepath.Join(other, "client.pem"), "--cert-key", filepath.Join(other, "client.key")); r.code != exitFailed {
			t.Errorf("with one of another authority: %+v", r)
		}
		if r := try(t, env, "", "ls", "--cert", pem("client.pem"), "--cert-key", pem("client.key")); r.code != exitDone {
			t.Errorf("with one: %+v", r)
		}
	})
	t.Run("bad file", func(t *testing.T) {
		r := try(t, nil, "", "serve", "--data", pem("data3"), "--http-cert", pem("client.pem"), "--http-cert-key", pem("server.key"))
		if r.code != exitFailed || !strings.Contains(r.errOut, "--http-cert: ") || !strings.Contains(r.errOut, pem("client.pem")) {
			t.Errorf("exit code %d: %s", r.code, r.errOut)
		}
	})
}

// A mesh that is kept is there again, with its key, and is never started
// smaller than it is.
func TestDevKept(t *testing.T) {
	data := filepath.Join(t.TempDir(), "mesh")
	b, s := startDev(t, "--data", data, "--nodes", "2", "--drives", "1")
	if len(b.Nodes) != 2 || b.Temporary || b.Data != data {
		t.Errorf("banner: %s", s.first)
	}
	env := []string{"GRIDLOOM_KEY=" + b.Key}
	if r := try(t, env, "kept", "put", "-", "demo/key", "--endpoint", b.Nodes[0].GRPC); r.code != exitDone {
		t.Fatalf("put: %+v", r)
	}
	s.stop()

	r := try(t, nil, "", "dev", "--port", "0", "--data", data, "--nodes", "1", "--drives", "1")
	wantUsage(t, r, "--nodes: ", "has more than 1 nodes")
	again, s := startDev(t, "--data", data, "--nodes", "3", "--drives", "2")
	if again.Key != b.Key {
		t.Error("the key is another")
	}
	for _, n := range again.Nodes {
		if r := try(t, env, "", "get", "demo/key", "-", "--endpoint", n.GRPC); r.out != "kept" {
			t.Errorf("through %s: %+v", n.Name, r)
		}
	}
	s.stop()
	r = try(t, nil, "", "dev", "--port", "0", "--data", data, "--drives", "1")
	wantUsage(t, r, "--drives: ", "node1", "has more than 1 drives")
}

func TestDevWithKey(t *testing.T) {
	b, _ := startDev(t, "--key", testKey, "--nodes", "1")
	if b.Key != testKey {
		t.Errorf("the key is %s", b.Key)
	}
	if r := try(t, []string{"GRIDLOOM_KEY=" + testKey, "GRIDLOOM_ENDPOINT=" + b.Nodes[0].GRPC}, "", "ls", "demo"); r.code != exitDone {
		t.Errorf("%+v", r)
	}
}

func TestDevPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	data := filepath.Join(t.TempDir(), "mesh")
	r := try(t, nil, "", "dev", "--port", port, "--data", data)
	if r.code != exitFailed || !strings.Contains(r.errOut, "gridloom dev: --port: "+l.Addr().String()+", for gRPC of node1, is in use") {
		t.Errorf("exit code %d: %s", r.code, r.errOut)
	}
	if there(data) {
		t.Errorf("it left\n%s", files(t, data))
	}
}

// The process as a user has it: up in time, with commands that do what is said
// when they are copied, and gone without a trace.
func TestDevProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX shell and signals")
	}
	temp := t.TempDir()
	cmd := exec.Command("gridloom", "dev", "--port", "0")
	cmd.Env = slices.DeleteFunc(append(os.Environ(), "TMPDIR="+temp), func(kv string) bool { return strings.HasPrefix(kv, envPrefix) })
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // of no effect once it has ended
	commands := bannerCommands(t, out)
	limit := 3 * time.Second
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		limit *= 5 // the race detector's own cost
	}
	if took := time.Since(started); took > limit {
		t.Errorf("the banner took %s", took)
	} else {
		t.Logf("banner after %s", took)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	for i, want := range []string{"- → demo/hello.txt  12\n", "hello, mesh\n", "hello"} {
		got, err := shell(t, commands[i])
		if err != nil || got != want {
			t.Errorf("%s\nprinted %q, %v; want %q", commands[i], got, err, want)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
}

// bannerCommands reads the banner up to its end and returns the commands.
func bannerCommands(t *testing.T, out io.Reader) (commands []string) {
	t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if strings.Contains(text, "/hello.txt") {
			if commands = append(commands, text); len(commands) == 3 {
				return commands
			}
		}
	}
	t.Fatalf("the banner ended after %q, %v", commands, lines.Err())
	return nil
}

// shell runs a command as it is. Where there is no curl, its request is made
// from its words: tests need Go alone.
func shell(t *testing.T, command string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err == nil || !strings.HasPrefix(command, "curl ") {
		out, err := exec.Command("sh", "-c", strings.Replace(command, "curl ", "curl -sS ", 1)).Output()
		return string(out), err
	}
	words := strings.Split(command, "'")
	name, value, _ := strings.Cut(words[1], ": ")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSpace(words[2]), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(name, value)
	req.Header.Set("Range", "bytes="+strings.Fields(words[0])[2])
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// failingNode fails when it is told to.
type failingNode struct{ failed chan struct{} }

func (n *failingNode) Failed() <-chan struct{} { return n.failed }
func (n *failingNode) Failure() error          { return errors.New("the index stopped: its disk hangs") }

// TestStopped: a node that has failed ends by itself, or is left behind.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well, ill := &failingNode{make(chan struct{})}, &failingNode{make(chan struct{})}
		if err := stopped(func() error { return io.EOF }, well, ill); err != io.EOF {
			t.Errorf("without a failure: %v", err)
		}
		began := time.Now()
		time.AfterFunc(time.Minute, func() { close(ill.failed) })
		err := stopped(func() error {
			<-ill.failed
			time.Sleep(node.StopTimeout - time.Second)
			return io.EOF
		}, well, ill)
		if took := time.Since(began); err != io.EOF || took != time.Minute+node.StopTimeout-time.Second {
			t.Errorf("one that ends in time: %v after %v", err, took)
		}
		began = time.Now()
		hang := make(chan struct{})
		err = stopped(func() error { <-hang; return nil }, well, ill)
		if took := time.Since(began); !errors.Is(err, errLeftBehind) || !strings.Contains(err.Error(), "its disk hangs") || took != node.StopTimeout {
			t.Errorf("one that hangs: %v after %v", err, took)
		}
		close(hang)
	})
}
