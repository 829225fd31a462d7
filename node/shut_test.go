package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/iam"
)

// someone makes a user with grants and a key, by way of a node.
func someone(t *testing.T, r *running, name string, grants ...string) iam.Credential {
	t.Helper()
	u := iam.User{Name: name}
	for _, text := range grants {
		g, err := iam.ParseGrant(text)
		if err != nil {
			t.Fatal(err)
		}
		u.Grants = append(u.Grants, g)
	}
	if _, err := r.identities.CreateUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	_, credential, err := r.identities.CreateKey(t.Context(), iam.Key{User: name})
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

// tokenOf makes a token at a gate.
func tokenOf(t *testing.T, g *iam.Gate, c iam.Credential, ttl time.Duration, at time.Time) string {
	t.Helper()
	p, err := g.Verify(iam.Request{Authorization: "Bearer " + c.String(), Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := g.IssueToken(p, nil, ttl, at)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// badCredentials are Authorization values that get nobody in, whatever for.
func badCredentials(t *testing.T, r *running) map[string]string {
	t.Helper()
	ann := someone(t, r, "ann", "admin:*")
	now := time.Now()
	good := tokenOf(t, r.gate, ann, time.Minute, now)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	// Another mesh with the same users, keys and master: but for its id.
	other := iam.NewGate(func() time.Duration { return 0 })
	other.SetDeployment("5e0f8a43-0000-4000-8000-000000000000")
	other.SetSnapshot(now, r.gate.Snapshot())
	revoked := someone(t, r, "bob", "admin:*")
	disabled := someone(t, r, "cat", "admin:*")
	expiring, stale, err := r.identities.CreateKey(t.Context(), iam.Key{User: "ann", Expires: now.Add(-time.Second).UnixNano()})
	if err != nil {
		t.Fatalf("%+v, %v", expiring, err)
	}
	ofRevoked, ofDisabled := tokenOf(t, r.gate, revoked, time.Minute, now), tokenOf(t, r.gate, disabled, time.Minute, now)
	if err := r.identities.DeleteKey(t.Context(), revoked.ID, 0); err != nil {
		t.Fatal(err)
	}
	cat, err := r.identities.GetUser(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	cat.User.Disabled = true
	if _, err := r.identities.UpdateUser(t.Context(), cat.User, cat.Revision); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"none":                     "",
		"no scheme":                ann.String(),
		"basic":                    "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+ann.String())),
		"malformed":                "Bearer gl_ann_x_y",
		"another's secret":         "Bearer " + iam.Generate(ann.ID).String(),
		"another root":             "Bearer " + iam.Generate(iam.RootID).String(),
		"unknown key":              "Bearer " + iam.Generate("nobody").String(),
		"expired key":              "Bearer " + stale.String(),
		"revoked key":              "Bearer " + revoked.String(),
		"disabled user":            "Bearer " + disabled.String(),
		"token of a revoked key":   "Bearer " + ofRevoked,
		"token of a disabled user": "Bearer " + ofDisabled,
		"expired token":            "Bearer " + tokenOf(t, r.gate, ann, time.Minute, now.Add(-time.Hour)),
		"token for another mesh":   "Bearer " + tokenOf(t, other, ann, time.Minute, now),
		"alg none":                 "Bearer " + none + "." + parts[1] + ".",
		"alg none with signature":  "Bearer " + none + "." + parts[1] + "." + parts[2],
		"altered claims":           "Bearer " + parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root"}`)) + "." + parts[2],
	}
}

// TestEveryDoorIsShut: what doesn't prove who it is gets in nowhere: at no
// method of gRPC but health, and at no path of HTTP but health.
func TestEveryDoorIsShut(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Limits.Failures = 1_000_000 // or none would be looked at after the first few
	r := runNode(t, cfg)
	r.await(t)
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	tried := 0
	for what, authorization := range badCredentials(t, r) {
		for _, key := range []string{"authorization", "gridloom-authorization"} {
			ctx := t.Context()
			if authorization != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, key, authorization)
			}
			for service, info := range r.grpcServer.GetServiceInfo() {
				for _, m := range info.Methods {
					err := callEmpty(ctx, conn, "/"+service+"/"+m.Name, m)
					open := service == "grpc.health.v1.Health"
					if got := status.Code(err); open == (got == codes.Unauthenticated) {
						t.Errorf("%s: /%s/%s: %v", what, service, m.Name, err)
					}
					tried++
				}
			}
			for _, route := range everyRoute(t, r) {
				req, err := http.NewRequestWithContext(t.Context(), route[0], "http://"+r.Addrs().HTTP+route[1], http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if authorization != "" {
					req.Header.Set(key, authorization)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				want := http.StatusUnauthorized
				if route[1] == "/livez" || route[1] == "/readyz" {
					want = http.StatusOK
				}
				if resp.StatusCode != want {
					t.Errorf("%s: %s %s: %s, want %d", what, route[0], route[1], resp.Status, want)
				}
				tried++
			}
		}
	}
	t.Logf("%d requests", tried)
}

// callEmpty calls a method with an empty message.
func callEmpty(ctx context.Context, conn *grpc.ClientConn, name string, m grpc.MethodInfo) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !m.IsClientStream && !m.IsServerStream {
		return conn.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// everyRoute lists methods and paths: those of the API as its own description
// has them, bytes, telemetry, and some that are nothing.
func everyRoute(t *testing.T, r *running) [][2]string {
	t.Helper()
	routes := [][2]string{
		{"GET", "/livez"}, {"GET", "/readyz"},
		{"GET", "/metrics"}, {"GET", "/v2/metrics/resource"}, {"GET", "/v2/metrics/resource?node=local"}, {"GET", "/openapi.json"},
		{"GET", "/v3/metrics"}, {"GET", "/v3/metrics/grid"}, {"GET", "/v3/metrics/nothing"},
		{"GET", "/"}, {"GET", "/debug/pprof/"}, {"POST", "/grid/v1"}, {"GET", "/bulk/v1/x"},
		{"GET", "/data/"}, {"GET", "//livez"}, {"GET", "/livez/../data/photos/a"}, {"GET", "/data/..%2flivez"},
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"} {
		routes = append(routes, [2]string{method, "/data/photos/a"})
	}
	var described struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(expect(t, http.StatusOK, http.MethodGet, r.url("/openapi.json"), nil), &described); err != nil {
		t.Fatal(err)
	}
	if len(described.Paths) < 15 {
		t.Fatalf("the API has %d paths", len(described.Paths))
	}
	for path, methods := range described.Paths {
		for method := range methods {
			routes = append(routes, [2]string{strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path)})
		}
	}
	return routes
}

// TestRevocation: whoever is shut out is out within five seconds at every node,
// in the middle of what they do, too; others go on.
func TestRevocation(t *testing.T) {
	nodes := startMesh(t, t.TempDir(), 3)
	a, b := nodes[0], nodes[1]
	makeBucket(t, a, "photos")
	large := randomBytes(48 << 20)
	expect(t, http.StatusCreated, http.MethodPut, a.url("/data/photos/large"), bytes.NewReader(large))
	eve, others := someone(t, a, "eve", "readwrite:photos"), someone(t, a, "others", "readwrite:photos")
	for _, r := range nodes {
		awaitStatus(t, r, eve, http.StatusOK)
		awaitStatus(t, r, others, http.StatusOK)
	}
	ends := make(chan string, 3)
	run := func(what string, do func() error) {
		go func() {
			err := do()
			ends <- fmt.Sprintf("%s: %v", what, err)
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	hurry := make(chan struct{}) // what is on its way already may be had
	run("download", func() error { return slowly(ctx, b, eve, hurry) })
	run("upload", func() error { return endlessPut(ctx, b, eve) })
	run("stream", func() error { return openPut(ctx, b, eve) })
	kept := make(chan error, 1)
	go func() { kept <- slowly(ctx, b, others, nil) }()
	awaitFollowers(t, b, 4)

	began := time.Now()
	if err := a.identities.DeleteUser(t.Context(), "eve", 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range nodes {
		awaitStatus(t, r, eve, http.StatusUnauthorized)
		t.Logf("new requests are refused at %s after %v", r.cfg.Name, time.Since(began))
	}
	close(hurry)
	var ended []string
	for range 3 {
		select {
		case e := <-ends:
			ended = append(ended, e)
			t.Logf("ended after %v: %s", time.Since(began), e)
		case <-ctx.Done():
			t.Fatalf("still open, of three: only these have ended: %q", ended)
		}
	}
	took := time.Since(began)
	slices.Sort(ended)
	t.Logf("after %v: %q", took, ended)
	if took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	for i, want := range []string{"download: ", "stream: rpc error: code = Unauthenticated", "upload: "} {
		if !strings.HasPrefix(ended[i], want) || strings.HasSuffix(ended[i], "<nil>") {
			t.Errorf("%s, want %s", ended[i], want)
		}
	}
	if n := b.gate.Following(); n != 1 {
		t.Errorf("%d are followed, want the other one's", n)
	}
	cancel()
	if err := <-kept; !errors.Is(err, context.Canceled) {
		t.Errorf("the other one's download: %v", err)
	}
}

// awaitStatus asks for something small until it has that answer.
func awaitStatus(t *testing.T, r *running, c iam.Credential, want int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		resp, body := call(t, http.MethodHead, r.url("/data/photos/large"), nil, "Authorization", "Bearer "+c.String())
		if resp.StatusCode == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s at %s: %s, want %d: %s", c.ID, r.cfg.Name, resp.Status, want, body)
		}
	}
}

func awaitFollowers(t *testing.T, r *running, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); r.gate.Following() < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d are followed, want %d", r.gate.Following(), n)
		}
		awaitTick()
	}
}

func awaitTick() { <-time.After(5 * time.Millisecond) }

// send makes a request on a connection of its own.
func send(ctx context.Context, method, url string, c iam.Credential, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.String())
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
}

// slowly downloads, a little at a time until it is to hurry.
func slowly(ctx context.Context, r *running, c iam.Credential, hurry <-chan struct{}) error {
	resp, err := send(ctx, http.MethodGet, r.url("/data/photos/large"), c, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	buf := make([]byte, 4<<10)
	for {
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			return err
		}
		select {
		case <-hurry:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// endlessPut uploads, a little at a time, and gives the answer as an error.
func endlessPut(ctx context.Context, r *running, c iam.Credential) error {
	body, w := io.Pipe()
	go func() {
		for ctx.Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
			awaitTick()
		}
		_ = w.CloseWithError(context.Cause(ctx))
	}()
	defer func() { _ = body.Close() }()
	resp, err := send(ctx, http.MethodPut, r.url("/data/photos/upload"), c, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return errors.New(resp.Status)
}

// openPut begins an upload by gRPC, and sends no more.
func openPut(ctx context.Context, r *running, c iam.Credential) error {
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.String())
	stream, err := pb.NewObjectServiceClient(conn).PutObject(ctx)
	if err != nil {
		return err
	}
	header := &pb.PutObjectHeader{Bucket: "photos", Key: "stream"}
	if err := stream.Send(&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: header}}); err != nil {
		return err
	}
	return stream.RecvMsg(&pb.PutObjectResponse{})
}

// TestAuditLog: every request but those about health has a line, by whichever
// door, with who, what and how it ended; no line has a secret.
func TestAuditLog(t *testing.T) {
	dir := t.TempDir()
	cfg := meshConfigs(t, dir, 1)[0]
	cfg.Audit.Level = "all"
	r := runNode(t, cfg)
	r.await(t)
	makeBucket(t, r, "photos")
	ann := someone(t, r, "ann", "readonly:photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), strings.NewReader("x"))
	expect(t, http.StatusOK, http.MethodGet, r.url("/data/photos/a"), nil, "Authorization", "Bearer "+ann.String())
	expect(t, http.StatusForbidden, http.MethodDelete, r.url("/data/photos/a"), nil, "Authorization", "Bearer "+ann.String())
	link, err := iam.SignLink(ann, r.control.Deployment(), iam.LinkRequest{Method: "GET", Bucket: "photos", Key: "a", Expires: time.Now().Add(time.Hour).Truncate(time.Second)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	expect(t, http.StatusOK, http.MethodGet, r.url(link), nil, "Authorization", "")
	expect(t, http.StatusUnauthorized, http.MethodGet, r.url("/v1/buckets"), nil, "Authorization", "Bearer gl_ann_x_y")
	expect(t, http.StatusOK, http.MethodGet, r.url("/livez"), nil)
	r.stop(t)
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"user":"root","access_key":"root","via":"root","api":"CreateBucket","method":"POST","resources":[{"bucket":"photos"}],"outcome":"ok"`,
		`"user":"root","access_key":"root","via":"root","api":"PutObject","method":"PUT","resources":[{"bucket":"photos","key":"a"}],"outcome":"ok"`,
		`"user":"ann","access_key":"` + ann.ID + `","via":"key","api":"GetObject","method":"GET","resources":[{"bucket":"photos","key":"a"}],"outcome":"ok"`,
		`"via":"key","api":"DeleteObject","method":"DELETE","resources":[{"bucket":"photos","key":"a"}],"outcome":"permission_denied"`,
		`"user":"ann","access_key":"` + ann.ID + `","via":"link","api":"GetObject"`,
		`"api":"Unauthenticated","method":"GET","outcome":"unauthenticated"`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no line has %s", want)
		}
	}
	for _, secret := range []string{strings.Split(ann.String(), "_")[2], strings.Split(testKey.String(), "_")[2], "gl-signature", "livez", "gl_ann"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("a line has %q", secret)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

// TestPeersOnly: whoever hasn't proven to be a node calls none of the grid's
// handlers, and has nothing of the bulk port.
func TestPeersOnly(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	handlers := r.grid.Handlers()
	if len(handlers) < 8 {
		t.Fatalf("%d handlers: %v", len(handlers), handlers)
	}
	for _, h := range handlers {
		if !peersMayCall(h.ID) {
			t.Errorf("handler %d (%s) is in no table of permissions", h.ID, h.Name)
		}
	}
	for _, path := range []string{"/grid/v1", "/bulk/v1/", "/bulk/v1/segments/x", "/", "/metrics", "/data/photos/a"} {
		for _, authorization := range []string{"", "Bearer " + testKey.String()} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addrs().Peer+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", authorization)
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s with %.10q: %s", path, authorization, resp.Status)
			}
		}
	}
}
