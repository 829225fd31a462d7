package door

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// digestFields carry checksums, RFC 9530. With PUT and no content coding of the
// transfer's own, the content and the representation are the same bytes.
var digestFields = [...]string{"Content-Digest", "Repr-Digest"}

// md5Field is the older way to send an MD5 (RFC 1864), in base64. Its name is
// Content-MD5.
const md5Field = "Content-Md5"

// The keys of algorithms in digest fields. They are those of the IANA registry
// "Hash Algorithms for HTTP Digest Fields", which has sha-256 and sha-512 as
// active, md5 and crc32c as deprecated, since they keep nobody from forging; and
// crc64nvme, which it doesn't have. A CRC is its big endian bytes.
const (
	sha256Key    = "sha-256"
	sha512Key    = "sha-512"
	md5Key       = "md5"
	crc32cKey    = "crc32c"
	crc64nvmeKey = "crc64nvme"
)

// algorithmOf is the algorithm of a key; 0 for one that isn't verified here.
func algorithmOf(key string) object.Algorithm {
	switch key {
	case sha256Key:
		return object.SHA256
	case sha512Key:
		return object.SHA512
	case md5Key:
		return object.MD5
	case crc32cKey:
		return object.CRC32C
	case crc64nvmeKey:
		return object.CRC64NVME
	}
	return 0
}

// summedUp is what a PUT has to have summed up beside what always is: an MD5 or
// SHA-512 that its header has, an MD5 that is announced for its trailer, and what
// is wanted. A digest field that is announced doesn't say what it will have.
func summedUp(r *http.Request, sums []object.Checksum, want []string) (extra []object.Algorithm) {
	for _, sum := range sums {
		extra = append(extra, sum.Algorithm)
	}
	if _, announced := r.Trailer[md5Field]; announced {
		extra = append(extra, object.MD5)
	}
	for _, key := range want {
		extra = append(extra, algorithmOf(key))
	}
	slices.Sort(extra)
	extra = slices.Compact(extra)
	return slices.DeleteFunc(extra, func(a object.Algorithm) bool { return a != object.MD5 && a != object.SHA512 })
}

// parseDigests reads what a client says that its bytes sum up to, from the
// header or from the trailer. can says what can be verified; algorithms that
// can't are skipped, but not where there is no other: who sends a digest wants it
// verified. So an empty field is refused, though to structured fields it would be as
// good as none.
func parseDigests(h http.Header, can func(object.Algorithm) bool) ([]object.Checksum, error) {
	var sums []object.Checksum
	for _, field := range digestFields {
		if len(h[field]) == 0 { // a trailer's name is there before its value
			continue
		}
		members, ok := parseByteSequences(strings.Join(h[field], ", "))
		if !ok {
			return nil, fault.New(fault.InvalidArgument, field, "is no dictionary of byte sequences like %s=:…: (RFC 9530)", sha256Key)
		}
		before := len(sums)
		for _, key := range slices.Sorted(maps.Keys(members)) {
			a, sum := algorithmOf(key), members[key]
			switch {
			case a == 0 || !can(a):
				continue
			case len(sum) != a.Size():
				return nil, fault.New(fault.InvalidArgument, field, "%s has %d bytes and not %d", key, len(sum), a.Size())
			}
			sums = append(sums, object.Checksum{Algorithm: a, Value: sum})
		}
		if len(sums) == before {
			return nil, fault.New(fault.InvalidArgument, field,
				"has none of %s, %s and %s; %s and %s are verified in the header, and in the trailer if the header has them in Want-Repr-Digest",
				sha256Key, crc32cKey, crc64nvmeKey, sha512Key, md5Key)
		}
	}
	values := h[md5Field]
	if len(values) == 0 {
		return sums, nil
	}
	sum, err := base64.StdEncoding.DecodeString(values[0])
	switch {
	case len(values) > 1 || err != nil || len(sum) != object.MD5.Size():
		return nil, fault.New(fault.InvalidArgument, "Content-MD5", "is no MD5: 16 bytes in base64, once")
	case !can(object.MD5):
		return nil, fault.New(fault.InvalidArgument, "Content-MD5", "is in the trailer, and the field Trailer of the header did not announce it")
	}
	return append(sums, object.Checksum{Algorithm: object.MD5, Value: sum}), nil
}

// missingDigest says which digest the header has announced for the trailer that
// hasn't come: what is between may drop trailers (RFC 9110, 6.5.1), and who
// announced one wants it verified.
func missingDigest(trailer http.Header) error {
	for _, field := range append(digestFields[:], md5Field) {
		if values, announced := trailer[field]; announced && len(values) == 0 {
			return fault.New(fault.IncompleteBody, "trailer", "%s was announced, and did not come", field)
		}
	}
	return nil
}

// inHeader says what can be verified that stands in a header: all that is known.
func inHeader(object.Algorithm) bool { return true }

// inTrailer says what can be verified that comes behind the body.
func inTrailer(extra []object.Algorithm) func(object.Algorithm) bool {
	return func(a object.Algorithm) bool {
		return a != object.MD5 && a != object.SHA512 || slices.Contains(extra, a)
	}
}

// formatDigest is the value of a digest field with a SHA-256, empty where that
// isn't known.
func formatDigest(sha256 []byte) string { return string(appendDigest(nil, sha256)) }

// appendDigest appends the value of a digest field with a SHA-256, nothing where
// that isn't known.
func appendDigest(to, sha256 []byte) []byte {
	if len(sha256) == 0 {
		return to
	}
	return appendMember(to, sha256Key, sha256)
}

func appendMember(to []byte, key string, sum []byte) []byte {
	to = append(append(to, key...), "=:"...)
	return append(base64.StdEncoding.AppendEncode(to, sum), ':')
}

// formatKnown is the value of a digest field with those of the algorithms whose
// sum of an object is known, empty if there are none.
func formatKnown(keys []string, info *object.Info) string {
	var members []string
	for _, key := range keys {
		var sum []byte
		switch a := algorithmOf(key); a {
		case object.SHA256:
			sum = info.SHA256
		case object.CRC32C:
			sum = binary.BigEndian.AppendUint32(nil, info.CRC32C)
		case object.CRC64NVME:
			sum = binary.BigEndian.AppendUint64(nil, info.CRC64NVME)
		default:
			for _, s := range info.Sums {
				if s.Algorithm == a {
					sum = s.Value
				}
			}
		}
		if len(sum) > 0 {
			members = append(members, string(appendMember(nil, key, sum)))
		}
	}
	return strings.Join(members, ", ")
}

// preferences are what a Want- field says (RFC 9530, 4).
type preferences struct {
	wanted []string // those with a weight, the heaviest first
	not    []string // those with the weight 0
}

// parsePreferences reads a field Want-Repr-Digest or Want-Content-Digest: a
// dictionary of integers from 0 to 10. One that is none, or too long for what
// is known here, says nothing, as it is no more than a wish.
func parsePreferences(values []string) (p preferences) {
	if len(values) == 0 {
		return p
	}
	weights := map[string]int{}
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		key, text, ok := strings.Cut(strings.Trim(member, " \t"), "=")
		weight, err := strconv.Atoi(text)
		if !ok || err != nil || !validKey(key) || text[0] == '+' || weight < 0 || weight > 10 {
			return preferences{}
		}
		if algorithmOf(key) != 0 {
			weights[key] = weight
		}
	}
	for _, key := range slices.Sorted(maps.Keys(weights)) {
		if weights[key] == 0 {
			p.not = append(p.not, key)
		} else {
			p.wanted = append(p.wanted, key)
		}
	}
	slices.SortStableFunc(p.wanted, func(a, b string) int { return weights[b] - weights[a] })
	return p
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
