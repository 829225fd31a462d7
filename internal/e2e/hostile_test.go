package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// What hostile clients may cost.
const (
	cutWithin     = 10 * time.Second // until they are refused or cut
	hostileMemory = 512 << 20        // of the process, at its most
	honestShare   = 0.95             // of the honest clients' requests that are served
)

// besieged is a node of its own process, built as its users have it, with
// honest clients that go on all the time.
type besieged struct {
	*fleet
	key        string
	goroutines int // before anything hostile came

	stop   context.CancelFunc
	honest sync.WaitGroup
	asked  atomic.Int64
	served atomic.Int64
	failed atomic.Pointer[error] // the last that wasn't served
}

// plainBuild builds the program, once, without the race detector, which would be
// what is measured.
func plainBuild(t *testing.T) string {
	t.Helper()
	if !raceEnabled {
		return binary
	}
	program := filepath.Join(filepath.Dir(binary), "plain", filepath.Base(binary))
	if _, err := os.Stat(program); err == nil {
		return program
	}
	build := exec.Command("go", "build", "-o", program, "github.com/gridloom/gridloom/cmd/gridloom")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return program
}

// hasty has a node cut sooner than by default, which is tested with make soak.
var hasty = []string{"--limit-header-timeout", "3s"}

// besiege starts a node, with more arguments, and its honest clients.
func besiege(t *testing.T, more ...string) *besieged {
	t.Helper()
	b := &besieged{fleet: newFleet(t, 1)}
	b.key = b.fleet.key
	b.program, b.more = plainBuild(t), more
	b.startAll(t)
	mustRun(t, b.env(1), "mb", "siege")
	if status, body := b.request(t.Context(), http.DefaultTransport, http.MethodPut, "/data/siege/honest", "honest"); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	b.goroutines = b.goroutinesNow(t)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	for range 2 {
		b.honest.Go(func() { b.askHTTP(ctx, true) })
		b.honest.Go(func() { b.askHTTP(ctx, false) })
		b.honest.Go(func() { b.askGRPC(ctx) })
	}
	t.Cleanup(func() { b.stop(); b.honest.Wait() })
	return b
}

// request makes a request as root; status 0 is an error.
func (b *besieged) request(ctx context.Context, transport http.RoundTripper, method, path, body string) (status int, text string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.http(1)+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+b.key)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(all)
}

// ask calls once after the other until ctx ends, and notes what came of it.
func (b *besieged) ask(ctx context.Context, once func(context.Context) error) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := once(ctx)
		if ctx.Err() != nil {
			return
		}
		b.asked.Add(1)
		if err == nil {
			b.served.Add(1)
		} else {
			b.failed.Store(&err)
		}
	}
}

func (b *besieged) askHTTP(ctx context.Context, fresh bool) {
	transport := &http.Transport{DisableKeepAlives: fresh}
	defer transport.CloseIdleConnections()
	b.ask(ctx, func(ctx context.Context) error {
		status, text := b.request(ctx, transport, http.MethodGet, "/data/siege/honest", "")
		if status != http.StatusOK || text != "honest" {
			return fmt.Errorf("status %d: %s", status, text)
		}
		return nil
	})
}

func (b *besieged) askGRPC(ctx context.Context) {
	conn, err := grpc.NewClient(b.grpc(1), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err) // the address is ours
	}
	defer func() { _ = conn.Close() }()
	objects := pb.NewObjectServiceClient(conn)
	b.ask(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+b.key), 5*time.Second)
		defer cancel()
		_, err := objects.StatObject(ctx, &pb.StatObjectRequest{Bucket: "siege", Key: "honest"})
		return err
	})
}

var goroutineCount = regexp.MustCompile(`(?m)^go_goroutine_count\S* (\d+)`)

// goroutinesNow is how many the node says it has.
func (b *besieged) goroutinesNow(t *testing.T) int {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	status, text := b.request(context.Background(), transport, http.MethodGet, "/metrics", "")
	m := goroutineCount.FindStringSubmatch(text)
	if status != http.StatusOK || m == nil {
		t.Fatalf("/metrics: status %d, no goroutine count:\n%.400s", status, text)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// limited is how often the node says that a limit was met.
func (b *besieged) limited(t *testing.T, listener, limit string) int {
	t.Helper()
	_, text := b.request(context.Background(), &http.Transport{DisableKeepAlives: true}, http.MethodGet, "/metrics", "")
	m := regexp.MustCompile(`(?m)^gridloom_limited_total\{.*limit="` + limit + `".*listener="` + listener + `".*\} (\d+)`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// lifted ends the siege: the honest were served, the memory is bounded, and
// nothing is left of what came.
func (b *besieged) lifted(t *testing.T) {
	t.Helper()
	b.stop()
	b.honest.Wait()
	asked, served := b.asked.Load(), b.served.Load()
	if asked == 0 || float64(served) < honestShare*float64(asked) {
		last := error(nil)
		if err := b.failed.Load(); err != nil {
			last = *err
		}
		t.Errorf("%d of %d honest requests were served; the last that wasn't: %v", served, asked, last)
	}
	memory := int64(0)
	if runtime.GOOS == "linux" {
		if memory = peakMemory(t, b.running[0].cmd.Process.Pid); memory > hostileMemory {
			t.Errorf("the process had %d MiB at its most, want %d", memory>>20, hostileMemory>>20)
		}
	}
	// Some are the node's own and come and go.
	const slack = 12
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for deadline := time.Now().Add(15 * time.Second); ; <-tick.C {
		if n = b.goroutinesNow(t); n <= b.goroutines+slack {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines are left, there were %d", n, b.goroutines)
			break
		}
	}
	t.Logf("honest: %d of %d served; memory at its most %d MiB; goroutines %d, before %d", served, asked, memory>>20, n, b.goroutines)
}

// peakMemory is the most that the process had resident.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// dialRaw opens a connection that ends with the test, or at the latest when it
// should long have been cut.
func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(cutWithin + 5*time.Second))
	return conn
}

// toEnd reads until the node ends the connection, and says what came and how
// long that took.
func toEnd(conn net.Conn) (got []byte, took time.Duration, cut bool) {
	begin := time.Now()
	got, err := io.ReadAll(conn)
	var timeout interface{ Timeout() bool }
	if ne, ok := err.(net.Error); ok {
		timeout = ne
	}
	return got, time.Since(begin), err == nil || timeout == nil || !timeout.Timeout()
}

// statuses are those of the HTTP/1 responses in what came, which may have been
// cut off within the last.
func statuses(got []byte) (list []int, err error) {
	for r := bufio.NewReader(bytes.NewReader(got)); ; {
		if _, err := r.Peek(1); err == io.EOF {
			return list, nil
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return list, err
		}
		list = append(list, resp.StatusCode)
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return list, err
		}
	}
}
