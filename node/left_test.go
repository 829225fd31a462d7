package node

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/audit"
)

// TestClientsThatLeave: whoever has seen enough of a download, or of a list, and
// goes, has canceled it, whichever way it was served and however the connection
// ended.
func TestClientsThatLeave(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Audit.Level, cfg.Audit.File = audit.All, filepath.Join(t.TempDir(), "audit.log")
	r := startNodes(t, []Config{cfg})[0]
	makeBucket(t, r, "films")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/films/a"), bytes.NewReader(randomBytes(30<<20)))
	leave := func(target, lines string, reset bool) {
		t.Helper()
		conn := dialListener(t, r.Addrs().HTTP).(*net.TCPConn)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n%s\r\n", target, testKey.String(), lines); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if reset {
			_ = conn.SetLinger(0)
		}
		_ = conn.Close()
	}
	want := 0
	for _, lines := range []string{"", "Range: bytes=100-\r\n", "X-Odd: 1\r\n"} {
		for _, reset := range []bool{false, true} {
			leave("/data/films/a", lines, reset)
			want++
		}
	}
	left := regexp.MustCompile(`gridloom_request_errors_total\{api="GetObject",kind="([a-z_]+)",[^}]*\} (\d+)`)
	for limit := time.Now().Add(30 * time.Second); ; awaitTick() {
		_, text := call(t, http.MethodGet, r.url("/metrics"), nil)
		all := left.FindAllSubmatch(text, -1)
		if len(all) == 1 && string(all[0][1]) == "canceled" && string(all[0][2]) == fmt.Sprint(want) {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("of %d downloads whose clients left: %q", want, all)
		}
	}
	r.stop(t)
	text, err := os.ReadFile(cfg.Audit.File)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"outcome":"canceled"`); n != want {
		t.Errorf("the audit log has %d of %d that were canceled", n, want)
	}
}
