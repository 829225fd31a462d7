package door

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
)

func TestParseRanges(t *testing.T) {
	const size = 1000
	whole := []byteRange(nil)
	for _, c := range []struct {
		field   string
		want    []byteRange
		refused bool
	}{
		// RFC 9110, 14.1.2 and 14.2.
		{"bytes=0-499", []byteRange{{0, 500}}, false},
		{"bytes=500-999", []byteRange{{500, 500}}, false},
		{"bytes=-500", []byteRange{{500, 500}}, false},
		{"bytes=500-", []byteRange{{500, 500}}, false},
		{"bytes=0-0,-1", []byteRange{{0, 1}, {999, 1}}, false},
		{"bytes=500-600,601-999", []byteRange{{500, 500}}, false},
		{"bytes=500-700,601-999", []byteRange{{500, 500}}, false},
		{"BYTES=1-1", []byteRange{{1, 1}}, false},
		{"bytes=0-0 , 500-500", []byteRange{{0, 1}, {500, 1}}, false},
		{"bytes=,0-0,,500-500,", []byteRange{{0, 1}, {500, 1}}, false},
		{"bytes=\t0-0", []byteRange{{0, 1}}, false},
		// In the order of the request, but that what touches is sent once.
		{"bytes=900-909,0-9", []byteRange{{900, 10}, {0, 10}}, false},
		{"bytes=0-9,11-19", []byteRange{{0, 10}, {11, 9}}, false},
		{"bytes=0-9,10-19", []byteRange{{0, 20}}, false},
		{"bytes=0-9,900-909,5-920", []byteRange{{0, 921}}, false},
		{"bytes=800-809,200-209,0-9,210-799", []byteRange{{200, 610}, {0, 10}}, false},
		// Longer than the object.
		{"bytes=990-5000", []byteRange{{990, 10}}, false},
		{"bytes=-5000", []byteRange{{0, size}}, false},
		{"bytes=0-99999999999999999999999999", []byteRange{{0, size}}, false},
		{"bytes=-99999999999999999999999999", []byteRange{{0, size}}, false},
		// Not satisfiable, wholly or in part (15.5.17).
		{"bytes=1000-", nil, true},
		{"bytes=1000-1001,5000-", nil, true},
		{"bytes=-0", nil, true},
		{"bytes=99999999999999999999999999-", nil, true},
		{"bytes=1000-,0-0,-0", []byteRange{{0, 1}}, false},
		{"bytes=" + strings.Repeat("0-0,", maxRanges) + "0-0", nil, true},
		{"bytes=" + strings.Repeat("0-0,", maxRanges), []byteRange{{0, 1}}, false},
		// To be ignored.
		{"", whole, false},
		{"bytes", whole, false},
		{"bytes=", whole, false},
		{"bytes=,", whole, false},
		{"bytes=-", whole, false},
		{"bytes=a-b", whole, false},
		{"bytes=5-4", whole, false},
		{"bytes=0-1,5-4", whole, false},
		{"bytes=0--1", whole, false},
		{"bytes=+1-2", whole, false},
		{"bytes=0x1-2", whole, false},
		{"bytes=1 - 2", whole, false},
		{"bytes= ", whole, false},
		{"bytes =0-1", whole, false},
		{"lines=0-1", whole, false},
		{"bytes=0-1;5-6", whole, false},
	} {
		got, err := parseRanges(c.field, size)
		if refused := fault.KindOf(err) == fault.RangeInvalid && err != nil; refused != c.refused || err != nil && !refused {
			t.Errorf("%q: %v", c.field, err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.field, got, c.want)
		}
	}
}

func TestParseRangesOfNothing(t *testing.T) {
	for _, field := range []string{"bytes=0-", "bytes=-1", "bytes=5-6"} {
		if got, err := parseRanges(field, 0); got != nil || err != nil {
			t.Errorf("%q of an empty object: %v, %v", field, got, err)
		}
	}
}

// TestRangesCover compares with the plainest reading: the bytes that the specs
// name, one by one.
func TestRangesCover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 2000).Draw(t, "size")
		n := rapid.IntRange(1, maxRanges).Draw(t, "specs")
		asked := make([]bool, size)
		var specs []string
		for range n {
			if rapid.Bool().Draw(t, "suffix") {
				k := rapid.Int64Range(0, 2*size).Draw(t, "last")
				specs = append(specs, fmt.Sprintf("-%d", k))
				for i := max(0, size-k); i < size; i++ {
					asked[i] = true
				}
				continue
			}
			from := rapid.Int64Range(0, 2*size).Draw(t, "from")
			to := from + rapid.Int64Range(0, size).Draw(t, "more")
			specs = append(specs, fmt.Sprintf("%d-%d", from, to))
			for i := from; i <= min(to, size-1); i++ {
				asked[i] = true
			}
		}
		field := "bytes=" + strings.Join(specs, ",")
		got, err := parseRanges(field, size)
		if err != nil {
			if slices.Contains(asked, true) {
				t.Fatalf("%q of %d: %v", field, size, err)
			}
			return
		}
		checkRanges(t, got, size)
		sent := make([]bool, size)
		for _, r := range got {
			for i := r.off; i < r.end(); i++ {
				sent[i] = true
			}
		}
		for i := range asked {
			switch {
			case asked[i] && !sent[i]:
				t.Fatalf("%q of %d: byte %d is missing in %v", field, size, i, got)
			case sent[i] && !asked[i]:
				t.Fatalf("%q of %d: byte %d is sent in %v, and nobody asked for it", field, size, i, got)
			}
		}
	})
}

// checkRanges checks what every answer must be: within the object, and apart.
func checkRanges(t interface{ Fatalf(string, ...any) }, ranges []byteRange, size int64) {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b byteRange) int { return int(a.off - b.off) })
	end := int64(math.MinInt32)
	for _, r := range sorted {
		if r.n <= 0 || r.off < 0 || r.end() > size {
			t.Fatalf("range %v of %d bytes", r, size)
		}
		if r.off <= end {
			t.Fatalf("ranges %v touch", ranges)
		}
		end = r.end()
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"bytes=0-499", "bytes=-1,0-0", "bytes=9-,-0,5-4", "lines=1-2", "bytes=,,", "bytes=99999999999999999999-", "bytes=0-0, 1-1\t,"} {
		f.Add(s, int64(1000))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=0-9223372036854775807", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, field string, size int64) {
		// No object is larger than this; int(a.off-b.off) relies on it too.
		size = min(max(size, 0), 5<<40)
		ranges, err := parseRanges(field, size)
		if err != nil && (ranges != nil || fault.KindOf(err) != fault.RangeInvalid) {
			t.Fatalf("%q: %v, %v", field, ranges, err)
		}
		if len(ranges) > maxRanges {
			t.Fatalf("%q: %d ranges", field, len(ranges))
		}
		checkRanges(t, ranges, size)
		for _, r := range ranges {
			again, err := parseRanges(fmt.Sprintf("bytes=%d-%d", r.off, r.end()-1), size)
			if err != nil || !slices.Equal(again, []byteRange{r}) {
				t.Fatalf("%v does not come back: %v, %v", r, again, err)
			}
		}
	})
}
