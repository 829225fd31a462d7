package object

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// prover is a service with nothing but names and secrets.
func prover(self, mesh string, secrets ...string) *Service {
	return &Service{o: Options{
		Self:       self,
		Deployment: func() string { return mesh },
		Topology:   func() *control.Topology { return &control.Topology{} },
		Secrets: func() [][]byte {
			var all [][]byte
			for _, s := range secrets {
				all = append(all, []byte(s))
			}
			return all
		},
	}}
}

// signed is a request from one service to a node, as the server sees it.
func signed(from *Service, to string) *http.Request {
	path := bulkPath(payloadRef{"d1", dataio.ID{1}})
	r := httptest.NewRequest(http.MethodPut, path, http.NoBody)
	r.ContentLength = 7
	r.Header.Set("Range", "bytes=0-4")
	from.sign(r.Header, http.MethodPut, path, 7, to)
	return r
}

func TestProof(t *testing.T) {
	b := prover("b", "mesh", "new", "old")
	if err := b.authenticate(signed(prover("a ä", "mesh", "old"), "b")); err != nil {
		t.Errorf("an older secret: %v", err)
	}
	if err := b.authenticate(signed(prover("a", "mesh", "new"), "b")); err != nil {
		t.Errorf("the first secret: %v", err)
	}
	a := prover("a", "mesh", "new")
	for name, c := range map[string]struct {
		from   *Service
		to     string
		change func(*http.Request)
		kind   fault.Kind
	}{
		"wrong secret": {from: prover("a", "mesh", "other"), kind: fault.Unauthenticated},
		"no secret":    {from: prover("a", "mesh"), kind: fault.Unauthenticated},
		"other node":   {to: "c", kind: fault.WrongMesh},
		"other mesh":   {from: prover("a", "elsewhere", "new"), kind: fault.WrongMesh},
		"method":       {change: func(r *http.Request) { r.Method = http.MethodGet }, kind: fault.Unauthenticated},
		"path":         {change: func(r *http.Request) { r.URL.Path += "0" }, kind: fault.Unauthenticated},
		"range":        {change: func(r *http.Request) { r.Header.Set("Range", "bytes=0-5") }, kind: fault.Unauthenticated},
		"length":       {change: func(r *http.Request) { r.ContentLength = 8 }, kind: fault.Unauthenticated},
		"from":         {change: func(r *http.Request) { r.Header.Set(headerFrom, "c") }, kind: fault.Unauthenticated},
		"to":           {to: "c", change: func(r *http.Request) { r.Header.Set(headerTo, "b") }, kind: fault.Unauthenticated},
		"mesh":         {change: func(r *http.Request) { r.Header.Set(headerMesh, "x") }, kind: fault.Unauthenticated},
		"expiry":       {change: func(r *http.Request) { addExpiry(r, time.Millisecond) }, kind: fault.Unauthenticated},
		"bad expiry":   {change: func(r *http.Request) { r.Header.Set(headerExpires, "soon") }, kind: fault.Unauthenticated},
		"bad name":     {change: func(r *http.Request) { r.Header.Set(headerFrom, "%") }, kind: fault.Unauthenticated},
		"bad proof":    {change: func(r *http.Request) { r.Header.Set(headerProof, "zz") }, kind: fault.Unauthenticated},
		"no proof":     {change: func(r *http.Request) { r.Header.Del(headerProof) }, kind: fault.Unauthenticated},
		"nothing":      {change: func(r *http.Request) { r.Header = http.Header{} }, kind: fault.Unauthenticated},
		"swapped fields": {change: func(r *http.Request) {
			r.Header.Set(headerFrom, "ab")
			r.Header.Set(headerTo, "")
		}, kind: fault.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := c.from, c.to
			if from == nil {
				from = a
			}
			if to == "" {
				to = "b"
			}
			r := signed(from, to)
			if c.change != nil {
				c.change(r)
			}
			wantFault(t, b.authenticate(r), c.kind, "bulk request")
		})
	}
	wantFault(t, prover("b", "", "new").authenticate(signed(a, "b")), fault.Waiting, "mesh")
	if err := prover("b", "mesh").authenticate(signed(prover("a", "mesh"), "b")); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("neither secret nor certificate: %v", err)
	}
	open := prover("b", "mesh")
	open.o.Insecure = true
	if err := open.authenticate(signed(prover("a", "mesh"), "b")); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func addExpiry(r *http.Request, d time.Duration) {
	at, _ := strconv.ParseInt(r.Header.Get(headerExpires), 10, 64)
	r.Header.Set(headerExpires, strconv.FormatInt(at+d.Milliseconds(), 10))
}

// TestProofClock: a proof is good for a minute, on clocks up to a minute apart.
func TestProofClock(t *testing.T) {
	a, b := prover("a", "mesh", "s"), prover("b", "mesh", "s")
	for off, ok := range map[time.Duration]bool{
		-59 * time.Second: true, 59 * time.Second: true, -61 * time.Second: false, 61 * time.Second: false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/bulk/v1/payload/d/x", http.NoBody)
		c := &claim{method: "GET", path: r.URL.EscapedPath(), from: "a", to: "b", mesh: "mesh",
			expires: time.Now().Add(off + proofLife).UnixMilli()}
		r.Header.Set(headerFrom, "a")
		r.Header.Set(headerTo, "b")
		r.Header.Set(headerMesh, "mesh")
		r.Header.Set(headerExpires, strconv.FormatInt(c.expires, 10))
		r.Header.Set(headerProof, hexProof(a, c))
		if err := b.authenticate(r); (err == nil) != ok {
			t.Errorf("clock %v off: %v", off, err)
		}
	}
}

func hexProof(s *Service, c *claim) string {
	return url.QueryEscape(hexString(c.proof(s.o.Secrets()[0])))
}

// TestProofCertificate: a client certificate must be for the node's name, or,
// where that is asked for, its host; with a mesh secret, too, which doesn't
// take its place.
func TestProofCertificate(t *testing.T) {
	cert := selfSigned(t, "a", "host-of-c")
	topology := func() *control.Topology {
		return &control.Topology{Nodes: []control.Node{
			{Name: "a", URL: "https://10.0.0.1:7402"}, {Name: "c", URL: "https://host-of-c:7402"}, {Name: "d", URL: "https://elsewhere:7402"},
		}}
	}
	for _, tc := range []struct {
		hosts   bool
		secrets []string
		in      string
	}{{false, nil, "a"}, {true, nil, "c"}, {false, []string{"s"}, "a"}, {true, []string{"s"}, "c"}} {
		b := prover("b", "mesh", tc.secrets...)
		b.o.Topology, b.o.HostCertificates = topology, tc.hosts
		for _, from := range []string{"a", "c", "d", "x", ""} {
			r := signed(prover(from, "mesh", tc.secrets...), "b")
			r.TLS = &tls.ConnectionState{VerifiedChains: chainOf(t, cert)}
			if err := b.authenticate(r); (err == nil) != (from == tc.in) {
				t.Errorf("%+v: node %q: %v", tc, from, err)
			}
		}
	}
	// The certificate alone isn't enough where there is a secret.
	b := prover("b", "mesh", "s")
	b.o.Topology = topology
	r := signed(prover("a", "mesh", "another"), "b")
	r.TLS = &tls.ConnectionState{VerifiedChains: chainOf(t, cert)}
	if err := b.authenticate(r); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("a certificate without the secret: %v", err)
	}
}

func TestBulkPath(t *testing.T) {
	ref := payloadRef{"drive /?%", dataio.NewID()}
	if got, err := parseBulkPath(bulkPath(ref)); err != nil || got != ref {
		t.Errorf("%v became %v, %v", ref, got, err)
	}
	id := ref.id.String()
	for path, kind := range map[string]fault.Kind{
		"/bulk/v1/":                      fault.NotFound,
		"/bulk/v1/other/d/" + id:         fault.NotFound,
		"/bulk/v1/payload/d":             fault.NotFound,
		"/bulk/v1/payload//" + id:        fault.InvalidArgument,
		"/bulk/v1/payload/%zz/" + id:     fault.InvalidArgument,
		"/bulk/v1/payload/d/" + id + "/": fault.InvalidArgument,
		"/bulk/v1/payload/d/../../x":     fault.InvalidArgument,
	} {
		if _, err := parseBulkPath(path); fault.KindOf(err) != kind || err == nil {
			t.Errorf("%s: %v, want %v", path, err, kind)
		}
	}
}

func TestBulkRange(t *testing.T) {
	if off, n, err := parseBulkRange("bytes=2-4", 5); err != nil || off != 2 || n != 3 {
		t.Errorf("%d, %d, %v", off, n, err)
	}
	for _, bad := range []string{
		"bytes=0-5", "bytes=3-2", "bytes=-1", "bytes=1-", "bytes=0-1,2-3", "bytes=+1-2", "0-1", "bytes=a-b",
		"bytes=9223372036854775807-9223372036854775808", "bytes=0-18446744073709551615", "bytes= 0-1",
	} {
		_, _, err := parseBulkRange(bad, 5)
		wantFault(t, err, fault.RangeInvalid, "range")
	}
}

func FuzzBulkRange(f *testing.F) {
	f.Add("bytes=0-4", int64(5))
	f.Add("bytes=0-", int64(0))
	f.Fuzz(func(t *testing.T, s string, size int64) {
		size = max(0, size)
		if off, n, err := parseBulkRange(s, size); err == nil && (off < 0 || n < 1 || off+n > size) {
			t.Fatalf("%q of %d bytes: %d, %d", s, size, off, n)
		}
	})
}

func TestBulkErrorCrosses(t *testing.T) {
	w := httptest.NewRecorder()
	writeBulkError(w, fault.New(fault.NoSpace, "drive d on node ä", "is full:\r\n%s", "x=1&y"))
	err := bulkError(w.Result(), "elsewhere")
	wantFault(t, err, fault.NoSpace, "drive d on node ä")
	if err.Error() != "drive d on node ä: is full:\r\nx=1&y" {
		t.Errorf("%q", err)
	}
	wantFault(t, bulkError(&http.Response{StatusCode: 502, Header: http.Header{}}, "drive d"), fault.Unavailable, "drive d")
}
