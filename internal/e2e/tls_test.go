package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startSecureFleet starts three nodes with --tls auto, which know each other
// without anything in between: what there is can't read TLS.
func startSecureFleet(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t, 3)
	f.more = []string{"--tls", "auto"}
	for node := range f.all() {
		f.urls[node-1] = "https://" + f.peerAddr(node)
	}
	for node := range f.all() {
		f.start(t, node)
	}
	f.waitSecure(t, f.authorities(t))
	return f
}

// authorities is what clients are to trust, as the mesh secret file has it now.
func (f *fleet) authorities(t *testing.T) []byte {
	t.Helper()
	return []byte(mustRun(t, nil, "certs", "ca", "--mesh-secret-file", filepath.Join(f.dir, "mesh.secret")))
}

// trusting makes a client that trusts what is in PEM.
func trusting(t *testing.T, ca []byte) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificates in %q", ca)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// waitSecure waits until every node is ready.
func (f *fleet) waitSecure(t *testing.T, ca []byte) {
	t.Helper()
	client := trusting(t, ca)
	for node := range f.all() {
		f.until(t, f.name(node)+" to be ready", func() error {
			resp, err := client.Get("https://" + f.http(node) + "/readyz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", resp.Status, b)
			}
			return nil
		})
	}
}

// until waits until something is so.
func (f *fleet) until(t *testing.T, what string, so func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for {
		err := so()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited three minutes for %s: %v", what, err)
		}
	}
}

// secureObject puts or gets an object over HTTPS.
func (f *fleet) secureObject(client *http.Client, node int, method, key string, body []byte) ([]byte, error) {
	req, err := http.NewRequest(method, fmt.Sprintf("https://%s/data/secure/%s", f.http(node), key), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s through n%d: %s: %s", method, key, node, resp.Status, b)
	}
	return b, err
}

// TestTLSAuto: three processes that have nothing but the mesh secret in common
// speak TLS at every listener; the command line and any HTTP client get at them
// with the authority that follows from that secret. The secret is then rotated,
// by its file, while requests run: none fails.
func TestTLSAuto(t *testing.T) {
	t.Parallel()
	f := startSecureFleet(t)
	ca := filepath.Join(f.dir, "ca.pem")
	f.write(t, "ca.pem", string(f.authorities(t)))
	env := func(node int) []string { return append(f.env(node), "GRIDLOOM_CA="+ca) }
	mustRun(t, env(1), "mb", "secure")
	large := make([]byte, 3<<20)
	_, _ = rand.Read(large) // never fails
	for name, content := range map[string][]byte{"small": []byte("small"), "large": large} {
		f.write(t, name, string(content))
		mustRun(t, env(1), "put", filepath.Join(f.dir, name), "secure/"+name)
		for node := range f.all() {
			if got := mustRun(t, env(node), "get", "secure/"+name, "-"); got != string(content) {
				t.Errorf("%s through n%d: other bytes came back", name, node)
			}
			if got, err := f.secureObject(trusting(t, f.authorities(t)), node, http.MethodGet, name, nil); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s through n%d by HTTPS: %v", name, node, err)
			}
		}
	}
	if got := mustRun(t, env(2), "certs", "--json"); strings.Count(got, `"type":"certificate"`) != 9 {
		t.Errorf("the nodes' certificates:\n%s", got)
	}
	if r := run(t, f.env(1), nil, "ls"); r.code == 0 {
		t.Error("a client gets in without TLS")
	}
	if r := run(t, f.env(1), nil, "ls", "--data", f.data(1)); r.code != 0 {
		t.Errorf("a client with the node's data directory: %+v", r)
	}
	f.rotateUnderLoad(t)
	// What comes anew knows the new secret alone.
	f.stop(t, 3)
	f.start(t, 3)
	f.waitSecure(t, f.authorities(t))
	f.write(t, "ca.pem", string(f.authorities(t)))
	for node := range f.all() {
		if got := mustRun(t, env(node), "get", "secure/large", "-"); got != string(large) {
			t.Errorf("through n%d after the rotation: other bytes came back", node)
		}
	}
}

// rotateUnderLoad changes the file with the mesh secret, step by step.
func (f *fleet) rotateUnderLoad(t *testing.T) {
	t.Helper()
	file := filepath.Join(f.dir, "mesh.secret")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old, next := strings.TrimSpace(string(b)), strings.TrimSpace(mustRun(t, nil, "keygen", "--mesh-secret"))
	f.write(t, "mesh.secret", old+"\n"+next+"\n")
	both := f.authorities(t)
	f.published(t, both)

	stop := make(chan struct{})
	var done atomic.Int64
	var load sync.WaitGroup
	defer load.Wait()
	end := sync.OnceFunc(func() { close(stop) })
	defer end()
	for w := range 3 {
		client := trusting(t, both)
		load.Go(func() {
			body := make([]byte, 300<<10) // over the bulk port
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("load-%d-%d", w, i%10)
				_, err := f.secureObject(client, 1+(w+i)%3, http.MethodPut, key, body)
				var got []byte
				if err == nil {
					got, err = f.secureObject(client, 1+(w+i+1)%3, http.MethodGet, key, nil)
				}
				if err != nil || len(got) != len(body) {
					t.Errorf("%d bytes, %v", len(got), err)
					return
				}
				client.CloseIdleConnections() // the next one comes anew
				done.Add(2)
			}
		})
	}
	progress := func() {
		more := done.Load() + 30
		f.until(t, "requests", func() error {
			if done.Load() < more && !t.Failed() {
				return fmt.Errorf("%d so far", done.Load())
			}
			return nil
		})
	}
	progress()
	for _, text := range []string{next + "\n" + old + "\n", next + "\n"} {
		f.write(t, "mesh.secret", text)
		f.published(t, f.authorities(t))
		progress()
	}
	end()
	load.Wait()
	t.Logf("%d requests while the secret was rotated", done.Load())
}

// published waits until every node has told the clients on its machine what to
// trust: it has read the file then.
func (f *fleet) published(t *testing.T, want []byte) {
	t.Helper()
	for node := range f.all() {
		f.until(t, f.name(node)+" to take over the secrets", func() error {
			got, err := os.ReadFile(filepath.Join(f.data(node), "tls", "ca.pem"))
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("it has\n%s", got)
			}
			return err
		})
	}
}
