package object

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gridloom/gridloom/node/fault"
)

// wantFault checks an error's kind, and that it names the thing.
func wantFault(t *testing.T, err error, kind fault.Kind, subject string) {
	t.Helper()
	var fe *fault.Error
	if !errors.As(err, &fe) {
		t.Fatalf("error %v, want a fault %v about %q", err, kind, subject)
	}
	if fe.Kind != kind || fe.Subject != subject {
		t.Fatalf("error %v about %q (%v), want %v about %q", fe.Kind, fe.Subject, fe, kind, subject)
	}
	if fe.Detail == "" {
		t.Fatalf("error %v about %q says nothing more", fe.Kind, fe.Subject)
	}
}

func TestValidateBucket(t *testing.T) {
	for _, name := range []string{"abc", "0-9", "a--b", strings.Repeat("a", 63)} {
		if err := ValidateBucket(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "a", "ab", strings.Repeat("a", 64), "Abc", "a_b", "a.b", "-ab", "ab-", "a/b", "a b", "a\x00b", "äbc", "..",
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, ValidateBucket(name), fault.InvalidArgument, "bucket")
		})
	}
}

func TestValidateKey(t *testing.T) {
	for _, key := range []string{
		"a", "a/b", ".a", "a.", "...", "a/.../b", " ", "a b", "ä/é", "\u00a0", "\ufffd", "\U0001F600",
		strings.Repeat("k", 1024), strings.Repeat("é", 512), "a\\b", "%2e%2e", "C:",
	} {
		if err := ValidateKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/..", "a/../b", "a/./b",
		"a\x00", "a\nb", "a\x1f", "a\x7f", "a\u0080", "a\u009f", "\t",
		"a\xff", "\xc3", "a\xed\xa0\x80", strings.Repeat("k", 1025), strings.Repeat("é", 513),
	} {
		t.Run(fmt.Sprintf("%.40q", key), func(t *testing.T) {
			wantFault(t, ValidateKey(key), fault.InvalidArgument, "key")
		})
	}
}

// keyByRules says again, one rule at a time, what a key is.
func keyByRules(key string) bool {
	if len(key) < 1 || len(key) > 1024 || !utf8.ValidString(key) {
		return false
	}
	for _, r := range key {
		if r <= 0x1f || r == 0x7f || r >= 0x80 && r <= 0x9f {
			return false
		}
	}
	for _, segment := range strings.Split(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func FuzzValidateKey(f *testing.F) {
	for _, seed := range []string{"a/b", "", "/", "a//b", "..", "\xff", "\u0085", "\ufffd", "a\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if err := ValidateKey(key); (err == nil) != keyByRules(key) {
			t.Fatalf("%q: %v", key, err)
		}
	})
}

func FuzzValidateBucket(f *testing.F) {
	for _, seed := range []string{"abc", "a-b", "-ab", "ab-", "ABC", "a.b", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want := len(name) >= 3 && len(name) <= 63
		for i := 0; want && i < len(name); i++ {
			c := name[i]
			inner := c == '-' && i > 0 && i < len(name)-1
			want = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || inner
		}
		if err := ValidateBucket(name); (err == nil) != want {
			t.Fatalf("%q: %v", name, err)
		}
	})
}

func TestValidatePut(t *testing.T) {
	ok := PutRequest{Bucket: "abc", Key: "k", SizeBytes: -1,
		Headers:  Headers{ContentType: "text/plain; charset=utf-8", ContentDisposition: `attachment; filename="ä.txt"`},
		Metadata: map[string]string{"a-1": "v", "empty": "", "big": strings.Repeat("x", 8000)}}
	if err := ok.validate(100); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change  func(*PutRequest)
		kind    fault.Kind
		subject string
	}{
		"bucket":           {func(r *PutRequest) { r.Bucket = "A" }, fault.InvalidArgument, "bucket"},
		"key":              {func(r *PutRequest) { r.Key = "" }, fault.InvalidArgument, "key"},
		"negative size":    {func(r *PutRequest) { r.SizeBytes = -2 }, fault.InvalidArgument, "size"},
		"too large":        {func(r *PutRequest) { r.SizeBytes = 101 }, fault.TooLarge, "size"},
		"newline":          {func(r *PutRequest) { r.Headers.ContentType = "a\r\nb: c" }, fault.InvalidArgument, "content_type"},
		"tab":              {func(r *PutRequest) { r.Headers.CacheControl = "a\tb" }, fault.InvalidArgument, "cache_control"},
		"not UTF-8":        {func(r *PutRequest) { r.Headers.ContentDisposition = "\xff" }, fault.InvalidArgument, "content_disposition"},
		"space":            {func(r *PutRequest) { r.Headers.ContentEncoding = " gzip" }, fault.InvalidArgument, "content_encoding"},
		"long header":      {func(r *PutRequest) { r.Headers.ContentLanguage = strings.Repeat("x", 1025) }, fault.InvalidArgument, "content_language"},
		"metadata name":    {func(r *PutRequest) { r.Metadata = map[string]string{"A": "v"} }, fault.InvalidArgument, "metadata"},
		"metadata no name": {func(r *PutRequest) { r.Metadata = map[string]string{"": "v"} }, fault.InvalidArgument, "metadata"},
		"metadata value":   {func(r *PutRequest) { r.Metadata = map[string]string{"a": "v\n"} }, fault.InvalidArgument, "metadata.a"},
		"metadata size":    {func(r *PutRequest) { r.Metadata = map[string]string{"a": strings.Repeat("v", 8192)} }, fault.InvalidArgument, "metadata"},
		"quoted tag":       {func(r *PutRequest) { r.Conditions.IfMatch = []string{`"a"`} }, fault.InvalidArgument, "if_match"},
		"empty tag":        {func(r *PutRequest) { r.Conditions.IfNoneMatch = []string{""} }, fault.InvalidArgument, "if_none_match"},
		"many tags":        {func(r *PutRequest) { r.Conditions.IfNoneMatch = make([]string, 65) }, fault.InvalidArgument, "if_none_match"},
	} {
		t.Run(name, func(t *testing.T) {
			req := ok
			c.change(&req)
			wantFault(t, req.validate(100), c.kind, c.subject)
		})
	}
}
