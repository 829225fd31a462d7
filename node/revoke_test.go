package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/gridloom/gridloom/node/iam"
)

// TestRoleChange: who may do less ends what may not go on within five seconds,
// through every way in, and nothing else; who is shut out ends the rest.
func TestRoleChange(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/large"), bytes.NewReader(randomBytes(48<<20)))
	eve := someone(t, r, "eve", "readwrite:photos")
	_, service, err := r.identities.CreateKey(t.Context(), iam.Key{User: "eve", Service: true, Grants: []iam.Grant{{Role: iam.Admin, Bucket: iam.AllBuckets}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, streamCtx := overGRPC(t, r, eve.String())
	reflection, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(streamCtx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
		if err := reflection.Send(list); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := reflection.Recv()
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	writes, reads, hurry := make(chan error, 3), make(chan error, 1), make(chan struct{})
	go func() { writes <- endlessPut(ctx, r, eve) }()
	go func() { writes <- endlessPut(ctx, r, service) }()
	go func() { writes <- openPut(ctx, r, eve) }()
	go func() { reads <- slowly(ctx, r, eve, hurry) }()
	awaitFollowers(t, r, 5)

	began := time.Now()
	set := func(grants ...iam.Grant) {
		t.Helper()
		if _, err := r.identities.UpdateUser(ctx, iam.User{Name: "eve", Grants: grants}, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(iam.Grant{Role: iam.ReadOnly, Bucket: "photos"})
	for range 3 {
		if err := <-writes; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write of who may only read: %v", err)
		} else {
			t.Logf("after %v: %v", time.Since(began), err)
		}
	}
	if n := r.gate.Following(); n != 2 {
		t.Errorf("%d are followed; the download and the reflection go on", n)
	}
	if err := ask(); err != nil {
		t.Errorf("the reflection: %v", err)
	}
	set(iam.Grant{Role: iam.ReadOnly, Bucket: "other"})
	close(hurry)
	if err := <-reads; err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the download: %v", err)
	}
	if err := r.identities.DeleteUser(ctx, "eve", 0); err != nil {
		t.Fatal(err)
	}
	if err := ask(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the reflection of who is gone: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestLinksOnTheWire: a link is good for what it says, at its door, and for
// nothing that is made of it.
func TestLinksOnTheWire(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Limits.Failures = 1_000_000
	r := runNode(t, cfg)
	r.await(t)
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/2026/a"), strings.NewReader("hello"))
	eve, now := someone(t, r, "eve", "readwrite:photos"), time.Now()
	sign := func(l iam.LinkRequest) string {
		t.Helper()
		l.Bucket, l.Expires = "photos", now.Add(time.Hour)
		link, err := iam.SignLink(eve, r.control.Deployment(), l, now)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	sum := sha256.Sum256([]byte("hello"))
	get := sign(iam.LinkRequest{Method: "GET", Key: "2026/a"})
	put := sign(iam.LinkRequest{Method: "PUT", Key: "2026/b", Digest: sum[:], Headers: [][2]string{{"Content-Type", "text/plain"}}})
	ask := func(what string, want int, method, target, body string, header ...string) {
		t.Helper()
		// A client would tidy the path; this one sends it as it is.
		resp, text := callRaw(t, r.Addrs().HTTP, method, target, body, header...)
		if resp.StatusCode != want {
			t.Errorf("%s: %s %s: %s, want %d: %s", what, method, target, resp.Status, want, text)
		}
	}
	ask("as it is", 200, "GET", get, "")
	ask("HEAD", 200, "HEAD", get, "")
	for _, method := range []string{"PUT", "DELETE", "POST", "PATCH"} {
		ask("another method", 401, method, get, "")
	}
	for what, target := range map[string]string{
		"a parameter more": get + "&stale=1s", "a parameter twice": get + "&gl-key=root", "another door": strings.Replace(get, "/data/", "/v1/", 1),
		"an escape": strings.Replace(get, "2026", "%32026", 1), "an escaped slash": strings.Replace(get, "2026/", "2026%2F", 1),
		"a dot": strings.Replace(get, "2026/", "2026/%2e/", 1), "dots": strings.Replace(get, "2026/", "x/../2026/", 1), "two slashes": strings.Replace(get, "2026/", "2026//", 1),
		"metrics": "/metrics" + get[strings.Index(get, "?"):], "buckets": "/v1/buckets" + get[strings.Index(get, "?"):],
	} {
		ask(what, 401, "GET", target, "")
	}
	ask("a key beside", 401, "GET", get, "", "Authorization", "Bearer "+eve.String())
	ask("our header beside", 401, "GET", get, "", "Gridloom-Authorization", "Bearer "+eve.String())
	for i := strings.Index(get, "?") + 1; i < len(get); i++ {
		with := "0"
		if get[i] == '0' {
			with = "1"
		}
		ask("an altered character", 401, "GET", get[:i]+with+get[i+1:], "")
	}
	ask("without its header", 401, "PUT", put, "hello")
	ask("another content", 400, "PUT", put, "jello", "Content-Type", "text/plain")
	expect(t, http.StatusNotFound, http.MethodGet, r.url("/data/photos/2026/b"), nil)
	ask("the content", 201, "PUT", put, "hello", "Content-Type", "text/plain")
	if err := r.identities.DeleteKey(t.Context(), eve.ID, 0); err != nil {
		t.Fatal(err)
	}
	ask("of a key that is gone", 401, "GET", get, "")
}

// callRaw sends a request whose target nothing has tidied.
func callRaw(t *testing.T, addr, method, target, body string, header ...string) (*http.Response, string) {
	t.Helper()
	conn := dialListener(t, addr)
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	for i := 0; i+1 < len(header); i += 2 {
		fmt.Fprintf(&head, "%s: %s\r\n", header[i], header[i+1])
	}
	if _, err := io.WriteString(conn, head.String()+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}
