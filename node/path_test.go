package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rawRequest sends a request whose target nobody cleans on the way, with the
// root key.
func rawRequest(t *testing.T, r *running, method, target, body string) (status int, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addrs().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		method, target, testKey.String(), len(body), body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %q: %v", method, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

// keysOf are all keys of a bucket, as the index has them.
func keysOf(t *testing.T, r *running, bucket string) []string {
	t.Helper()
	var list struct{ Objects []struct{ Key string } }
	if err := json.Unmarshal(expect(t, http.StatusOK, http.MethodGet, r.url("/v1/buckets/"+bucket+"/objects"), nil), &list); err != nil {
		t.Fatal(err)
	}
	keys := []string{}
	for _, o := range list.Objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// filesBelow are the names of everything below a directory.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestPathGames: a path means one key, or is refused: what is stored, what is
// listed and what can be read again has exactly that name, and other spellings
// of a path that is refused reach nothing. What may be done with it is decided
// on the same name: see door.authorize.
func TestPathGames(t *testing.T) {
	dir := t.TempDir()
	inside, outside := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.MkdirAll(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startMesh(t, inside, 1)[0]
	makeBucket(t, r, "games")
	makeBucket(t, r, "other")
	body := string(randomBytes(100 << 10)) // in a file
	before := filesBelow(t, outside)
	for target, key := range map[string]string{
		"/data/games/plain":              "plain",
		"/data/games/a%2Fb":              "a/b",
		"/data/games/a%2fc":              "a/c",
		"/data/games/a%252Fb":            "a%2Fb",
		"/data/games/%2e%2e%2fsecret":    "",
		"/data/games/..%2fsecret":        "",
		"/data/games/%252e%252e%252fsec": "%2e%2e%2fsec",
		"/data/games/../other/x":         "",
		"/data/games/../../secret":       "",
		"/data/games/a/../b":             "",
		"/data/games/a/./b":              "",
		"/data/games/./b":                "",
		"/data/games/a//b":               "",
		"/data/games//b":                 "",
		"/data/games/%2Fb":               "",
		"/data/games/b/":                 "",
		"/data/games/b%2F":               "",
		"/data/games/a%00b":              "",
		"/data/games/a%0ab":              "",
		"/data/games/%ff":                "",
		"/data/games/...":                "...",
		"/data/games/..a":                "..a",
		"/data/games/a..":                "a..",
		`/data/games/a\..\b`:             `a\..\b`,
		"/data/games/%2e":                "",
		"/data/games/":                   "",
		"/data/games":                    "",
		"/data//games/k":                 "",
		"/data/%2e%2e/k":                 "",
		"/data/..%2fother/k":             "",
		"/data/games%2Fother/k":          "",
		"/data/games%00/k":               "",
		"/data/../data/games/k":          "",
		"/data/./games/k":                "",
		"//data/games/k":                 "",
		"/%64ata/games/k":                "",
		"/data%2Fgames/k":                "",
		"/./data/games/k":                "",
		"/DATA/games/k":                  "",
		"/data/games/k;v=1":              "k;v=1",
		"/data/games/k%3Fa=b":            "k?a=b",
		"/data/games/k%23f":              "k#f",
		"/data/games/sp%20ace+plus":      "sp ace+plus",
	} {
		status, text := rawRequest(t, r, http.MethodPut, target, body)
		keys := keysOf(t, r, "games")
		switch {
		case key == "" && (status != http.StatusBadRequest && status != http.StatusNotFound || len(keys) != 0):
			t.Errorf("PUT %s: %d, %s; the index has %q, want a refusal", target, status, text, keys)
		case key != "" && (status != http.StatusCreated || !slices.Equal(keys, []string{key})):
			t.Errorf("PUT %s: %d, %s; the index has %q, want %q", target, status, text, keys, key)
		case key == "":
			if status, text := rawRequest(t, r, http.MethodGet, target, ""); status != http.StatusBadRequest && status != http.StatusNotFound || strings.Contains(text, "sesame") {
				t.Errorf("GET %s: %d, %.100s", target, status, text)
			}
		default:
			// The key with everything escaped is the same.
			for _, again := range []string{target, "/data/games/" + url.PathEscape(key)} {
				if status, text := rawRequest(t, r, http.MethodGet, again, ""); status != http.StatusOK || text != body {
					t.Errorf("GET %s: %d, %d bytes", again, status, len(text))
				}
			}
		}
		for _, key := range keys {
			if status, text := rawRequest(t, r, http.MethodDelete, "/data/games/"+url.PathEscape(key), ""); status != http.StatusNoContent {
				t.Fatalf("DELETE %q: %d %s", key, status, text)
			}
		}
	}
	if keys := keysOf(t, r, "other"); len(keys) != 0 {
		t.Errorf("another bucket has %q", keys)
	}
	if after := filesBelow(t, outside); !slices.Equal(before, after) {
		t.Errorf("outside there is %q, there was %q", after, before)
	}
	if after := filesBelow(t, dir); slices.ContainsFunc(after, func(name string) bool {
		return name != dir && !strings.HasPrefix(name, inside) && !strings.HasPrefix(name, outside)
	}) {
		t.Errorf("beside the node there is %q", after)
	}
}

// payloadFile finds the only payload file of a node.
func payloadFile(t *testing.T, r *running) string {
	t.Helper()
	var found []string
	for _, drive := range r.cfg.Drives {
		for _, name := range filesBelow(t, filepath.Join(drive, "payload")) {
			if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
				found = append(found, name)
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("payload files: %q", found)
	}
	return found[0]
}

// TestPlantedSymlinks puts links into a drive's payload directory that lead out
// of it, to what would pass for payload: nothing is read or written there.
func TestPlantedSymlinks(t *testing.T) {
	cfgs := meshConfigs(t, t.TempDir(), 1)
	cfgs[0].Drives = cfgs[0].Drives[:1] // one copy
	r := startNodes(t, cfgs)[0]
	makeBucket(t, r, "links")
	body := randomBytes(100 << 10)
	put := func(key string) (int, string) {
		return rawRequest(t, r, http.MethodPut, "/data/links/"+key, string(body))
	}
	if status, text := put("a"); status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	file, outside := payloadFile(t, r), t.TempDir()
	stolen := filepath.Join(outside, filepath.Base(file))
	if err := os.Rename(file, stolen); err != nil { // whole and valid, but elsewhere
		t.Fatal(err)
	}
	relative, err := filepath.Rel(filepath.Dir(file), stolen)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if status, text := rawRequest(t, r, http.MethodGet, "/data/links/a", ""); status < 400 || bytes.Contains([]byte(text), body[:100]) {
			t.Errorf("%s: %d, %d bytes", what, status, len(text))
		}
	}
	link := func(to, at string) {
		t.Helper()
		if err := os.Symlink(to, at); err != nil {
			t.Skipf("this user can't make symbolic links here: %v", err)
		}
	}
	for what, to := range map[string]string{"an absolute link to a file": stolen, "a relative link to a file": relative} {
		link(to, file)
		refused(what)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	sub := filepath.Dir(file)
	if err := os.Remove(sub); err != nil {
		t.Fatal(err)
	}
	link(outside, sub)
	refused("a link to a directory")
	// Wherever a new file would go, a link is there already.
	for _, drive := range r.cfg.Drives {
		for i := range 256 {
			name := filepath.Join(drive, "payload", fmt.Sprintf("%02x", i))
			if _, err := os.Lstat(name); err != nil {
				link(outside, name)
			}
		}
	}
	if status, text := put("b"); status < 500 {
		t.Errorf("an upload through a link: %d %s", status, text)
	}
	if names := filesBelow(t, outside); len(names) != 2 {
		t.Errorf("outside there is %q, want the directory and %s alone", names, stolen)
	}
	if got, err := os.ReadFile(stolen); err != nil || !bytes.HasPrefix(got, body) {
		t.Errorf("what lay outside was changed: %v", err)
	}
}
