package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// corpus is real input: files of GOROOT by their path, and one big file.
type corpus struct {
	root string            // directory of the files
	sums map[string]string // path below root, with slashes, to SHA-256
	big  string            // path below root of the big one
}

// door is one way to put and get.
type door interface {
	put(t *testing.T, node int, c *corpus, names []string)
	get(t *testing.T, node int, c *corpus, names []string)
}

// meshUnderTest is a dev mesh of three nodes and its addresses.
type meshUnderTest struct {
	key  string
	base int
}

func (m meshUnderTest) grpc(node int) string { return fmt.Sprintf("127.0.0.1:%d", m.base+10*(node-1)) }
func (m meshUnderTest) http(node int) string {
	return fmt.Sprintf("127.0.0.1:%d", m.base+10*(node-1)+1)
}

// env is what a client command needs to reach a node.
func (m meshUnderTest) env(node int) []string {
	return []string{"GRIDLOOM_ENDPOINT=" + m.grpc(node), "GRIDLOOM_KEY=" + m.key}
}

// TestRealFiles puts a hundred real files and a large one through node 1, by
// each of the three doors, and reads all of them back through nodes 2 and 3 by
// each of the three; then the mesh is killed and started on the same data, and
// everything is read again, by each door once.
func TestRealFiles(t *testing.T) {
	t.Parallel()
	realFiles(t, 100, 65<<20, false) // two segments
}

// realFiles puts so many files and one of at least bigBytes. The big one is read
// by gRPC and HTTP through one node each, or every time.
func realFiles(t *testing.T, files int, bigBytes int64, everyTime bool) {
	c := assemble(t, files, bigBytes)
	m := meshUnderTest{key: strings.TrimSpace(mustRun(t, nil, "keygen")), base: freeBase(t, 3)}
	data := t.TempDir()
	args := []string{"dev", "--nodes", "3", "--port", fmt.Sprint(m.base), "--data", data, "--key", m.key}
	p := start(t, nil, args...)
	for node := 1; node <= 3; node++ {
		waitReady(t, p, m.http(node))
	}
	mustRun(t, m.env(1), "mb", "real")

	doors := []struct {
		name string
		door door
	}{{"cli", cliDoor{m}}, {"grpc", grpcDoor{m}}, {"data", dataDoor{m}}}
	names := slices.Sorted(maps.Keys(c.sums))
	parts := make([][]string, len(doors))
	for i, name := range names {
		if name != c.big {
			parts[i%len(doors)] = append(parts[i%len(doors)], name)
		}
	}
	for i, d := range doors {
		// Every door gets the big file too: the last one stays.
		d.door.put(t, 1, c, append(parts[i], c.big))
	}
	listed(t, m, names)
	small := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == c.big })
	read := func(node, door int, big bool) {
		list := small
		if big || everyTime || door == 0 { // the command gets the whole bucket
			list = names
		}
		doors[door].door.get(t, node, c, list)
		t.Logf("node %d by %s: %d files are the same", node, doors[door].name, len(list))
	}
	for _, node := range []int{2, 3} {
		for door := range doors {
			read(node, door, node == 1+door)
		}
	}
	p.kill()
	p = start(t, nil, args...)
	for node := 1; node <= 3; node++ {
		waitReady(t, p, m.http(node))
	}
	for door := range doors {
		read(2+door%2, door, false)
	}
	if err := p.interrupt(t); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// assemble copies files of GOROOT, and makes the big one of them.
func assemble(t *testing.T, wanted int, bigBytes int64) *corpus {
	t.Helper()
	c := &corpus{root: t.TempDir(), sums: map[string]string{}, big: "big.bin"}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	bigFile, err := os.Create(filepath.Join(c.root, c.big))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bigFile.Close() }()
	bigSum, bigSize := sha256.New(), int64(0)
	errEnough := errors.New("enough")
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bigSize < bigBytes {
			n, err := io.MultiWriter(bigFile, bigSum).Write(b)
			bigSize += int64(n)
			if err != nil {
				return err
			}
		} else if len(c.sums) >= wanted {
			return errEnough
		}
		if len(c.sums) < wanted {
			rel, _ := filepath.Rel(src, path)
			sum := sha256.Sum256(b)
			c.sums[filepath.ToSlash(rel)] = hex.EncodeToString(sum[:])
			to := filepath.Join(c.root, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, b, 0o644)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	// GOROOT may hold less than is wanted: what is there is repeated.
	for bigSize < bigBytes {
		n, err := appendSelf(bigFile.Name(), bigFile, bigSum, bigBytes-bigSize)
		if err != nil {
			t.Fatal(err)
		}
		bigSize += n
	}
	if len(c.sums) < wanted {
		t.Fatalf("GOROOT has only %d files", len(c.sums))
	}
	c.sums[c.big] = hex.EncodeToString(bigSum.Sum(nil))
	return c
}

// appendSelf appends the file to itself, at most limit bytes.
func appendSelf(name string, to *os.File, sum hash.Hash, limit int64) (int64, error) {
	from, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = from.Close() }()
	st, err := from.Stat()
	if err != nil {
		return 0, err
	}
	return io.CopyN(io.MultiWriter(to, sum), from, min(st.Size(), limit))
}

// check compares what came with what was put.
func (c *corpus) check(t *testing.T, how, name string, r io.Reader) {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatalf("%s: %s: %v", how, name, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != c.sums[name] {
		t.Fatalf("%s: %s: SHA-256 %s, want %s", how, name, got, c.sums[name])
	}
}

// cliDoor is the program's own commands: folders by -r.
type cliDoor struct{ m meshUnderTest }

func (d cliDoor) put(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	folder := t.TempDir()
	for _, name := range names {
		to := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(c.root, filepath.FromSlash(name)), to); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, d.m.env(node), "put", "-r", folder+"/.", "real")
}

func (d cliDoor) get(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	folder := t.TempDir()
	mustRun(t, d.m.env(node), "get", "-r", "real", folder)
	for _, name := range names {
		f, err := os.Open(filepath.Join(folder, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		c.check(t, fmt.Sprintf("cli through node %d", node), name, f)
		_ = f.Close()
	}
}

// dataDoor is plain HTTP, as curl speaks it.
type dataDoor struct{ m meshUnderTest }

func (d dataDoor) url(node int, name string) string { return d.at(node, "real", name) }

func (d dataDoor) at(node int, bucket, key string) string {
	u := url.URL{Scheme: "http", Host: d.m.http(node), Path: "/data/" + bucket + "/" + key}
	return u.String()
}

func (d dataDoor) do(t *testing.T, method, url string, body *os.File) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		st, err := body.Stat()
		if err != nil {
			t.Fatal(err)
		}
		req.Body, req.ContentLength = body, st.Size()
	}
	req.Header.Set("Authorization", "Bearer "+d.m.key)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (d dataDoor) put(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	for _, name := range names {
		f, err := os.Open(filepath.Join(c.root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		resp := d.do(t, http.MethodPut, d.url(node, name), f)
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
			t.Fatalf("PUT %s: %s: %s", name, resp.Status, body)
		}
	}
}

func (d dataDoor) get(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	for _, name := range names {
		resp := d.do(t, http.MethodGet, d.url(node, name), nil)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s", name, resp.Status)
		}
		c.check(t, fmt.Sprintf("/data through node %d", node), name, resp.Body)
		_ = resp.Body.Close()
	}
}

// grpcDoor is a gRPC client made from the published proto files.
type grpcDoor struct{ m meshUnderTest }

func (d grpcDoor) dial(t *testing.T, node int) (gridloomv1.ObjectServiceClient, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(d.m.grpc(node), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return gridloomv1.NewObjectServiceClient(conn),
		metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+d.m.key)
}

func (d grpcDoor) put(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	client, ctx := d.dial(t, node)
	for _, name := range names {
		if err := grpcPut(ctx, client, filepath.Join(c.root, filepath.FromSlash(name)), name); err != nil {
			t.Fatalf("PutObject %s: %v", name, err)
		}
	}
}

func grpcPut(ctx context.Context, client gridloomv1.ObjectServiceClient, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	stream, err := client.PutObject(ctx)
	if err != nil {
		return err
	}
	send := func(m *gridloomv1.PutObjectRequest) error { return stream.Send(m) }
	header := &gridloomv1.PutObjectHeader{Bucket: "real", Key: name}
	if err := send(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Header{Header: header}}); err != nil {
		return err
	}
	h, buf := sha256.New(), make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			h.Write(buf[:n])
			if err := send(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Chunk{Chunk: buf[:n]}}); err != nil {
				break // CloseAndRecv has the reason
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	trailer := &gridloomv1.PutObjectTrailer{Checksums: []*gridloomv1.Checksum{{
		Algorithm: gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: h.Sum(nil),
	}}}
	_ = send(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Trailer{Trailer: trailer}})
	_, err = stream.CloseAndRecv()
	return err
}

func (d grpcDoor) get(t *testing.T, node int, c *corpus, names []string) {
	t.Helper()
	client, ctx := d.dial(t, node)
	for _, name := range names {
		stream, err := client.GetObject(ctx, &gridloomv1.GetObjectRequest{Bucket: "real", Key: name, ContentInHeader: true})
		if err != nil {
			t.Fatal(err)
		}
		c.check(t, fmt.Sprintf("gRPC through node %d", node), name, &chunks{stream: stream})
	}
}

// chunks reads a download's bytes.
type chunks struct {
	stream grpc.ServerStreamingClient[gridloomv1.GetObjectResponse]
	rest   []byte
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		m, err := c.stream.Recv()
		if err != nil {
			return 0, err
		}
		c.rest = append(m.GetHeader().GetContent(), m.GetChunk()...) // one of them is empty
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
