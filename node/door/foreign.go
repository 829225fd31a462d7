package door

import (
	"net/http"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
)

// unsigned is the value of X-Amz-Content-Sha256 that says nothing about a body.
const unsigned = "UNSIGNED-PAYLOAD"

// foreign refuses fields, in the header of an upload or announced for its trailer or
// in it, by which a client of another protocol says how its body is framed, or what
// it sums up to. Ignored, the first would be stored with the content, and the second
// be taken for verified.
func foreign(h http.Header) error {
	found, framed := "", false
	for field, values := range h {
		digest := field == "Digest" || strings.HasPrefix(field, "X-Amz-Checksum-") || field == "X-Amz-Sdk-Checksum-Algorithm"
		framing := field == "X-Amz-Decoded-Content-Length" || field == "X-Amz-Trailer"
		for _, value := range values {
			switch field {
			case "X-Amz-Content-Sha256":
				framing = framing || hasPrefixFold(value, "STREAMING-")
				digest = digest || value != unsigned
			case "Content-Encoding":
				framing = framing || lists(value, "aws-chunked")
			}
		}
		if (digest || framing) && (found == "" || field < found) {
			found, framed = field, framing
		}
	}
	switch {
	case found == "":
		return nil
	case framed:
		return fault.New(fault.InvalidArgument, found, "says that the body is framed as for S3, which would be stored with the content; send the content alone, and its checksum in Content-Digest or Repr-Digest (RFC 9530)")
	}
	return fault.New(fault.InvalidArgument, found, "is no field that is verified here; send the checksum in Content-Digest or Repr-Digest (RFC 9530)")
}

// lists says that a list has a member, in whatever letters.
func lists(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(m, " \t"), member) {
			return true
		}
	}
	return false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
