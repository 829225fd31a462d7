package door

import (
	"fmt"
	"math"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
)

// maxRanges is how many range-specs one request may have. RFC 9110, 14.2 and
// 15.5.17, lets a server refuse more; each costs a part header and, at worst,
// a seek.
const maxRanges = 32

// byteRange is n bytes at off; n is never 0.
type byteRange struct{ off, n int64 }

func (b byteRange) end() int64 { return b.off + b.n }

// contentRange is the value of a Content-Range field.
func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.off, b.end()-1, size)
}

// parseRanges reads a Range field (RFC 9110, 14.1 and 14.2) on an object of
// size bytes. No ranges and no error is a field to ignore: another unit, a
// malformed set, or an object without bytes, of which there is no range. The
// ranges that can't be satisfied are left out; if there are no others, or too
// many, the error is RangeInvalid.
//
// Ranges that overlap or nearly touch are made one, in the place of the first
// of them, so that no byte is sent twice.
func parseRanges(field string, size int64) ([]byteRange, error) {
	unit, set, ok := strings.Cut(field, "=")
	if !ok || !strings.EqualFold(unit, "bytes") || size == 0 {
		return nil, nil
	}
	var ranges []byteRange
	specs := 0
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // an empty list element, RFC 9110, 5.6.1.2
		}
		if specs++; specs > maxRanges {
			return nil, fault.New(fault.RangeInvalid, "Range", "has more than %d ranges", maxRanges)
		}
		b, valid := parseSpec(spec, size)
		if !valid {
			return nil, nil
		}
		if b.n > 0 {
			ranges = coalesce(ranges, b)
		}
	}
	if specs > 0 && len(ranges) == 0 {
		return nil, fault.New(fault.RangeInvalid, "Range", "%s is beyond the object's %d bytes", field, size)
	}
	return ranges, nil
}

// parseSpec reads one range-spec. One that can't be satisfied has n 0.
func parseSpec(spec string, size int64) (b byteRange, valid bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return byteRange{}, false
	}
	if first == "" {
		n, ok := parsePosition(last)
		n = min(n, size)
		return byteRange{size - n, n}, ok
	}
	from, ok := parsePosition(first)
	if !ok {
		return byteRange{}, false
	}
	to := int64(math.MaxInt64)
	if last != "" {
		if to, ok = parsePosition(last); !ok || to < from {
			return byteRange{}, false
		}
	}
	if from >= size {
		return byteRange{}, true
	}
	to = min(to, size-1)
	return byteRange{from, to - from + 1}, true
}

// parsePosition reads 1*DIGIT. What doesn't fit is the largest int64, which is
// beyond any object.
func parsePosition(s string) (n int64, ok bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		d := int64(s[i]) - '0'
		if d < 0 || d > 9 {
			return 0, false
		}
		if n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
		} else {
			n = n*10 + d
		}
	}
	return n, true
}

// coalesce adds b to ranges, which are apart from each other, and keeps them
// so: b takes in every range that it touches, in the place of the first. Small
// gaps stay (RFC 9110, 15.3.7.2 would allow to close them): who asked for two
// parts gets two.
func coalesce(ranges []byteRange, b byteRange) []byteRange {
	place := len(ranges)
	for i := 0; i < len(ranges); {
		r := ranges[i]
		if r.off > b.end() || b.off > r.end() {
			i++
			continue
		}
		off := min(r.off, b.off)
		b = byteRange{off, max(r.end(), b.end()) - off}
		place = min(place, i)
		ranges = append(ranges[:i], ranges[i+1:]...)
		i = 0 // b has grown: it may touch one that it passed
	}
	place = min(place, len(ranges))
	ranges = append(ranges, byteRange{})
	copy(ranges[place+1:], ranges[place:])
	ranges[place] = b
	return ranges
}
