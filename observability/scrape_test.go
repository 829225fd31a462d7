package observability

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// stuckReader is a reader's end that takes nothing before it is let go.
type stuckReader struct {
	*httptest.ResponseRecorder
	reached chan<- struct{}
	let     <-chan struct{}
}

func (r *stuckReader) Write(p []byte) (int, error) {
	r.reached <- struct{}{}
	<-r.let
	return r.ResponseRecorder.Write(p)
}

// TestSlowScrapers: who reads slowly, or not at all, keeps nobody else from a
// scrape, up to a bound.
func TestSlowScrapers(t *testing.T) {
	tel := newTelemetry(t, Options{Node: "n1"})
	want := scrape(t, tel, "")
	reached, let := make(chan struct{}), make(chan struct{})
	stuck := make([]*stuckReader, maxAnswers-1)
	var wg sync.WaitGroup
	ask := func(w http.ResponseWriter) {
		tel.MetricsHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	}
	for i := range stuck {
		stuck[i] = &stuckReader{httptest.NewRecorder(), reached, let}
		wg.Go(func() { ask(stuck[i]) })
		<-reached
	}
	if n := len(tel.scrapes.making); n != 0 {
		t.Errorf("%d scrapes are being made, and all are on their way", n)
	}
	if got := scrape(t, tel, ""); strings.Count(got, "\n# TYPE") != strings.Count(want, "\n# TYPE") {
		t.Errorf("the scrape beside them is\n%s", got)
	}
	last := &stuckReader{httptest.NewRecorder(), reached, let}
	wg.Go(func() { ask(last) })
	<-reached
	refused := httptest.NewRecorder()
	ask(refused)
	if refused.Code != http.StatusServiceUnavailable || refused.Header().Get("Retry-After") == "" || !strings.Contains(refused.Body.String(), strconv.Itoa(maxAnswers)) {
		t.Errorf("one more: %d %v %s", refused.Code, refused.Header(), refused.Body)
	}
	close(let)
	wg.Wait()
	for _, r := range append(stuck, last) {
		if r.Code != 200 || r.Header().Get("Content-Length") != fmt.Sprint(r.Body.Len()) || !strings.Contains(r.Body.String(), "target_info{") {
			t.Fatalf("%d, %v, %d bytes", r.Code, r.Header(), r.Body.Len())
		}
	}
	scrape(t, tel, "") // the places are free again
}

// TestManyScrapes: no more than maxScrapes are made at once, whatever becomes of them.
func TestManyScrapes(t *testing.T) {
	s := &scrapes{making: make(chan struct{}, maxScrapes), answers: make(chan struct{}, maxAnswers)}
	reached, let := make(chan struct{}), make(chan struct{})
	slow := s.bounded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-let
	}))
	ask := func(h http.Handler) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		return w.Code
	}
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() { ask(slow) })
		<-reached
	}
	if code := ask(slow); code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	close(let)
	wg.Wait()
	func() {
		defer func() { _ = recover() }()
		ask(s.bounded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken") })))
	}()
	if len(s.making)+len(s.answers) > 0 {
		t.Errorf("%d and %d places are taken for good", len(s.making), len(s.answers))
	}
}

// TestLongScrape: what is too long to be kept comes whole as well.
func TestLongScrape(t *testing.T) {
	s := &scrapes{making: make(chan struct{}, 1), answers: make(chan struct{}, 1)}
	line := bytes.Repeat([]byte("x"), 1<<20)
	for _, lines := range []int{0, 1, 4, 5, 9} {
		handler := s.bounded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("A", "b")
			w.WriteHeader(http.StatusTeapot)
			for range lines {
				if n, err := w.Write(line); n != len(line) || err != nil {
					t.Error(n, err)
				}
			}
		}))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		whole := w.Header().Get("Content-Length") != ""
		if w.Code != http.StatusTeapot || w.Header().Get("A") != "b" || !bytes.Equal(w.Body.Bytes(), bytes.Repeat(line, lines)) || whole != (lines*len(line) <= maxHeld) {
			t.Errorf("%d lines: %d, %v, %d bytes", lines, w.Code, w.Header(), w.Body.Len())
		}
	}
}
