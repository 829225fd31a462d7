package door

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is a door on loopback, before the objects of a mesh of one node with
// one drive, where the bucket "photos" is.
type served struct {
	*httptest.Server
	objects *object.Service
	drive   string // its directory
	ages    *ageIndex
	conns   *watchedListener
	ended   chan string // method and path of each request, when it has ended
}

// serve starts a door. change may be nil.
func serve(t testing.TB, change func(*Options)) *served {
	t.Helper()
	s := &served{drive: t.TempDir(), ended: make(chan string, 100)}
	index, err := control.Open(t.Context(), control.Options{Dir: t.TempDir(), Self: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	if err := index.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	drive, err := dataio.Open(t.Context(), s.drive, dataio.Options{Deployment: index.Deployment(), Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = drive.Close() })
	join := &control.JoinNode{Node: "a", URL: "http://127.0.0.1:1", Drives: []string{drive.ID()}}
	if _, err := index.Propose(t.Context(), &control.Command{JoinNode: join}); err != nil {
		t.Fatal(err)
	}
	s.ages = &ageIndex{Index: index}
	s.objects, err = object.New(object.Options{
		Self: "a", Index: s.ages, Deployment: index.Deployment, Topology: index.Topology, Drives: []*dataio.Drive{drive},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.objects.Close() })
	if _, err := s.objects.CreateBucket(t.Context(), "photos"); err != nil {
		t.Fatal(err)
	}
	o := Options{Objects: s.objects}
	if change != nil {
		change(&o)
	}
	door := New(o)
	telemetry, err := observability.New(t.Context(), observability.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = telemetry.Shutdown(context.Background()) })
	// Measured as it is in a node: the wrapper must not be in the way. The node
	// has trailers shown that nobody has announced.
	measured := telemetry.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			select {
			case s.ended <- r.Method + " " + r.URL.Path:
			default:
			}
		}()
		switch as := r.Header.Get("As"); as {
		case "":
			r = r.WithContext(iam.WithPrincipal(r.Context(), iam.Principal{ID: "root", Root: true, Door: "http"}))
		case "stranger":
			r = r.WithContext(iam.WithPrincipal(r.Context(), iam.Principal{ID: as, Door: "http"}))
		}
		door.ServeHTTP(w, r)
	}))
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Trailer == nil {
			r.Trailer = http.Header{}
		}
		measured.ServeHTTP(w, r)
	}))
	s.conns = &watchedListener{Listener: s.Listener}
	s.Listener = s.conns
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// answer is a response, read to its end.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// do makes one request for /data/photos/ and key, as root unless the field As
// says "stranger", who may do nothing, or "nobody". header is pairs of names and
// values; an empty value is none.
func (s *served) do(t testing.TB, method, key string, body io.Reader, header ...string) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/data/photos/"+key, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			r.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a := &answer{Response: resp}
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// put stores data and fails unless the status is want.
func (s *served) put(t testing.TB, key, data string, want int, header ...string) *answer {
	t.Helper()
	a := s.do(t, "PUT", key, strings.NewReader(data), header...)
	if a.StatusCode != want {
		t.Fatalf("PUT %s: %s %s, want %d", key, a.Status, a.body, want)
	}
	return a
}

// raw sends text over a connection of its own and reads one answer, or what
// became of the connection.
func (s *served) raw(t testing.TB, method, text string) (*answer, error) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{Response: resp}
	a.body, a.err = io.ReadAll(resp.Body)
	return a, nil
}

// waitEnd waits for the end of a request's handler.
func (s *served) waitEnd(request string) {
	for <-s.ended != request {
	}
}

// payloads lists the payload files on the drive.
func (s *served) payloads(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.drive, "payload", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// payload is the only payload file on the drive.
func (s *served) payload(t testing.TB) string {
	t.Helper()
	files := s.payloads(t)
	if len(files) != 1 {
		t.Fatalf("payload files: %q", files)
	}
	return files[0]
}

// checkGone checks that a failed upload of key has left nothing: the drive has
// the payload files that it had before.
func (s *served) checkGone(t testing.TB, what, key string, before []string) {
	t.Helper()
	if a := s.do(t, "HEAD", key, nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("%s: HEAD: %s", what, a.Status)
	}
	if files := s.payloads(t); !slices.Equal(files, before) {
		t.Errorf("%s: on the drive are %q, before there were %q", what, files, before)
	}
}

// pattern is n bytes that differ from place to place.
func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return string(b)
}

// truncate cuts a file off.
func truncate(t testing.TB, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(fmt.Errorf("truncate: %w", err))
	}
}

// logBuffer is a log that a test reads while a server writes.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// watchedListener counts what its connections are given to send.
type watchedListener struct {
	net.Listener
	sending sync.RWMutex // held by who sends, so that who counts can wait

	byFile  atomic.Int64 // bytes that came as an *os.File
	written atomic.Int64 // bytes that came as bytes
	writes  atomic.Int64 // calls that brought them
}

// count gives what was sent since the last call.
func (l *watchedListener) count() (byFile, written, writes int64) {
	l.sending.Lock()
	defer l.sending.Unlock()
	return l.byFile.Swap(0), l.written.Swap(0), l.writes.Swap(0)
}

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{c.(*net.TCPConn), l}, nil
}

type watchedConn struct {
	*net.TCPConn
	l *watchedListener
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.l.sending.RLock()
	defer c.l.sending.RUnlock()
	n, err := c.TCPConn.Write(p)
	c.l.written.Add(int64(n))
	c.l.writes.Add(1)
	return n, err
}

func (c *watchedConn) ReadFrom(src io.Reader) (int64, error) {
	c.l.sending.RLock()
	defer c.l.sending.RUnlock()
	n, err := c.TCPConn.ReadFrom(src)
	if limited, ok := src.(*io.LimitedReader); ok {
		src = limited.R
	}
	if _, ok := src.(*os.File); ok {
		c.l.byFile.Add(n)
	} else {
		c.l.written.Add(n)
		c.l.writes.Add(1)
	}
	return n, err
}
