//go:build soak

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// What many transfers at once may have resident at the most. What is under way
// doesn't depend on how much is to follow: the peak of 64 downloads of 1 GiB and
// of 64 uploads of 128 MiB is that of their first seconds.
const (
	transfersAtOnce = 64
	downloadsMemory = 128 << 20
	uploadsMemory   = 256 << 20

	downloadBytes = 128 << 20
	uploadBytes   = 32 << 20
)

// TestSoakMemory: 64 downloads at once, each of a connection of its own, and then
// 64 uploads, through either door, with and without TLS. Either is the node's
// first work since its start.
func TestSoakMemory(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, door := range []string{"http", "grpc"} {
			t.Run(fmt.Sprintf("%s/tls=%v", door, secure), func(t *testing.T) {
				m := newMemoryTest(t, secure)
				transfer := m.http
				if door == "grpc" {
					transfer = m.grpc
				}
				if err := m.http(t.Context(), "object", downloadBytes, true); err != nil {
					t.Fatal(err)
				}
				m.check(t, "downloads", downloadsMemory, func(ctx context.Context, _ int) error {
					return transfer(ctx, "object", downloadBytes, false)
				})
				m.check(t, "uploads", uploadsMemory, func(ctx context.Context, i int) error {
					return transfer(ctx, fmt.Sprint("upload-", i), uploadBytes, true)
				})
			})
		}
	}
}

// memoryTest is a node, as its users have it, and its clients.
type memoryTest struct {
	*fleet
	tls *tls.Config // nil: plaintext
}

func newMemoryTest(t *testing.T, secure bool) *memoryTest {
	t.Helper()
	m := &memoryTest{fleet: newFleet(t, 1)}
	m.program = plainBuild(t)
	if secure {
		m.more = []string{"--tls", "auto"}
		m.urls[0] = "https://" + m.peerAddr(1)
	}
	m.restart(t)
	var env []string
	if secure {
		ca := m.authorities(t)
		m.write(t, "ca.pem", string(ca))
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		m.tls = &tls.Config{RootCAs: pool}
		env = []string{"GRIDLOOM_CA=" + m.dir + "/ca.pem"}
	}
	mustRun(t, append(env, m.env(1)...), "mb", "memory")
	return m
}

func (m *memoryTest) restart(t *testing.T) {
	t.Helper()
	if m.running[0] != nil {
		m.stop(t, 1)
	}
	m.start(t, 1)
	if m.more == nil {
		m.waitReady(t)
	} else {
		m.waitSecure(t, m.authorities(t))
	}
}

// check restarts the node, and makes many transfers at once.
func (m *memoryTest) check(t *testing.T, what string, most int64, transfer func(ctx context.Context, i int) error) {
	t.Helper()
	m.restart(t)
	pid := m.running[0].cmd.Process.Pid
	before := peakMemory(t, pid)
	all, ctx := errgroup.WithContext(t.Context())
	for i := range transfersAtOnce {
		all.Go(func() error { return transfer(ctx, i) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	peak := peakMemory(t, pid)
	t.Logf("%d %s: %d MiB at the most, %d before", transfersAtOnce, what, peak>>20, before>>20)
	if peak > most {
		t.Errorf("%d %s at once had %d MiB resident, want %d at most", transfersAtOnce, what, peak>>20, most>>20)
	}
}

// http puts or gets an object of n bytes through /data.
func (m *memoryTest) http(ctx context.Context, key string, n int64, put bool) error {
	scheme := "http"
	if m.tls != nil {
		scheme = "https"
	}
	method, body := http.MethodGet, io.Reader(nil)
	if put {
		method, body = http.MethodPut, io.LimitReader(zeros{}, n)
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s://%s/data/memory/%s", scheme, m.meshUnderTest.http(1), key), body)
	if err != nil {
		return err
	}
	if put {
		req.ContentLength = n
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	tr := &http.Transport{TLSClientConfig: m.tls, DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode/100 != 2 || !put && got != n) {
		err = fmt.Errorf("%s %s: %s, %d bytes", method, key, resp.Status, got)
	}
	return err
}

// grpc puts or gets an object of n bytes.
func (m *memoryTest) grpc(ctx context.Context, key string, n int64, put bool) error {
	creds := insecure.NewCredentials()
	if m.tls != nil {
		creds = credentials.NewTLS(m.tls)
	}
	conn, err := grpc.NewClient(m.meshUnderTest.grpc(1), grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewObjectServiceClient(conn)
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+m.key)
	if put {
		return putZeros(ctx, client, key, n)
	}
	stream, err := client.GetObject(ctx, &pb.GetObjectRequest{Bucket: "memory", Key: key})
	if err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, &chunks{stream: stream})
	if err == nil && got != n {
		err = fmt.Errorf("%d bytes came", got)
	}
	return err
}

// putZeros puts zeros in chunks of 1 MiB.
func putZeros(ctx context.Context, client pb.ObjectServiceClient, key string, n int64) error {
	stream, err := client.PutObject(ctx)
	if err != nil {
		return err
	}
	header := &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "memory", Key: key, Size: &n}}
	err = stream.Send(&pb.PutObjectRequest{Part: header})
	part := &pb.PutObjectRequest_Chunk{}
	buf := make([]byte, 1<<20)
	for left := n; left > 0 && err == nil; left -= int64(len(part.Chunk)) {
		part.Chunk = buf[:min(left, int64(len(buf)))]
		err = stream.Send(&pb.PutObjectRequest{Part: part})
	}
	if err == nil {
		err = stream.Send(&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Trailer{Trailer: &pb.PutObjectTrailer{}}})
	}
	if err != nil && err != io.EOF {
		return err
	}
	_, err = stream.CloseAndRecv() // has the reason, if the node has refused
	return err
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
