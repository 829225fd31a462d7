package door

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// ageIndex remembers how old the answers to queries might have been.
type ageIndex struct {
	control.Index

	mu   sync.Mutex // guards ages
	ages []time.Duration
}

func (i *ageIndex) Read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	i.mu.Lock()
	i.ages = append(i.ages, q.MaxAge)
	i.mu.Unlock()
	return i.Index.Read(ctx, q)
}

// take returns what was remembered since the last call.
func (i *ageIndex) take() []time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	ages := i.ages
	i.ages = nil
	return ages
}

// TestStale: what a GET or HEAD allows reaches the index; nothing else may ask
// for it.
func TestStale(t *testing.T) {
	s := serve(t, nil)
	s.put(t, "k", "hello", http.StatusCreated)
	s.ages.take()
	for _, method := range []string{"GET", "HEAD"} {
		for query, want := range map[string]time.Duration{
			"": 0, "?": 0, "?stale=0s": 0, "?stale=5s": 5 * time.Second, "?stale=1m30s": 90 * time.Second, "?stale=250ms": 250 * time.Millisecond,
		} {
			a := s.do(t, method, "k"+query, nil)
			if got := s.ages.take(); a.StatusCode != http.StatusOK || !slices.Equal(got, []time.Duration{want}) {
				t.Errorf("%s %s: %s %s, reached the index as %v", method, query, a.Status, a.body, got)
			}
		}
	}
	checkProblem(t, "malformed", s.do(t, "GET", "k?stale=soon", nil), fault.InvalidArgument, "stale")
	checkProblem(t, "unknown", s.do(t, "GET", "k?stale=5s&age=1", nil), fault.InvalidArgument, "query")
	for _, method := range []string{"PUT", "DELETE"} {
		checkProblem(t, method, s.do(t, method, "k?stale=5s", strings.NewReader("")), fault.InvalidArgument, "stale")
	}
	if got := s.ages.take(); len(got) > 0 {
		t.Errorf("what was refused reached the index as %v", got)
	}
	if a := s.do(t, "GET", "k", nil); string(a.body) != "hello" {
		t.Errorf("what was refused has changed the object: %s %q", a.Status, a.body)
	}
}

func TestParseQuery(t *testing.T) {
	for _, c := range []struct {
		query, subject string // subject "": taken
		reads          bool
	}{
		{"", "", true}, {"", "", false},
		{"stale=0", "", true}, {"stale=1h", "", true}, {"stale=3600s", "", true}, {"%73tale=5s", "", true},
		{"stale", "stale", true}, {"stale=", "stale", true}, {"stale=5", "stale", true}, {"stale=-1ns", "stale", true},
		{"stale=1h1ns", "stale", true}, {"stale=9999999h", "stale", true}, {"stale=5s&stale=5s", "stale", true},
		{"stale=5s", "stale", false}, {"stale=soon", "stale", false},
		{"versionId=1", "query", true}, {"versionId=1", "query", false}, {"Stale=5s", "query", true},
		{"stale=5s&x", "query", true}, {"x&stale=soon", "query", true}, {"x=%zz", "query", true}, {"stale=5s;x=1", "query", true},
	} {
		method := http.MethodHead
		if !c.reads {
			method = http.MethodPut
		}
		age, _, err := parseQuery(&url.URL{RawQuery: c.query}, method)
		switch fe := fault.From(err); {
		case c.subject == "" && err != nil:
			t.Errorf("%q: %v", c.query, err)
		case c.subject != "" && (err == nil || fe.Kind != fault.InvalidArgument || fe.Subject != c.subject || age != 0):
			t.Errorf("%q: %v, %v, want an error about %q", c.query, age, err, c.subject)
		}
	}
}

func TestParseVerify(t *testing.T) {
	for _, c := range []struct {
		method, query string
		verify        bool
		subject       string // "": taken
	}{
		{"GET", "", false, ""}, {"GET", "verify=always", true, ""}, {"GET", "stale=5s&verify=always", true, ""},
		{"GET", "verify", false, "verify"}, {"GET", "verify=", false, "verify"}, {"GET", "verify=true", false, "verify"},
		{"GET", "verify=Always", false, "verify"}, {"GET", "verify=always&verify=always", false, "verify"},
		{"HEAD", "verify=always", false, "verify"}, {"PUT", "verify=always", false, "verify"}, {"DELETE", "verify=always", false, "verify"},
		{"GET", "verify=always&x=1", false, "query"}, {"GET", "Verify=always", false, "query"},
	} {
		_, verify, err := parseQuery(&url.URL{RawQuery: c.query}, c.method)
		fe := fault.From(err)
		if verify != c.verify || (c.subject == "") != (err == nil) || err != nil && (fe.Kind != fault.InvalidArgument || fe.Subject != c.subject) {
			t.Errorf("%s ?%s: %v, %v", c.method, c.query, verify, err)
		}
	}
}
