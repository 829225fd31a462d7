package door

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// digestFields carry checksums, RFC 9530. With PUT and no content coding of the
// transfer's own, the content and the representation are the same bytes.
var digestFields = [...]string{"Content-Digest", "Repr-Digest"}

// sha256Key names SHA-256 in a digest field.
const sha256Key = "sha-256"

// parseDigests reads what a client says that its bytes sum up to, from the
// header or from the trailer. Algorithms that are not verified here are
// skipped, but not where there is no other: who sends a digest wants it
// verified.
func parseDigests(h http.Header) ([]object.Checksum, error) {
	var sums []object.Checksum
	for _, field := range digestFields {
		value := strings.Join(h.Values(field), ", ")
		if value == "" {
			continue
		}
		members, ok := parseByteSequences(value)
		if !ok {
			return nil, fault.New(fault.InvalidArgument, field, "is no dictionary of byte sequences like %s=:…: (RFC 9530)", sha256Key)
		}
		sum, ok := members[sha256Key]
		if !ok {
			return nil, fault.New(fault.InvalidArgument, field, "has no %s, the algorithm that is verified here", sha256Key)
		}
		if len(sum) != 32 {
			return nil, fault.New(fault.InvalidArgument, field, "%s has %d bytes and not 32", sha256Key, len(sum))
		}
		sums = append(sums, object.Checksum{Algorithm: object.SHA256, Value: sum})
	}
	return sums, nil
}

// formatDigest is the value of a digest field, empty where the digest isn't
// known.
func formatDigest(sha256 []byte) string {
	if len(sha256) == 0 {
		return ""
	}
	return sha256Key + "=:" + base64.StdEncoding.EncodeToString(sha256) + ":"
}

// parseByteSequences reads a structured-field dictionary (RFC 8941, 3.2) whose
// members are byte sequences without parameters. The last of several members
// of a name counts.
func parseByteSequences(s string) (map[string][]byte, bool) {
	members := make(map[string][]byte)
	for {
		name, rest, ok := strings.Cut(s, "=:")
		if !ok || !validKey(name) {
			return nil, false
		}
		encoded, rest, ok := strings.Cut(rest, ":")
		if !ok {
			return nil, false
		}
		// RFC 8941, 4.2.7: missing padding is no error.
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err != nil {
			return nil, false
		}
		members[name] = value
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return members, true
		}
		if s, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, false
		}
		s = strings.TrimLeft(s, " \t")
	}
}

// validKey reports whether s is a key of RFC 8941, 3.1.2.
func validKey(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c == '*':
		case i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return s != ""
}
