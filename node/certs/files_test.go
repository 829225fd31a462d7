package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func loadFiles(t *testing.T, cert, key, ca string, log *slog.Logger) *Files {
	t.Helper()
	f, err := LoadFiles(cert, key, ca, log)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func fingerprint(t *testing.T, i Identity) string {
	t.Helper()
	info, ok := i.Info()
	if !ok {
		t.Fatal("there is no certificate")
	}
	return info.Fingerprint
}

// TestFilesKeepWhatFits: whatever is wrong with the files that have changed, the
// certificate of before stays in use, and that is said once.
func TestFilesKeepWhatFits(t *testing.T) {
	a := newAuthority(t, 1)
	good, next := issue(t, a, time.Hour, "a"), issue(t, a, time.Hour, "a")
	for what, spoil := range map[string]func(dir, cert, key string){
		"half of a certificate": func(_, cert, _ string) { write(t, cert, certPEM(next)[:100]) },
		"an empty file":         func(_, cert, _ string) { write(t, cert, nil) },
		"the key of another":    func(_, _, key string) { write(t, key, strayKey(t)) },
		"a certificate without its key": func(_, cert, _ string) {
			write(t, cert, certPEM(next))
		},
		"no file": func(_, _, key string) {
			if err := os.Remove(key); err != nil {
				t.Fatal(err)
			}
		},
		"one that has expired": func(dir, _, _ string) { writePair(t, dir, issue(t, a, -time.Minute, "a")) },
		"authorities with a hole in them": func(dir, _, _ string) {
			write(t, filepath.Join(dir, "ca.crt"), append(a.PEM(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir, log := t.TempDir(), &logged{}
			cert, key := writePair(t, dir, good)
			ca := filepath.Join(dir, "ca.crt")
			write(t, ca, a.PEM())
			f := loadFiles(t, cert, key, ca, log.logger())
			before, now := fingerprint(t, f), time.Now()
			spoil(dir, cert, key)
			for range 10 {
				if fingerprint(t, f) != before || f.Authorities() == nil {
					t.Fatal("it was taken over")
				}
				if now = now.Add(time.Second); time.Until(now) < time.Second && log.count("level=ERROR") != 0 {
					t.Error("it was logged before it can have settled")
				}
				f.Check(now)
			}
			if n := log.count("level=ERROR"); n != 1 || log.count(dir) == 0 {
				t.Errorf("logged %d times: %s", n, &log.text)
			}
			writePair(t, dir, next)
			write(t, ca, a.PEM())
			f.Check(now)
			if fingerprint(t, f) == before || log.count("level=ERROR") != 1 {
				t.Errorf("what is fit again was not taken over: %s", &log.text)
			}
		})
	}
}

// TestFilesRefuses: what can't be used at the start is an error that names the
// file.
func TestFilesRefuses(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, issue(t, newAuthority(t, 1), time.Hour, "a"))
	exposed, stray, empty := filepath.Join(dir, "exposed.key"), filepath.Join(dir, "stray.key"), filepath.Join(dir, "empty.crt")
	write(t, stray, strayKey(t))
	write(t, empty, nil)
	b, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, exposed, b)
	if err := os.Chmod(exposed, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][4]string{
		{cert, stray, "", cert}, {empty, key, "", empty}, {cert + "x", key, "", cert + "x"}, {cert, key, empty, empty}, {cert, key, key, key},
		{cert, exposed, "", exposed},
	} {
		if c[1] == exposed && runtime.GOOS == "windows" {
			continue // where modes say nothing
		}
		_, err := LoadFiles(c[0], c[1], c[2], nil)
		var bad *FileError
		if !errors.As(err, &bad) || bad.File != c[3] || !strings.Contains(err.Error(), c[3]) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// TestFilesBehindSymlinks: a folder of symlinks, one of which is swapped for
// another in one step, as Kubernetes does it.
func TestFilesBehindSymlinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where making a symlink is a privilege
	}
	root, a := t.TempDir(), newAuthority(t, 1)
	generation := func(n int) {
		dir := filepath.Join(root, fmt.Sprintf("..%d", n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writePair(t, dir, issue(t, a, time.Hour, fmt.Sprintf("generation-%d", n)))
		link := filepath.Join(root, "..data_tmp")
		if err := os.Symlink(filepath.Base(dir), link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(root, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	generation(1)
	var paths []string
	for _, name := range []string{"tls.crt", "tls.key"} {
		paths = append(paths, filepath.Join(root, name))
		if err := os.Symlink(filepath.Join("..data", name), paths[len(paths)-1]); err != nil {
			t.Fatal(err)
		}
	}
	log := &logged{}
	f := loadFiles(t, paths[0], paths[1], "", log.logger())
	seen := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		Watch(ctx, f.Paths(), 100*time.Millisecond, func() {
			f.Check(time.Now())
			i, _ := f.Info()
			select {
			case seen <- i.Names[0]:
			default:
			}
		})
	})
	defer watch.Wait()
	defer cancel()
	for n := 2; n <= 4; n++ {
		generation(n)
		limit := time.After(20 * time.Second)
		for name := ""; name != fmt.Sprintf("generation-%d", n); {
			select {
			case name = <-seen:
			case <-limit:
				t.Fatalf("generation %d is not taken over", n)
			}
		}
	}
	if n := log.count("level=ERROR"); n != 0 {
		t.Errorf("%d errors: %s", n, &log.text)
	}
}

// TestReloadUnderLoad changes certificate and authority fifty times beneath a
// server at work: who is connected stays so, and who comes sees the new one.
func TestReloadUnderLoad(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, issue(t, newAuthority(t, 1), time.Hour, "a"))
	f := loadFiles(t, cert, key, "", slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int64
	server := &http.Server{
		TLSConfig: Server(f, nil, tls.NoClientCert, nil, "h2", "http/1.1"),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "")
	}()
	defer func() { <-served }()
	defer server.Close()

	roots := x509.NewCertPool()
	for n := byte(1); n <= 50; n++ {
		roots.AddCert(newAuthority(t, n).cert)
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	const diallers = 4
	for i := range diallers {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "a"}, ForceAttemptHTTP2: i%2 == 0, MaxIdleConns: 1}
		clients.Go(func() {
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
			for {
				resp, err := client.Post("https://"+l.Addr().String(), "", bytes.NewReader(make([]byte, 10_000)))
				if err != nil {
					t.Error(err)
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || n != 10_000 {
					t.Errorf("%d bytes, %v", n, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for n := byte(1); n <= 50; n++ {
		c := issue(t, newAuthority(t, n), time.Hour, "a")
		writePair(t, dir, c)
		f.Check(time.Now())
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if !conn.ConnectionState().PeerCertificates[0].Equal(c.Leaf) {
			t.Errorf("change %d isn't seen by who comes after it", n)
		}
		conn.Close()
	}
	close(stop)
	clients.Wait()
	if n := opened.Load(); n != diallers+50 {
		t.Errorf("%d connections were opened for %d clients and 50 visitors: some were dropped", n, diallers)
	}
}
