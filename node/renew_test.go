package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/certs"
)

// TestExpiryIsLogged: once a day from seven days before, and not sooner.
func TestExpiryIsLogged(t *testing.T) {
	var out bytes.Buffer
	n := &Node{log: slog.New(slog.NewTextHandler(&out, nil)), warned: map[string]time.Time{}}
	now := time.Now()
	c := listenerCertificate{"http", certs.Info{Names: []string{"storage.example"}, Issuer: "x", NotAfter: now.Add(10 * 24 * time.Hour), Fingerprint: "1"}}
	for range 11 * 24 * 60 {
		n.warn(c, now)
		now = now.Add(time.Minute)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 8 {
		t.Errorf("%d lines in the week before and a day after:\n%s", len(lines), out.String())
	}
	if !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "7.0 days") || !strings.Contains(lines[0], "storage.example") || !strings.Contains(lines[len(lines)-1], "has expired") {
		t.Errorf("logged\n%s\nand\n%s", lines[0], lines[len(lines)-1])
	}
	c.Fingerprint, c.NotAfter = "2", now.Add(30*24*time.Hour)
	n.warn(c, now)
	if strings.Count(out.String(), "\n") != 8 {
		t.Error("a certificate that is good is warned of")
	}
}

func TestGridHost(t *testing.T) {
	for base, want := range map[string]string{
		"http://10.0.0.1:7402":   "http://10.0.0.1:7402",
		"HTTPS://A.Example/":     "https://a.example:443",
		"http://a.example":       "http://a.example:80",
		"https://[::1]:7402/":    "https://[::1]:7402",
		"https://A.example:7402": "https://a.example:7402",
	} {
		if got := gridHost(base); got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
}
