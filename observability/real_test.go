//go:build real

//real:needs promtool

package observability

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// promtool checks text, but for an official name of OpenTelemetry's that it
// doesn't like: go_goroutine_count.
func promtool(t *testing.T, text string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: it is in Debian's package prometheus", err)
	}
	check := exec.CommandContext(t.Context(), path, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	output, err := check.CombinedOutput()
	allowed := 0
	for line := range bytes.Lines(output) {
		if bytes.HasPrefix(line, []byte("go_goroutine_count ")) {
			allowed++
		} else {
			t.Errorf("promtool: %s", line)
		}
	}
	if err != nil && allowed == 0 {
		t.Error(err)
	}
}

func TestPromtool(t *testing.T) {
	var b strings.Builder
	if err := WriteResources(&b, nil, []*Resources{exampleResources("a"), Down("b", nil), exampleResources("c")}); err != nil {
		t.Fatal(err)
	}
	promtool(t, b.String())

	tel := newTelemetry(t, Options{Node: "n1", Version: "1", OTLP: pushed(GRPC, "http://127.0.0.1:1"), Logs: NewLogs(slog.DiscardHandler)})
	if err := publish(exampleResources("n1")).Register(tel.Meter()); err != nil {
		t.Fatal(err)
	}
	tel.Requests().HTTP(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	promtool(t, scrape(t, tel, ""))
}
