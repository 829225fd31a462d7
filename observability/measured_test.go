package observability

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sink is a ResponseWriter that has ReadFrom, as net/http's, and does nothing.
type sink struct {
	header http.Header
	n      int64
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { s.n += int64(len(p)); return len(p), nil }
func (s *sink) ReadFrom(src io.Reader) (int64, error) {
	n := src.(*io.LimitedReader).N
	s.n += n
	return n, nil
}

// file gives a handler that answers as the door does for a file: in windows, the
// first a short one.
func file() http.Handler {
	window := new(io.LimitedReader)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetAPI(r.Context(), "GetObject")
		w.WriteHeader(http.StatusOK)
		for _, n := range []int64{64 << 10, 4 << 20} {
			window.N = n
			_, _ = w.(io.ReaderFrom).ReadFrom(window)
		}
	})
}

// TestMeasuringAllocatesNothing: a GET that leaves by sendfile, over a connection
// of HTTP/1, has no allocation for being measured.
func TestMeasuringAllocatesNothing(t *testing.T) {
	tel := newTelemetry(t, Options{Node: "n1"})
	h := tel.Requests().HTTP(file())
	r := httptest.NewRequestWithContext(ConnContext(t.Context()), http.MethodGet, "/data/b/k", nil)
	w := &sink{header: http.Header{}}
	const runs = 200
	if n := testing.AllocsPerRun(runs, func() { h.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if want := int64((runs + 1) * (64<<10 + 4<<20)); w.n != want {
		t.Errorf("%d bytes were sent, want %d", w.n, want)
	}
	text := scrape(t, tel, "")
	for _, want := range []string{
		`gridloom_request_ttfb_seconds_count{api="GetObject",class="2xx",node="n1",proto="http"} 201`,
		`gridloom_request_duration_seconds_count{api="GetObject",class="2xx",node="n1",proto="http"} 201`,
		`gridloom_request_in_flight{node="n1",proto="http"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func BenchmarkMeasured(b *testing.B) {
	tel, err := New(b.Context(), Options{Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	h := tel.Requests().HTTP(file())
	r := httptest.NewRequestWithContext(ConnContext(b.Context()), http.MethodGet, "/data/b/k", nil)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// teller is a ResponseWriter that tells of its first bytes, and waits for the client
// before it takes the others.
type teller struct{ *httptest.ResponseRecorder }

func (w *teller) ReadFrom(src io.Reader) (int64, error) { return io.Copy(w.ResponseRecorder, src) }

func (w *teller) OnFirst(f interface{ FirstSent() }) {
	time.Sleep(10 * time.Millisecond)
	f.FirstSent()
	time.Sleep(200 * time.Millisecond)
}

// TestFirstByteIsTold: of a long body that leaves in one window the first bytes count
// when they leave, and once.
func TestFirstByteIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		h := p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			SetAPI(r.Context(), "GetObject")
			for range 2 {
				if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello")); n != 5 || err != nil {
					t.Error(n, err)
				}
			}
		}))
		h.ServeHTTP(&teller{httptest.NewRecorder()}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		if at := p.points(t, "gridloom.request.ttfb")["GetObject http 2xx"]; at.count != 1 || at.sum != 0.01 {
			t.Errorf("%+v, want one of 10 ms", at)
		}
	})
}
