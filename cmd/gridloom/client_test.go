package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// liar is a node that does what no node should. The client has to notice, and
// leave nothing behind; the scripts test it against nodes that are sound.
type liar struct {
	gridloomv1.UnimplementedObjectServiceServer
	get  func(*gridloomv1.GetObjectRequest, grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error
	put  func(grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error
	list func(*gridloomv1.ListObjectsRequest) *gridloomv1.ListObjectsResponse
	del  func(*gridloomv1.DeleteObjectsRequest) *gridloomv1.DeleteObjectsResponse
}

func (l *liar) GetObject(req *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
	return l.get(req, s)
}

func (l *liar) PutObject(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
	return l.put(s)
}

func (l *liar) ListObjects(_ context.Context, req *gridloomv1.ListObjectsRequest) (*gridloomv1.ListObjectsResponse, error) {
	return l.list(req), nil
}

func (l *liar) DeleteObjects(_ context.Context, req *gridloomv1.DeleteObjectsRequest) (*gridloomv1.DeleteObjectsResponse, error) {
	return l.del(req), nil
}

// listen serves the liar and returns the variables for a client of it.
func (l *liar) listen(t *testing.T) []string {
	t.Helper()
	s := grpc.NewServer()
	gridloomv1.RegisterObjectServiceServer(s, l)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return []string{"GRIDLOOM_ENDPOINT=" + ln.Addr().String(), "GRIDLOOM_KEY=" + testKey}
}

// sendObject sends a header that announces content, and then chunks.
func sendObject(s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse], content string, chunks ...string) error {
	sum := sha256.Sum256([]byte(content))
	o := &gridloomv1.Object{
		Bucket: "b", Key: "k", Size: int64(len(content)),
		Checksums: []*gridloomv1.Checksum{{Algorithm: gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: sum[:]}},
	}
	header := &gridloomv1.GetObjectHeader{Object: o, Length: o.Size}
	if err := s.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Header{Header: header}}); err != nil {
		return err
	}
	for _, c := range chunks {
		if err := s.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Chunk{Chunk: []byte(c)}}); err != nil {
			return err
		}
	}
	return nil
}

// What a get refuses leaves the file as it was, and nothing beside it.
func TestGetRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		chunks []string
		err    error
		want   string
	}{
		{"other bytes", []string{"hellx"}, nil, "checksum mismatch"},
		{"too few", []string{"hell"}, nil, "the node stopped after 4 of 5 bytes"},
		{"too many", []string{"hello", "!"}, nil, "more than the 5 bytes it announced"},
		{"an error in the middle", []string{"he"}, status.Error(codes.DataLoss, "drive 7 burns"), "drive 7 burns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &liar{get: func(_ *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
				if err := sendObject(s, "hello", c.chunks...); err != nil {
					return err
				}
				return c.err
			}}
			env, dir := l.listen(t), t.TempDir()
			name := filepath.Join(dir, "k")
			writeFile(t, name, "as it was")
			r := try(t, env, "", "get", "b/k", dir)
			if r.code != exitFailed || !strings.Contains(r.errOut, "gridloom get: ") || !strings.Contains(r.errOut, c.want) || r.out != "" {
				t.Errorf("%+v; want %q", r, c.want)
			}
			if left := files(t, dir); left != name+" as it was\n" {
				t.Errorf("it left\n%s", left)
			}
			if r := try(t, env, "", "get", "b/k", "-"); r.code != exitFailed {
				t.Errorf("to standard output: %+v", r)
			}
		})
	}
}

// A node that goes silent is given up on, and Ctrl-C is obeyed at once: in the
// middle of a get or a put, both leave nothing.
func TestTransferThatStops(t *testing.T) {
	begun := make(chan struct{}, 1)
	l := &liar{
		get: func(_ *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
			if err := sendObject(s, "hello", "he"); err != nil {
				return err
			}
			begun <- struct{}{}
			<-s.Context().Done()
			return s.Context().Err()
		},
		put: func(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
			for {
				msg, err := s.Recv()
				if err != nil || msg.GetTrailer() != nil {
					begun <- struct{}{}
					<-s.Context().Done()
					return s.Context().Err()
				}
			}
		},
	}
	env, dir := l.listen(t), t.TempDir()
	source := filepath.Join(t.TempDir(), "source")
	writeFile(t, source, "hello")
	for _, args := range []string{"get b/k " + dir, "put " + source + " b/k"} {
		r := try(t, env, "", append(strings.Fields(args), "--timeout", "50ms")...)
		if r.code != exitFailed || !strings.Contains(r.errOut, "no progress for 50ms") {
			t.Errorf("%s: %+v", args, r)
		}
		<-begun
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-begun
			cancel()
		}()
		var out, errOut bytes.Buffer
		code := run(ctx, strings.Fields(args), strings.NewReader(""), &out, &errOut, env)
		if verb, _, _ := strings.Cut(args, " "); code != exitFailed || errOut.String() != "gridloom "+verb+": interrupted\n" {
			t.Errorf("%s interrupted: exit code %d: %s", verb, code, errOut.String())
		}
	}
	if left := files(t, dir); left != "" {
		t.Errorf("left\n%s", left)
	}
}

// Keys that lead out of the folder, or nowhere, are refused one by one.
func TestGetBelowStaysInFolder(t *testing.T) {
	bad := []string{"p/../../x", "p/..", "p//x", "p/./x", "p/", "p//etc/x", "p/a/../../../x", "p/nul\x00", "p/."}
	l := &liar{
		list: func(*gridloomv1.ListObjectsRequest) *gridloomv1.ListObjectsResponse {
			page := &gridloomv1.ListObjectsResponse{Objects: []*gridloomv1.Object{{Key: "p/good"}}}
			for _, key := range bad {
				page.Objects = append(page.Objects, &gridloomv1.Object{Key: key})
			}
			return page
		},
		get: func(_ *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
			return sendObject(s, "x", "x")
		},
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "a", "b")
	r := try(t, l.listen(t), "", "get", "-r", "b/p", dir)
	if r.code != exitFailed || strings.Count(r.errOut, "not fetched") != len(bad) {
		t.Errorf("exit code %d, want %d refused:\n%s", r.code, len(bad), r.errOut)
	}
	if got, want := files(t, parent), filepath.Join(dir, "good")+" x\n"; got != want {
		t.Errorf("it wrote\n%swant\n%s", got, want)
	}
}

// readerFunc is a reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A put whose source fails is cut off before its trailer.
func TestPutCutOff(t *testing.T) {
	begun, trailers := make(chan struct{}), make(chan bool, 1)
	l := &liar{put: func(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
		close(begun)
		for {
			msg, err := s.Recv()
			if err != nil || msg.GetTrailer() != nil {
				trailers <- msg.GetTrailer() != nil
				return err
			}
		}
	}}
	env := l.listen(t)
	var out, errOut bytes.Buffer
	// The tape tears when the node knows of the put: it never would of one that
	// was cut off before.
	from := io.MultiReader(strings.NewReader("some"), readerFunc(func([]byte) (int, error) {
		<-begun
		return 0, errors.New("the tape tore")
	}))
	code := run(t.Context(), []string{"put", "-", "b/k"}, from, &out, &errOut, env)
	if code != exitFailed || !strings.Contains(errOut.String(), "gridloom put: -: the tape tore") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
	if <-trailers {
		t.Error("there was a trailer")
	}
}

// A node that refuses a put is heard at once, also while standard input has
// nothing to say.
func TestPutRefusedWhileWaiting(t *testing.T) {
	l := &liar{put: func(grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
		return status.Error(codes.NotFound, "bucket b: there is none")
	}}
	env := l.listen(t)
	silent, w := io.Pipe()
	defer w.Close()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"put", "-", "b/k"}, silent, &out, &errOut, env); code != exitNotFound || !strings.Contains(errOut.String(), "there is none") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
}

// What is sent is what the protocol says: a header with the size, chunks, a
// trailer with the sums; and the key goes with the call.
func TestPutStream(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // four chunks
	var (
		header  *gridloomv1.PutObjectHeader
		trailer *gridloomv1.PutObjectTrailer
		got     []byte
		auth    []string
	)
	l := &liar{put: func(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		auth = md.Get("authorization")
		for trailer == nil {
			msg, err := s.Recv()
			if err != nil {
				return err
			}
			if h := msg.GetHeader(); h != nil {
				header = h
			}
			got = append(got, msg.GetChunk()...)
			trailer = msg.GetTrailer()
		}
		return s.SendAndClose(&gridloomv1.PutObjectResponse{Object: &gridloomv1.Object{Bucket: "b", Key: "k.txt", Size: int64(len(got))}})
	}}
	name := filepath.Join(t.TempDir(), "k.txt")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := try(t, l.listen(t), "", "put", name, "b", "--meta", "a=b"); r.code != exitDone {
		t.Fatalf("%+v", r)
	}
	if header.GetSize() != int64(len(content)) || header.GetBucket() != "b" || header.GetKey() != "k.txt" ||
		!strings.HasPrefix(header.GetContentType(), "text/plain") || header.GetMetadata()["a"] != "b" {
		t.Errorf("header %v", header)
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes came, or others; want the %d of the file", len(got), len(content))
	}
	sum := sha256.Sum256(content)
	if sums := trailer.GetChecksums(); len(sums) != 2 || !bytes.Equal(sums[0].GetValue(), sum[:]) || len(sums[1].GetValue()) != 8 {
		t.Errorf("trailer %v", trailer)
	}
	if want := "Bearer " + testKey; len(auth) != 1 || auth[0] != want {
		t.Errorf("%d authorizations, or another", len(auth))
	}
}

// A small file goes in the header, sums and all, and nothing behind it.
func TestPutSmall(t *testing.T) {
	for _, size := range []int{0, 5, wholeBytes} {
		content := bytes.Repeat([]byte("s"), size)
		var messages []*gridloomv1.PutObjectRequest
		l := &liar{put: func(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
			for {
				msg, err := s.Recv()
				if errors.Is(err, io.EOF) {
					return s.SendAndClose(&gridloomv1.PutObjectResponse{Object: &gridloomv1.Object{Bucket: "b", Key: "k", Size: int64(size)}})
				}
				if err != nil {
					return err
				}
				messages = append(messages, msg)
			}
		}}
		name := filepath.Join(t.TempDir(), "k")
		writeFile(t, name, string(content))
		if r := try(t, l.listen(t), "", "put", name, "b"); r.code != exitDone {
			t.Fatalf("%+v", r)
		}
		if len(messages) != 1 {
			t.Fatalf("%d bytes went in %d messages", size, len(messages))
		}
		h, sum := messages[0].GetHeader(), sha256.Sum256(content)
		if h.Content == nil || !bytes.Equal(h.GetContent(), content) || h.GetSize() != int64(size) ||
			len(h.GetChecksums()) != 2 || !bytes.Equal(h.GetChecksums()[0].GetValue(), sum[:]) {
			t.Errorf("%d bytes: %d in the header, which says %d, with %d sums", size, len(h.GetContent()), h.GetSize(), len(h.GetChecksums()))
		}
	}
}

// What a header holds and what chunks hold is one object, in that order; more
// than was announced is refused in either.
func TestGetInHeader(t *testing.T) {
	sum := sha256.Sum256([]byte("hello"))
	o := &gridloomv1.Object{
		Bucket: "b", Key: "k", Size: 5,
		Checksums: []*gridloomv1.Checksum{{Algorithm: gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: sum[:]}},
	}
	for _, c := range []struct {
		content string
		chunks  []string
		code    int
	}{
		{"hello", nil, exitDone},
		{"he", []string{"l", "lo"}, exitDone},
		{"", []string{"hello"}, exitDone},
		{"hell", nil, exitFailed},
		{"hellx", nil, exitFailed},
		{"hello!", nil, exitFailed},
		{"hello", []string{"!"}, exitFailed},
		{"lo", []string{"hel"}, exitFailed},
	} {
		l := &liar{get: func(req *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
			if !req.GetContentInHeader() {
				return errors.New("content in the header isn't taken")
			}
			header := &gridloomv1.GetObjectHeader{Object: o, Length: o.Size, Content: []byte(c.content)}
			if err := s.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Header{Header: header}}); err != nil {
				return err
			}
			for _, chunk := range c.chunks {
				if err := s.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Chunk{Chunk: []byte(chunk)}}); err != nil {
					return err
				}
			}
			return nil
		}}
		env, dir := l.listen(t), t.TempDir()
		r := try(t, env, "", "get", "b/k", dir)
		want := filepath.Join(dir, "k") + " hello\n"
		if c.code != exitDone {
			want = ""
		}
		if r.code != c.code || files(t, dir) != want {
			t.Errorf("%q and %q: %+v, it left %q", c.content, c.chunks, r, files(t, dir))
		}
	}
}

// get --verify asks for verified bytes, and nothing else does; the same below a
// prefix.
func TestGetVerify(t *testing.T) {
	var asked []gridloomv1.Verify
	l := &liar{
		get: func(req *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
			asked = append(asked, req.GetVerify())
			return sendObject(s, "hello", "hello")
		},
		list: func(*gridloomv1.ListObjectsRequest) *gridloomv1.ListObjectsResponse {
			return &gridloomv1.ListObjectsResponse{Objects: []*gridloomv1.Object{{Bucket: "b", Key: "k", Size: 5}}}
		},
	}
	env := l.listen(t)
	for _, c := range []struct {
		args string
		want gridloomv1.Verify
	}{
		{"get b/k", gridloomv1.Verify_VERIFY_UNSPECIFIED}, {"get b/k --verify", gridloomv1.Verify_VERIFY_ALWAYS},
		{"get b/k --verify=false", gridloomv1.Verify_VERIFY_UNSPECIFIED}, {"get -r b --verify", gridloomv1.Verify_VERIFY_ALWAYS},
	} {
		asked = nil
		args := strings.Fields(c.args)
		r := try(t, env, "", append(args[:len(args):len(args)], t.TempDir())...)
		if r.code != exitDone || len(asked) != 1 || asked[0] != c.want {
			t.Errorf("%s: asked for %v, %+v", c.args, asked, r)
		}
	}
}

// A thousand keys go in one call, and no more.
func TestRemovePages(t *testing.T) {
	const objects = 2500
	var most, calls atomic.Int64
	l := &liar{
		list: func(req *gridloomv1.ListObjectsRequest) *gridloomv1.ListObjectsResponse {
			from, _ := strconv.Atoi(req.GetPageToken()) // "" is the first page
			page, to := &gridloomv1.ListObjectsResponse{}, min(from+int(req.GetPageSize()), objects)
			for i := from; i < to; i++ {
				page.Objects = append(page.Objects, &gridloomv1.Object{Key: strconv.Itoa(i)})
			}
			if to < objects {
				page.NextPageToken = strconv.Itoa(to)
			}
			return page
		},
		del: func(req *gridloomv1.DeleteObjectsRequest) *gridloomv1.DeleteObjectsResponse {
			calls.Add(1)
			most.Store(max(most.Load(), int64(len(req.GetKeys()))))
			return &gridloomv1.DeleteObjectsResponse{Deleted: req.GetKeys()}
		},
	}
	r := try(t, l.listen(t), "", "rm", "-r", "b")
	if removed := strings.Count(r.out, " removed\n"); r.code != exitDone || removed != objects || calls.Load() != 3 || most.Load() > 1000 {
		t.Errorf("exit code %d: %d removed in %d calls of up to %d", r.code, removed, calls.Load(), most.Load())
	}
}
