package door

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// checkProblem checks that an answer is the problem of a kind about a subject.
func checkProblem(t testing.TB, what string, a *answer, kind fault.Kind, subject string) {
	t.Helper()
	var p fault.Problem
	switch err := json.Unmarshal(a.body, &p); {
	case a.StatusCode != kind.Status():
		t.Errorf("%s: %s %s, want %d", what, a.Status, a.body, kind.Status())
	case err != nil || a.Header.Get("Content-Type") != "application/problem+json":
		t.Errorf("%s: %s: %q is no problem", what, a.Header.Get("Content-Type"), a.body)
	case p.Title != kind.Reason() || p.Subject != subject || p.Status != a.StatusCode || p.Detail == "":
		t.Errorf("%s: %s, want one of kind %v about %q", what, a.body, kind, subject)
	}
	for _, field := range []string{"Etag", "Repr-Digest", "Last-Modified", "Content-Disposition", "Content-Encoding", "Gridloom-Meta-Camera"} {
		if a.Header.Get(field) != "" {
			t.Errorf("%s: the problem has the object's %s", what, field)
		}
	}
}

func digestOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return formatDigest(sum[:])
}

// Sizes on both sides of every border: inline, one window, two, several.
var sizes = []int{0, 1, 8 << 10, 8<<10 + 1, 64 << 10, 64<<10 + 1, 5<<20 + 3}

func TestGetWhole(t *testing.T) {
	s := serve(t, nil)
	for _, size := range sizes {
		data, key := pattern(size), fmt.Sprintf("whole/%d", size)
		stored := s.put(t, key, data, http.StatusCreated,
			"Content-Type", "image/x", "Cache-Control", "max-age=7", "Content-Disposition", `attachment; filename="ä"`,
			"Content-Encoding", "br", "Content-Language", "de, en", "Gridloom-Meta-Camera", "old", "Gridloom-Meta-a-b", "1")
		for _, method := range []string{"GET", "HEAD"} {
			a := s.do(t, method, key, nil, "Accept-Encoding", "identity")
			if a.StatusCode != http.StatusOK || a.err != nil {
				t.Fatalf("%s of %d bytes: %s, %v", method, size, a.Status, a.err)
			}
			want := data
			if method == "HEAD" {
				want = ""
			}
			if string(a.body) != want {
				t.Errorf("%s of %d bytes gave %d bytes, and not the right ones", method, size, len(a.body))
			}
			for field, want := range map[string]string{
				"Content-Length":          strconv.Itoa(size),
				"Content-Type":            "image/x",
				"Cache-Control":           "max-age=7",
				"Content-Disposition":     `attachment; filename="ä"`,
				"Content-Encoding":        "br",
				"Content-Language":        "de, en",
				"Gridloom-Meta-Camera":    "old",
				"Gridloom-Meta-A-B":       "1",
				"Accept-Ranges":           "bytes",
				"Repr-Digest":             digestOf(data),
				"Etag":                    stored.Header.Get("Etag"),
				"Last-Modified":           stored.Header.Get("Last-Modified"),
				"Vary":                    "Gridloom-Authorization",
				"X-Content-Type-Options":  "nosniff",
				"Content-Security-Policy": "sandbox",
			} {
				if got := a.Header.Get(field); got != want {
					t.Errorf("%s of %d bytes: %s is %q, want %q", method, size, field, got, want)
				}
			}
			if a.Header.Get("Transfer-Encoding") != "" || len(a.TransferEncoding) > 0 {
				t.Errorf("%s of %d bytes: sent in chunks", method, size)
			}
		}
	}
	s.put(t, "plain", "<html>", http.StatusCreated)
	if a := s.do(t, "GET", "plain", nil); a.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("what nobody described is %q", a.Header.Get("Content-Type"))
	}
}

func TestGetRange(t *testing.T) {
	s := serve(t, nil)
	for _, size := range []int{100, 300_000} {
		data, key := pattern(size), strconv.Itoa(size)
		s.put(t, key, data, http.StatusCreated)
		for _, c := range []struct {
			field    string
			from, to int
		}{
			{"bytes=0-0", 0, 1},
			{"bytes=0-49", 0, 50},
			{"bytes=50-", 50, size},
			{"bytes=-10", size - 10, size},
			{fmt.Sprintf("bytes=-%d", size+5), 0, size},
			{fmt.Sprintf("bytes=10-%d", size+5), 10, size},
			{"bytes=0-9,10-19", 0, 20},
			{fmt.Sprintf("bytes=%d-,5-6", size), 5, 7},
		} {
			a := s.do(t, "GET", key, nil, "Range", c.field)
			want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size)
			if a.StatusCode != http.StatusPartialContent || a.Header.Get("Content-Range") != want || string(a.body) != data[c.from:c.to] {
				t.Errorf("%s of %d: %s, %s, %d bytes", c.field, size, a.Status, a.Header.Get("Content-Range"), len(a.body))
			}
			if a.Header.Get("Repr-Digest") != digestOf(data) || a.ContentLength != int64(c.to-c.from) {
				t.Errorf("%s of %d: Repr-Digest %s, Content-Length %d", c.field, size, a.Header.Get("Repr-Digest"), a.ContentLength)
			}
		}
		for _, field := range []string{"bytes=5-4", "bytes=", "lines=0-1", "bytes=x"} {
			if a := s.do(t, "GET", key, nil, "Range", field); a.StatusCode != http.StatusOK || string(a.body) != data {
				t.Errorf("%s of %d: %s, %d bytes", field, size, a.Status, len(a.body))
			}
		}
		for _, field := range []string{fmt.Sprintf("bytes=%d-", size), "bytes=-0", "bytes=" + strings.Repeat("0-0,", maxRanges+1)} {
			a := s.do(t, "GET", key, nil, "Range", field)
			checkProblem(t, field, a, fault.RangeInvalid, "Range")
			if got, want := a.Header.Get("Content-Range"), fmt.Sprintf("bytes */%d", size); got != want {
				t.Errorf("%s of %d: Content-Range %q", field, size, got)
			}
		}
		if a := s.do(t, "HEAD", key, nil, "Range", "bytes=0-0"); a.StatusCode != http.StatusOK || a.ContentLength != int64(size) {
			t.Errorf("HEAD with a Range: %s", a.Status)
		}
		if a := s.do(t, "GET", key, nil, "Range", "bytes=0-0", "Range", "bytes=1-1"); a.StatusCode != http.StatusOK {
			t.Errorf("two Range fields: %s", a.Status)
		}
	}
	s.put(t, "empty", "", http.StatusCreated)
	if a := s.do(t, "GET", "empty", nil, "Range", "bytes=0-"); a.StatusCode != http.StatusOK || len(a.body) > 0 {
		t.Errorf("a range of nothing: %s", a.Status)
	}
}

// TestGetRanges: several ranges come as multipart/byteranges, whose parts are
// what the Range field names.
func TestGetRanges(t *testing.T) {
	s := serve(t, nil)
	for _, size := range []int{5000, 300_000} {
		data, key := pattern(size), strconv.Itoa(size)
		s.put(t, key, data, http.StatusCreated, "Content-Type", "text/x")
		for range 20 {
			var specs []string
			for range 2 + rand.IntN(10) {
				from := rand.IntN(size)
				specs = append(specs, fmt.Sprintf("%d-%d", from, from+rand.IntN(size/20)))
			}
			field := "bytes=" + strings.Join(specs, ",")
			want, err := parseRanges(field, int64(size))
			if err != nil {
				t.Fatal(err)
			}
			a := s.do(t, "GET", key, nil, "Range", field)
			if len(want) == 1 {
				continue
			}
			kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
			if a.StatusCode != http.StatusPartialContent || kind != "multipart/byteranges" || err != nil || a.Header.Get("Content-Range") != "" {
				t.Fatalf("%s: %s, %s, %v", field, a.Status, a.Header.Get("Content-Type"), err)
			}
			if a.err != nil || int64(len(a.body)) != a.ContentLength {
				t.Fatalf("%s: %d of %d bytes, %v", field, len(a.body), a.ContentLength, a.err)
			}
			parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
			for _, r := range want {
				part, err := parts.NextRawPart()
				if err != nil {
					t.Fatalf("%s: %v", field, err)
				}
				got, err := io.ReadAll(part)
				if err != nil || string(got) != data[r.off:r.end()] || part.Header.Get("Content-Range") != r.contentRange(int64(size)) || part.Header.Get("Content-Type") != "text/x" {
					t.Errorf("%s: part %v is %d bytes, %v, %v", field, r, len(got), part.Header, err)
				}
			}
			if _, err := parts.NextRawPart(); err != io.EOF {
				t.Errorf("%s: after the last part: %v", field, err)
			}
		}
	}
}

// TestConditionals is RFC 9110, 13.2.2, for the methods that read.
func TestConditionals(t *testing.T) {
	s := serve(t, nil)
	data := pattern(20_000)
	stored := s.put(t, "a", data, http.StatusCreated, "Cache-Control", "max-age=7")
	tag := stored.Header.Get("Etag")
	at, err := http.ParseTime(stored.Header.Get("Last-Modified"))
	if err != nil {
		t.Fatal(err)
	}
	same := at.Format(http.TimeFormat)
	before, after := at.Add(-time.Second).Format(http.TimeFormat), at.Add(time.Second).Format(http.TimeFormat)
	const other, weak = `"other"`, "W/"
	for _, c := range []struct {
		match, unmodified, noneMatch, modified string
		want                                   int
	}{
		{"", "", "", "", 200},
		{tag, "", "", "", 200},
		{other + ", " + tag, "", "", "", 200},
		{"*", "", "", "", 200},
		{other, "", "", "", 412},
		{weak + tag, "", "", "", 412},
		{"", same, "", "", 200},
		{"", after, "", "", 200},
		{"", before, "", "", 412},
		{"", "nonsense", "", "", 200},
		{"", "", tag, "", 304},
		{"", "", weak + tag, "", 304},
		{"", "", other + "," + tag, "", 304},
		{"", "", "*", "", 304},
		{"", "", other, "", 200},
		{"", "", "", same, 304},
		{"", "", "", after, 304},
		{"", "", "", before, 200},
		{"", "", "", "nonsense", 200},
		// If-Match goes before If-Unmodified-Since, which then does not count.
		{tag, before, "", "", 200},
		{other, after, "", "", 412},
		// If-None-Match goes before If-Modified-Since, which then does not count.
		{"", "", other, after, 200},
		{"", "", tag, before, 304},
		// 412 goes before 304.
		{tag, "", tag, "", 304},
		{other, "", tag, "", 412},
		{"", before, tag, "", 412},
		{"", after, other, same, 200},
		{tag, before, "", same, 304},
		// What is none is refused.
		{"tag", "", "", "", 400},
		{"", "", "tag", "", 400},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := s.do(t, method, "a", nil, "If-Match", c.match, "If-Unmodified-Since", c.unmodified, "If-None-Match", c.noneMatch, "If-Modified-Since", c.modified)
			what := fmt.Sprintf("%s %+v", method, c)
			if a.StatusCode != c.want {
				t.Errorf("%s: %s", what, a.Status)
			}
			switch c.want {
			case 304:
				if len(a.body) > 0 || a.Header.Get("Etag") != tag || a.Header.Get("Last-Modified") != same || a.Header.Get("Cache-Control") != "max-age=7" {
					t.Errorf("%s: 304 with %v", what, a.Header)
				}
				if a.Header.Get("Content-Type") != "" || a.Header.Get("Content-Length") != "" {
					t.Errorf("%s: 304 describes a body: %v", what, a.Header)
				}
			case 412:
				if method == "GET" {
					checkProblem(t, what, a, fault.PreconditionFailed, problemOf(a).Subject)
				}
			}
		}
	}
	// A condition on what isn't there is not looked at (13.2.1).
	if a := s.do(t, "GET", "nothing", nil, "If-Match", tag); a.StatusCode != http.StatusNotFound {
		t.Errorf("If-Match on nothing: %s", a.Status)
	}
	// If-Range, and Range after the other conditions.
	for _, c := range []struct {
		ifRange, noneMatch, match string
		want                      int
	}{
		{"", "", "", 206},
		{tag, "", "", 206},
		{same, "", "", 206},
		{other, "", "", 200},
		{weak + tag, "", "", 200},
		{before, "", "", 200},
		{after, "", "", 200},
		{"nonsense", "", "", 200},
		{tag, tag, "", 304},
		{tag, "", other, 412},
	} {
		a := s.do(t, "GET", "a", nil, "Range", "bytes=0-9", "If-Range", c.ifRange, "If-None-Match", c.noneMatch, "If-Match", c.match)
		if a.StatusCode != c.want {
			t.Errorf("Range with %+v: %s", c, a.Status)
		}
		if c.want == 200 && string(a.body) != data {
			t.Errorf("Range with %+v: %d bytes", c, len(a.body))
		}
	}
	if a := s.do(t, "GET", "a", nil, "Range", "bytes=99999-", "If-Range", other); a.StatusCode != http.StatusOK {
		t.Errorf("an unsatisfiable range that does not count: %s", a.Status)
	}
}

func problemOf(a *answer) (p fault.Problem) {
	_ = json.Unmarshal(a.body, &p)
	return p
}

func TestRefusals(t *testing.T) {
	s := serve(t, nil)
	s.put(t, "a", "x", http.StatusCreated)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		for _, c := range []struct {
			key     string
			kind    fault.Kind
			subject string
		}{
			{"b/../a", fault.InvalidArgument, "key"},
			{"b//a", fault.InvalidArgument, "key"},
			{"%2e%2e/a", fault.InvalidArgument, "key"},
			{"%00", fault.InvalidArgument, "key"},
			{"%ff", fault.InvalidArgument, "key"},
			{strings.Repeat("a", 1025), fault.InvalidArgument, "key"},
			{"", fault.InvalidArgument, "key"},
			{"a?x=1", fault.InvalidArgument, "query"},
			{"../nowhere/a", fault.InvalidArgument, "key"},
		} {
			checkProblem(t, method+" "+c.key, s.do(t, method, c.key, http.NoBody), c.kind, c.subject)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/data/nowhere/a", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a := &answer{Response: resp}
		a.body, _ = io.ReadAll(resp.Body)
		resp.Body.Close()
		checkProblem(t, method+" in no bucket", a, fault.BucketNotFound, `bucket "nowhere"`)
		checkProblem(t, method+" as nobody", s.do(t, method, "a", http.NoBody, "As", "nobody"), fault.Unauthenticated, "")
		checkProblem(t, method+" as a stranger", s.do(t, method, "a", http.NoBody, "As", "stranger"), fault.PermissionDenied, "")
	}
	for _, method := range []string{"POST", "PATCH", "OPTIONS", "BURN"} {
		a := s.do(t, method, "a", http.NoBody)
		if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, HEAD, PUT, DELETE" || problemOf(a).Status != 405 {
			t.Errorf("%s: %s, Allow %q, %s", method, a.Status, a.Header.Get("Allow"), a.body)
		}
	}
	if a := s.do(t, "HEAD", "nothing", nil); a.StatusCode != http.StatusNotFound || len(a.body) > 0 {
		t.Errorf("HEAD of nothing: %s", a.Status)
	}
}

// TestEveryMethodHasAPermission: without one there is no row.
func TestEveryMethodHasAPermission(t *testing.T) {
	for name := range strings.SplitSeq(allow, ", ") {
		m, ok := methodOf(name)
		if !ok || m.action == "" || m.api == "" || m.serve == nil {
			t.Errorf("%s is allowed, and %+v", name, m)
		}
	}
}

// TestVerify: a bit that has flipped on the drive goes out unless the client
// asks for verified bytes. Then what is damaged is refused, or, where it comes
// after sound bytes, broken off before it, whole and in ranges.
func TestVerify(t *testing.T) {
	s := serve(t, nil)
	data := strings.Repeat("0123456789abcdef", 5<<20/16)
	s.put(t, "k", data, http.StatusCreated)
	get := func(byteRange string, verify bool) *answer {
		key := "k"
		if verify {
			key += "?verify=always"
		}
		return s.do(t, "GET", key, nil, "Range", byteRange)
	}
	for _, byteRange := range []string{"", "bytes=100-2000000", "bytes=0-99,3000000-4000000"} {
		plain, verified := get(byteRange, false), get(byteRange, true)
		if verified.StatusCode != plain.StatusCode || len(verified.body) != len(plain.body) || verified.err != nil {
			t.Errorf("%q: %s with %d bytes, verified %s with %d (%v)", byteRange, plain.Status, len(plain.body), verified.Status, len(verified.body), verified.err)
		}
	}
	const at = 3<<20 + 5
	f, err := os.OpenFile(s.payloads(t)[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{data[at] ^ 4}, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if a := get("", false); a.StatusCode != http.StatusOK || a.err != nil || string(a.body) == data {
		t.Errorf("unverified: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	if a := get("", true); a.StatusCode != http.StatusOK || a.err == nil || string(a.body) != data[:3<<20] {
		t.Errorf("verified: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	if a := get("bytes=0-3145727", true); a.StatusCode != http.StatusPartialContent || a.err != nil || string(a.body) != data[:3<<20] {
		t.Errorf("before it: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	a := get("bytes=4000000-4000009", true)
	var p fault.Problem
	if err := json.Unmarshal(a.body, &p); a.StatusCode != http.StatusInternalServerError || err != nil || p.Title != "corrupted" || !strings.Contains(p.Subject, "on node a") {
		t.Errorf("its MiB: %s %s, %v", a.Status, a.body, err)
	}
	if a := get("bytes=0-99999,4000000-4000009", true); a.StatusCode != http.StatusPartialContent || a.err == nil || strings.Contains(string(a.body), data[4000000:4000010]+"\r\n--") {
		t.Errorf("two ranges: %s, %q, %v", a.Status, a.body, a.err)
	}
}
