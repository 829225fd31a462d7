package door

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ uri, bucket, key string }{
		{"/data/photos/a", "photos", "a"},
		{"/data/photos/a/b/c.txt", "photos", "a/b/c.txt"},
		{"/data/photos/a%2Fb", "photos", "a/b"},
		{"/data/photos/a%2fb", "photos", "a/b"},
		{"/data/photos/a%252Fb", "photos", "a%2Fb"},
		{"/data/photos/a%20b+c;d=e&f", "photos", "a b+c;d=e&f"},
		{"/data/photos/%C3%A4/%E2%82%AC", "photos", "ä/€"},
		{"/data/photos/ä%2Fb", "photos", "ä/b"},
		{"/data/photos/...", "photos", "..."},
		{"/data/photos/.hidden", "photos", ".hidden"},
		{"/data/photos/a%3Fb%23c", "photos", "a?b#c"},
		{"/data/photos/a%5Cb", "photos", `a\b`},
		{"/data/%70hotos/a", "photos", "a"},
		{"http://host/data/photos/a", "photos", "a"},
	} {
		u, err := url.ParseRequestURI(c.uri)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseTarget(u)
		if err != nil || got != (target{bucket: c.bucket, key: c.key}) {
			t.Errorf("%s: %v, %v", c.uri, got, err)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, c := range []struct{ uri, subject string }{
		{"/data/", "bucket"},
		{"/data/photos", "key"},
		{"/data/photos/", "key"},
		{"/data//a", "bucket"},
		{"/data/UPPER/a", "bucket"},
		{"/data/ph%2Fotos/a", "bucket"},
		{"/data/ph%2Fotos/ä", "bucket"},
		{"/data/%2e%2e/a", "bucket"},
		{"/data/photos//a", "key"},
		{"/data/photos/a//b", "key"},
		{"/data/photos/a/", "key"},
		{"/data/photos/%2Fa", "key"},
		{"/data/photos/a%2F", "key"},
		{"/data/photos/a%2F%2Fb", "key"},
		{"/data/photos/.", "key"},
		{"/data/photos/..", "key"},
		{"/data/photos/../x", "key"},
		{"/data/photos/a/../b", "key"},
		{"/data/photos/%2e%2e/b", "key"},
		{"/data/photos/a/%2E%2E%2Fb", "key"},
		{"/data/photos/a%00", "key"},
		{"/data/photos/a%0Ab", "key"},
		{"/data/photos/a%7F", "key"},
		{"/data/photos/%FF", "key"},
		{"/data/photos/%C3", "key"},
		{"/data/photos/%ED%A0%80", "key"},
		{"/data/photos/" + strings.Repeat("k", 1025), "key"},
		{"/data%2Fphotos/ä", "path"},
		{"/elsewhere/a", "path"},
	} {
		u, err := url.ParseRequestURI(c.uri)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseTarget(u)
		if err == nil {
			t.Errorf("%s: taken as %v", c.uri, got)
			continue
		}
		if fe := fault.From(err); fe.Kind != fault.InvalidArgument || fe.Subject != c.subject {
			t.Errorf("%s: %v about %q, want one about %q", c.uri, fe.Kind, fe.Subject, c.subject)
		}
	}
}

// FuzzParseTarget: whatever is taken is a valid name, and comes back from its
// own escaped form.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/data/photos/a", "/data/photos/a%2Fb", "/data/photos/../a", "/data/photos/%252e", "/data/photos/ä%2f", "/data/a//b", "//data/x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		got, err := parseTarget(u)
		if err != nil {
			return
		}
		if err := object.ValidateBucket(got.bucket); err != nil {
			t.Fatalf("%q gave a bad bucket: %v", uri, err)
		}
		if err := object.ValidateKey(got.key); err != nil {
			t.Fatalf("%q gave a bad key: %v", uri, err)
		}
		u, err = url.ParseRequestURI(Prefix + got.bucket + "/" + url.PathEscape(got.key))
		if err != nil {
			t.Fatalf("%q gave %v, whose URL is none: %v", uri, got, err)
		}
		if again, err := parseTarget(u); err != nil || again != got {
			t.Fatalf("%q gave %v, that gave %v, %v", uri, got, again, err)
		}
	})
}

func TestParseTags(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   []string // nil: refused
	}{
		{[]string{`*`}, []string{"*"}},
		{[]string{` * `}, []string{"*"}},
		{[]string{`"a"`}, []string{"a"}},
		{[]string{`W/"a"`}, []string{"W/a"}},
		{[]string{`"a","b"`}, []string{"a", "b"}},
		{[]string{`"a" , W/"b"	,"c"`}, []string{"a", "W/b", "c"}},
		{[]string{`"a",,"b",`}, []string{"a", "b"}},
		{[]string{`"a"`, `"b"`}, []string{"a", "b"}},
		{[]string{`"a,b"`}, []string{"a,b"}},
		{[]string{`"ä"`}, []string{"ä"}},
		{[]string{``}, nil},
		{[]string{`,`}, nil},
		{[]string{`a`}, nil},
		{[]string{`"a`}, nil},
		{[]string{`a"`}, nil},
		{[]string{`""`}, nil},
		{[]string{`"a" "b"`}, nil},
		{[]string{`"a"b`}, nil},
		{[]string{`w/"a"`}, nil},
		{[]string{`W/a`}, nil},
		{[]string{`*,"a"`}, nil},
		{[]string{`"a",*`}, nil},
		{[]string{`"a b"`}, nil},
		{[]string{"\"a\x00\""}, nil},
	} {
		h := http.Header{"If-Match": c.values}
		got, err := parseTags(h, "If-Match")
		if c.want == nil {
			if fe := fault.From(err); err == nil || fe.Kind != fault.InvalidArgument || fe.Subject != "If-Match" {
				t.Errorf("%q: %q, %v", c.values, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.values, got, err)
		}
	}
	if got, err := parseTags(http.Header{}, "If-Match"); got != nil || err != nil {
		t.Errorf("no field: %q, %v", got, err)
	}
}

func FuzzParseTags(f *testing.F) {
	for _, s := range []string{`*`, `"a"`, `W/"a", "b"`, `"a,b",,`, `"`, `"a"b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		tags, err := parseTags(http.Header{"If-Match": {value}}, "If-Match")
		if (err == nil) != (len(tags) > 0) {
			t.Fatalf("%q: %q, %v", value, tags, err)
		}
		for _, tag := range tags {
			if strings.ContainsAny(tag, `" `) || strings.TrimPrefix(tag, "W/") == "" {
				t.Fatalf("%q gave the tag %q", value, tag)
			}
		}
	})
}

func TestRangeStands(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC)
	info := &object.Info{ETag: "tag", ModifiedAt: at}
	for value, want := range map[string]bool{
		`"tag"`:                    true,
		`W/"tag"`:                  false,
		`"other"`:                  false,
		`tag`:                      false,
		`"tag" `:                   false,
		``:                         false,
		at.Format(http.TimeFormat): true,
		at.Add(time.Second).Format(http.TimeFormat):  false,
		at.Add(-time.Second).Format(http.TimeFormat): false,
		"Sunday, 01-Mar-26 12:00:00 GMT":             true, // obsolete, still a date
		"yesterday":                                  false,
	} {
		if got := rangeStands(http.Header{"If-Range": {value}}, info); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if !rangeStands(http.Header{}, info) {
		t.Error("without If-Range the range does not stand")
	}
	if rangeStands(http.Header{"If-Range": {`"tag"`, `"tag"`}}, info) {
		t.Error("two If-Range fields were taken")
	}
}

func TestParseDigests(t *testing.T) {
	sum := bytes.Repeat([]byte{0xfb}, 32)
	b64 := base64.StdEncoding.EncodeToString(sum)
	for _, c := range []struct {
		value string
		want  bool // the sum; else refused
	}{
		{"sha-256=:" + b64 + ":", true},
		{"sha-256=:" + strings.TrimRight(b64, "=") + ":", true},
		{"sha=:AAAA:, sha-256=:" + b64 + ":", true},
		{"sha-256=:AAAA:,\tsha-256=:" + b64 + ":  ", true},
		{formatDigest(sum), true},
		{"sha-512=:AAAA:", false},
		{"sha=:AAAA:, unixsum=:AAAA:", false},
		{"sha-256=" + b64, false},
		{"sha-256=:" + b64, false},
		{"sha-256=:AAAA:", false},
		{"sha-256=:!!!!:", false},
		{"sha-256", false},
		{"SHA-256=:" + b64 + ":", false},
		{"sha-256=:" + b64 + ": x", false},
		{"sha-256=:" + b64 + ":,", false},
		{"=:" + b64 + ":", false},
		{",", false},
	} {
		for _, field := range digestFields {
			got, err := parseDigests(http.Header{field: {c.value}}, inHeader)
			if !c.want {
				if fe := fault.From(err); err == nil || fe.Kind != fault.InvalidArgument || fe.Subject != field {
					t.Errorf("%s: %s: %v, %v", field, c.value, got, err)
				}
				continue
			}
			if err != nil || len(got) != 1 || got[0].Algorithm != object.SHA256 || !bytes.Equal(got[0].Value, sum) {
				t.Errorf("%s: %s: %v, %v", field, c.value, got, err)
			}
		}
	}
	both := http.Header{"Content-Digest": {formatDigest(sum)}, "Repr-Digest": {formatDigest(sum)}}
	if got, err := parseDigests(both, inHeader); err != nil || len(got) != 2 {
		t.Errorf("both fields: %v, %v", got, err)
	}
	if got, err := parseDigests(http.Header{}, inHeader); err != nil || got != nil {
		t.Errorf("no field: %v, %v", got, err)
	}
}

func FuzzParseByteSequences(f *testing.F) {
	for _, s := range []string{"sha-256=:AAAA:", "a=:AA==:, b=:AA:", "a=::", "a=:A:", "*=:AAAA:,", "a", "=::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		members, ok := parseByteSequences(s)
		if !ok {
			return
		}
		if len(members) == 0 {
			t.Fatalf("%q has no members", s)
		}
		for name, value := range members {
			again, ok := parseByteSequences(name + "=:" + base64.StdEncoding.EncodeToString(value) + ":")
			if !ok || len(again) != 1 || !bytes.Equal(again[name], value) {
				t.Fatalf("%q gave %q=%x, that gave %v, %v", s, name, value, again, ok)
			}
		}
	})
}
