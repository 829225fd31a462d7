package door

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/fault"
)

// TestForeign: what other protocols say of a body is refused by name, before the body
// is read where that can be, and nothing is stored.
func TestForeign(t *testing.T) {
	s := serve(t, nil)
	const data = "5;chunk-signature=00\r\nhello\r\n0\r\n\r\n"
	before := s.payloads(t)
	for _, c := range []struct{ field, value, says string }{
		{"X-Amz-Checksum-Crc32c", "AAAAAA==", "verified"},
		{"X-Amz-Checksum-Sha256", "AAAA", "verified"},
		{"X-Amz-Sdk-Checksum-Algorithm", "CRC32", "verified"},
		{"X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "framed"},
		{"X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "framed"},
		{"X-Amz-Content-Sha256", strings.Repeat("0", 64), "verified"},
		{"X-Amz-Decoded-Content-Length", "5", "framed"},
		{"X-Amz-Trailer", "x-amz-checksum-crc32", "framed"},
		{"Content-Encoding", "aws-chunked", "framed"},
		{"Content-Encoding", "gzip, AWS-Chunked", "framed"},
		{"Digest", "SHA-256=AAAA", "verified"},
	} {
		a := s.do(t, "PUT", "a", strings.NewReader(data), c.field, c.value)
		checkProblem(t, c.field, a, fault.InvalidArgument, c.field)
		if text := string(a.body); !strings.Contains(text, c.says) || !strings.Contains(text, "Content-Digest or Repr-Digest") {
			t.Errorf("%s: %s", c.field, text)
		}
		a, err := s.raw(t, "PUT", "PUT /data/photos/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"+strings.ToLower(c.field)+": "+c.value+"\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		checkProblem(t, c.field+", before the body", a, fault.InvalidArgument, c.field)
	}
	for _, field := range []string{"X-Amz-Checksum-Crc32c", "Digest"} {
		for _, head := range []string{"", "Trailer: " + field + "\r\n"} {
			checkProblem(t, field+" in the trailer", s.chunked(t, "a", head, data, field+": AAAAAA==\r\n"), fault.InvalidArgument, field)
		}
	}
	s.checkGone(t, "foreign fields", "a", before)
	s.put(t, "a", data, http.StatusCreated, "X-Amz-Content-Sha256", unsigned, "X-Amz-Date", "20130524T000000Z", "Content-Encoding", "gzip")
	if a := s.do(t, "GET", "a", nil, "Digest", "x", "X-Amz-Checksum-Mode", "ENABLED", "X-Amz-Content-Sha256", strings.Repeat("0", 64)); a.StatusCode != http.StatusOK {
		t.Errorf("a GET with fields of S3: %s", a.Status)
	}
}
